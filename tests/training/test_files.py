"""Files that are whole or not there, though several processes write them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser_batch.errors import TrainingError
from training.files import locked, read_json, read_tensors, write_tensors


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
