"""Files that are whole or not there, though several processes write them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser_batch.errors import TrainingError
from training.files import locked, read_json, write_json, write_tensors, write_whole


def test_writers_of_one_file_come_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"

    def write(number: int) -> None:
        def slowly(new: Path) -> None:
            new.write_text(f"{number} begins")
            time.sleep(0.02)
            new.write_text(f"{number} is whole")

        write_whole(path, slowly)

    with ThreadPoolExecutor(8) as pool:  # the locks are of open files, so threads stand in for processes
        list(pool.map(write, range(8)))
    assert path.read_text().endswith("is whole")
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.json.tmp").write_text("{ much more than comes")
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json") == {"a": 1} and len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_whole(path, lambda new: new.write_text("old"))
    with pytest.raises(ZeroDivisionError):
        write_whole(path, lambda new: 1 / 0)
    assert path.read_text() == "old"


def test_tensors_are_written_by_one_at_a_time(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    path = tmp_path / "best.safetensors"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: write_tensors(path, {"x": torch.full((1000,), float(n))}), range(60)))
    assert len(set(load_file(path)["x"].tolist())) == 1 and list(tmp_path.iterdir()) == [path]


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
    with pytest.raises(TrainingError, match=r"split\.json cannot be read"):
        read_json(tmp_path / "split.json")
    with pytest.raises(TrainingError, match=r"absent\.json cannot be read"):
        read_json(tmp_path / "absent.json")
