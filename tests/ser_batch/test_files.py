from __future__ import annotations

import os
import stat
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import pytest

from ser_batch.files import temporary_pattern, write_atomically, write_json


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_written_whole_with_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.txt", "één")
        write_atomically(tmp_path / "a.txt", lambda file: file.write(b"two"))
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").read_text() == "two"
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_leaves_what_was_there_and_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        (name,) = set(names(tmp_path)) - {"a.txt"}
        assert fnmatch(name, temporary_pattern("a.txt"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "a.txt", fail)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.txt", {"x": float("nan")})
    with pytest.raises(OSError):
        write_atomically(tmp_path / "absent" / "a.txt", b"")
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]
