"""Files that are whole or not there, though several processes write them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser_batch.errors import TrainingError
from training.files import locked, read_json, read_tensors, write_once, write_tensors


def test_of_several_writers_one_writes_and_the_others_wait(tmp_path: Path) -> None:
    path, written = tmp_path / "deep" / "x.txt", []

    def write(number: int) -> None:
        def slowly(new: Path) -> None:
            written.append(number)
            new.write_text(f"{number} begins")
            time.sleep(0.02)
            new.write_text(f"{number} is whole")

        write_once(path, slowly)
        assert path.read_text().endswith("is whole")

    with ThreadPoolExecutor(8) as pool:  # the locks are of open files, so threads stand in for processes
        list(pool.map(write, range(8)))
    assert len(written) == 1 and list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.txt.tmp").write_text("much more than comes")
    write_once(tmp_path / "x.txt", lambda new: new.write_text("whole"))
    assert (tmp_path / "x.txt").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_it_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with pytest.raises(ZeroDivisionError):
        write_once(path, lambda new: 1 / 0)
    assert not path.exists()
    write_once(path, lambda new: new.write_text("whole"))
    assert path.read_text() == "whole"


def test_tensors_are_whole_whoever_else_writes_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    path = tmp_path / "best.safetensors"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: write_tensors(path, {"x": torch.full((1000,), float(n))}), range(60)))
    assert len(set(read_tensors(path)["x"].tolist())) == 1 and list(tmp_path.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"best\.safetensors cannot be read"):
        read_tensors(path)


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")

    def add(_: int) -> None:
        with locked(tmp_path):
            number = int(path.read_text())
            time.sleep(0.01)
            path.write_text(str(number + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert path.read_text() == "12"


@pytest.mark.parametrize("content", ["", "{"])
def test_damaged_json_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(TrainingError, match=r"split\.json is not valid JSON"):
        read_json(tmp_path / "split.json")
    with pytest.raises(TrainingError, match=r"absent\.json cannot be read"):
        read_json(tmp_path / "absent.json")
