from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import OutputError
from ser_batch.output.destination import Output, check_output
from support.parts import TABLE, batch, done, fill, opened, small_parts  # noqa: F401 — a fixture


def check(out: Path | str, **options: bool) -> None:
    check_output(Output.parse(out), **options)


def test_a_folder_is_named_by_its_slash_or_by_being_there(tmp_path: Path) -> None:
    assert Output.parse(tmp_path).keeps_parts
    assert Output.parse(f"{tmp_path}/new/").keeps_parts
    assert not Output.parse(tmp_path / "new").keeps_parts


@pytest.mark.parametrize("name", ["out.parquet", "out/"])
def test_outputs_are_refused_before_any_work(tmp_path: Path, name: str) -> None:
    out = f"{tmp_path}/{name}"
    check(out)
    parts = fill(out, "abc")
    parts.flush()
    parts.close()
    with pytest.raises(OutputError, match=r"unfinished.*--resume.*--overwrite"):
        check(out)
    check(out, resume=True)
    opened(out, "abc").finish()
    with pytest.raises(OutputError, match=r"exists already.*--resume.*--overwrite"):
        check(out)
    check(out, overwrite=True)
    check(out, resume=True)


def test_an_output_needs_a_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not an existing folder"):
        check(tmp_path / "nowhere" / "out.parquet")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        check(f"{tmp_path}/file/")


def test_what_is_no_parquet_file_is_spared(tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    speech.write_bytes(b"RIFF....WAVE")
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match="no Parquet file"):
            check(speech, **options)
    with pytest.raises(OutputError, match="no Parquet file"):
        check(Path("/dev/null"), overwrite=True)


def test_somebody_elses_dataset_is_spared(tmp_path: Path) -> None:
    theirs = pa.table({"audio": [{"bytes": b"RIFF", "path": "a.wav"}]})
    pq.write_table(theirs, tmp_path / "dataset.parquet")
    pq.write_table(theirs, tmp_path / "part-000000.parquet")
    for name in ("dataset.parquet", ""):
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputError, match="was not made by ser-batch"):
                check(f"{tmp_path}/{name}", **options)


def test_only_our_parts_of_a_folder_are_replaced(tmp_path: Path) -> None:
    others = ["part-0.parquet", "part-00000-c0de.snappy.parquet", "part-x.parquet"]
    for name in others:
        pq.write_table(pa.table({"x": [1]}), tmp_path / name)
    out = f"{tmp_path}/"
    for _ in range(2):
        check(out, overwrite=True)
        fill(out, "abc").finish()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "_SUCCESS", "part-000000.parquet"}


def test_a_damaged_table_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_bytes(b"PAR1 and no more")
    check(tmp_path / "out.parquet", overwrite=True)
