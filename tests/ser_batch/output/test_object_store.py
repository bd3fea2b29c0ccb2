"""Output in a bucket, which is a folder of this disk; real servers are in tests/object_stores."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

import ser_batch.output.object_store
import ser_batch.storage.bucket
from ser_batch.errors import OutputError, StoreError
from ser_batch.output.destination import SUCCESS, Output, check_output, open_store
from ser_batch.output.object_store import ObjectStore
from ser_batch.recordings.reader import read_table
from ser_batch.storage.bucket import PATIENCE, Bucket
from support.failing_store import AWAY, Failing
from support.parts import TABLE, batch, done, fill, opened, small_parts  # noqa: F401 — a fixture

OUT = "s3://b/results/out.parquet"


class Made(Failing):
    """A disk that makes folders as they are needed and has nothing below a file, as a bucket seems to."""

    def get_file_info(self, what: Any) -> Any:
        try:
            return self.__getattr__("get_file_info")(what)
        except NotADirectoryError as error:
            raise FileNotFoundError from error

    def open_output_stream(self, path: str, **options: Any) -> Any:
        self.requests.append("put")
        if failure := self._plan(len(self.requests), "put"):
            raise OSError(failure)
        self._files.create_dir(path.rpartition("/")[0])
        return self._files.open_output_stream(path, **options)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The store of the bucket "b", the folder `tmp_path / "b"`."""
    (tmp_path / "b").mkdir()
    made = Made(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), lambda *_: None)
    bucket = Bucket("s3", "b", made)  # type: ignore[arg-type]
    monkeypatch.setattr(ser_batch.storage.bucket, "open_bucket", lambda scheme, name: bucket)
    monkeypatch.setenv(PATIENCE, "0")
    return made


def names(tmp_path: Path) -> list[str]:
    root = tmp_path / "b"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def rows(out: str) -> str:
    return "".join(
        name for file in Output.parse(out).tables() for name in pq.ParquetFile(file.source()).read()["file"].to_pylist()
    )


def test_urls_are_files_and_folders_as_paths_are(disk: Made, tmp_path: Path) -> None:
    assert (str(Output.parse(OUT)), Output.parse(OUT).keeps_parts) == (OUT, False)
    assert str(Output.parse(OUT).folder) == f"{OUT}.parts"
    assert Output.parse("s3://b/results/").keeps_parts
    assert Output.parse("s3://b").keeps_parts
    assert not Output.parse("s3://b/results").keeps_parts
    fill("s3://b/results/", "abcd").close()
    assert Output.parse("s3://b/results").keeps_parts
    assert isinstance(open_store("s3://b"), ObjectStore)


def test_a_part_is_one_request_and_the_table_is_whole_at_the_end(disk: Made, tmp_path: Path) -> None:
    parts = fill(OUT, "abcdefghi")
    parts.flush()
    assert names(tmp_path) == [f"results/out.parquet.parts/{name}" for name in (".lock", *_parts(2))]
    assert disk.requests.count("put") == 3  # with the lock
    parts.finish()
    assert names(tmp_path) == ["results/out.parquet"]
    assert rows(OUT) == "abcdefghi"


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".xlsx"])
def test_other_formats_are_made_there_of_the_parquet_beside_them(disk: Made, tmp_path: Path, kind: str) -> None:
    out = f"s3://b/results/out{kind}"
    fill(out, "abcdefghi").finish()
    assert names(tmp_path) == [f"results/out{kind}", f"results/out{kind}.parquet"] and rows(out) == "abcdefghi"
    made = tmp_path / "b" / "results" / f"out{kind}"
    assert read_table(str(made))["file"].to_pylist() == [*"abcdefghi"]
    check_output(Output.parse(out), resume=True)
    fill(out, "jk", order="abcdefghijk", resume=True).finish()
    assert read_table(str(made))["file"].to_pylist() == [*"abcdefghijk"]


def _parts(count: int) -> list[str]:
    return [f"part-{number:06d}.parquet" for number in range(count)]


def test_what_a_killed_run_left_is_gone_on_with(disk: Made, tmp_path: Path) -> None:
    killed = fill(OUT, "abcdef")
    killed.flush()
    with pytest.raises(OutputError, match=r"is unfinished: s3://b/results/out\.parquet\.parts"):
        check_output(Output.parse(OUT))
    check_output(Output.parse(OUT), resume=True)
    again = opened(OUT, "")
    assert done(again, "abcdefghi") == "abcdef"
    again.close()
    fill(OUT, "ghi", resume=True, order="ihgfedcba").finish()
    assert rows(OUT) == "ihgfedcba"
    with pytest.raises(OutputError, match="exists already"):
        check_output(Output.parse(OUT))
    check_output(Output.parse(OUT), overwrite=True)
    fill(OUT, "xyz").finish()
    assert rows(OUT) == "xyz"
    assert names(tmp_path) == ["results/out.parquet"]


def test_a_folder_keeps_its_parts(disk: Made, tmp_path: Path) -> None:
    fill("s3://b/results/", "abcdefgh").finish()
    assert names(tmp_path) == [f"results/{name}" for name in (SUCCESS, *_parts(2))]
    with pytest.raises(OutputError, match="exists already"):
        check_output(Output.parse("s3://b/results/"))
    fill("s3://b/results/", "aij", resume=True, score=0.7, order="abcdefghij").finish()
    assert rows("s3://b/results/") == "bcdefghaij"


def test_what_is_no_table_is_not_replaced(disk: Made, tmp_path: Path) -> None:
    (tmp_path / "b" / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(OutputError, match="no Parquet file"):
        check_output(Output.parse("s3://b/x.wav"), overwrite=True)


def test_a_lock_holds_while_its_process_lives(disk: Made, tmp_path: Path) -> None:
    lock = tmp_path / "b" / "results" / "out.parquet.parts" / ".lock"
    fill(OUT, "abcd").flush()
    opened(OUT, "").close()  # our own, from before a restart
    parent = ser_batch.output.object_store._process(os.getppid())
    for holder, held in (
        (parent, True),
        (parent | {"started": "1"}, False),  # the number was given again
        (parent | {"host": f"not-{socket.gethostname()}"}, False),
        ({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1"}, False),
    ):
        lock.write_text(json.dumps(holder))
        if held:
            with pytest.raises(OutputError, match=f"another run is writing to .*process {os.getppid()}"):
                opened(OUT, "")
        else:
            opened(OUT, "").close()
            assert not lock.exists()
    lock.write_text("damaged")
    opened(OUT, "").close()


def test_a_store_that_goes_leaves_the_parts(disk: Made, tmp_path: Path) -> None:
    parts = fill(OUT, "abcdefghi")
    written = names(tmp_path)
    disk._plan = lambda *_: AWAY
    with pytest.raises(OutputError, match=r"cannot be written; got the store of s3://b cannot be reached.*--resume"):
        parts.flush()
    with pytest.raises(OutputError, match="cannot be reached"):
        parts.finish()
    parts.close()
    assert names(tmp_path) == written
    with pytest.raises(StoreError, match="cannot be reached"):
        check_output(Output.parse(OUT), resume=True)
    disk._plan = lambda *_: None
    fill(OUT, "ghi", resume=True, order="abcdefghi").finish()
    assert rows(OUT) == "abcdefghi"


def test_a_large_table_goes_through_the_disk(disk: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.output.object_store, "MEMORY", 100)
    monkeypatch.setattr(ser_batch.storage.bucket, "PUT_BYTES", 1_000)
    content = os.urandom(10_001)
    ObjectStore("s3://b/a").write("x", lambda sink: sink.write(content))
    assert (tmp_path / "b" / "a" / "x").read_bytes() == content
    assert ObjectStore("s3://b/a").start("x", 4) == content[:4]
