"""Where a run finds room, and what it says when there is none; nothing here starts Ray."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError, InputError
from ser_batch.pipeline.ray.cluster import Placement, Room
from support.commands import run
from support.recordings import sources

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 64.0}
GPUS = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "placement", "room"),
    [
        ([LARGE], Placement(), Room(16, 4, 0)),
        ([SMALL, LARGE], Placement(), Room(33, 2, 0)),
        ([SMALL, LARGE], Placement(cpus=8), Room(8, 8, 0)),
        ([LARGE, LARGE], Placement(actors=3, cpus=1), Room(3, 1, 0)),
        ([LARGE, GPUS], Placement(gpus=1), Room(8, 8, 1)),
        ([GPUS], Placement(gpus=0.5), Room(16, 4, 0.5)),
        ([{"CPU": 0.0}, SMALL], Placement(), Room(1, 2, 0)),
    ],
)
def test_actors_fill_the_machines(nodes: list[dict[str, float]], placement: Placement, room: Room) -> None:
    assert Room.of(nodes, placement) == room


def test_no_room_is_an_error_that_says_what_there_is() -> None:
    with pytest.raises(EngineError, match="got 2 CPUs and 0 GPUs; expected 1 CPUs and 1 GPUs"):
        Room.of([SMALL], Placement(gpus=1))
    with pytest.raises(EngineError, match="expected 100 CPUs"):
        Room.of([LARGE], Placement(cpus=100))
    with pytest.raises(InputError):
        Placement(actors=0)


def test_without_ray_the_error_names_the_extra(
    tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources(tmp_path / "audio", 1)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    given = (tmp_path / "audio", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given, "--engine", "ray") == 2
    assert "pip install 'ser-batch[ray]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_an_address_where_nothing_answers_is_told_at_once(
    tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'ser-batch[ray]'")
    sources(tmp_path / "audio", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        given = (tmp_path / "audio", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
        assert run(*given, "--engine", "ray", "--ray-address", address) == 2
    assert f"no Ray cluster answers; got {address}" in capsys.readouterr().err


def test_options_of_ray_are_for_ray(tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    sources(tmp_path / "audio", 1)
    assert run(tmp_path / "audio", "--out", tmp_path / "o.parquet", "--ray-cpus", 2) == 2
    assert "--engine ray" in capsys.readouterr().err
