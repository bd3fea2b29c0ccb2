from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ser_batch.parts
from ser_batch.errors import OutputError
from ser_batch.parts import Parts, check_output, parts_folder

TABLE = pa.schema(
    [pa.field("file", pa.string(), nullable=False), pa.field("score", pa.float32())],
    metadata={"ser_batch.backend": "one"},
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.parts, "PART_ROWS", 4)
    monkeypatch.setattr(ser_batch.parts, "PARTS_A_GROUP", 2)


def batch(parts: Parts, names: str, score: float = 0.5) -> Any:
    columns = [list(names), [score] * len(names), [1] * len(names), [2] * len(names)]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, parts.schema, strict=True)],
        schema=parts.schema,
    )


def fill(out: Path, names: str, *, resume: bool = False, score: float = 0.5) -> Parts:
    parts = Parts(out, TABLE, resume=resume)
    for start in range(0, len(names), 3):
        parts.append(batch(parts, names[start : start + 3], score))
    return parts


def test_the_finished_table_has_every_row_in_order_and_leaves_no_parts(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    names = "abcdefghijklmnopqrstuvwxyz"
    parts = fill(out, names)
    assert len(parts.files) > 3
    assert not out.exists()
    parts.finish(names)
    table = pq.read_table(out)
    assert table["file"].to_pylist() == list(names)
    assert table.schema.equals(TABLE, check_metadata=False)
    assert pq.read_schema(out).metadata[b"ser_batch.backend"] == b"one"
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"
    assert list(tmp_path.iterdir()) == [out]


def test_an_abandoned_run_is_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    first = fill(out, "abcdefgh")
    first.close()
    (parts_folder(out) / "part-000009.tmp").write_bytes(b"half a part")
    assert not out.exists()
    again = Parts(out, TABLE, resume=True)
    assert again.done() == dict.fromkeys("abcdef", (1, 2))  # g and h were in no part yet
    again.append(batch(again, "gh"))
    again.finish("abcdefgh")
    assert pq.read_table(out)["file"].to_pylist() == list("abcdefgh")
    assert list(tmp_path.iterdir()) == [out]


def test_other_inputs_than_before_the_latest_row_counts(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "acegik", score=0.25).close()
    parts = Parts(out, TABLE, resume=True)
    parts.append(batch(parts, "bc", score=0.75))
    parts.finish("abceg")
    assert pq.read_table(out).to_pydict() == {"file": list("abceg"), "score": [0.25, 0.75, 0.75, 0.25, 0.25]}


def test_starting_anew_deletes_parts_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "abcdef").close()
    (parts_folder(out) / "notes.txt").write_text("mine")
    parts = Parts(out, TABLE)
    assert parts.done() == {}
    parts.append(batch(parts, "z"))
    parts.finish("z")
    assert pq.read_table(out)["file"].to_pylist() == ["z"]
    assert [path.name for path in parts_folder(out).iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "other", [TABLE.with_metadata({"ser_batch.backend": "two"}), pa.schema([TABLE.field(0)], TABLE.metadata)]
)
def test_parts_of_another_configuration_are_refused(tmp_path: Path, other: pa.Schema) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "abcdef").close()
    with pytest.raises(OutputError, match="another configuration"):
        Parts(out, other, resume=True)
    resumed = Parts(out, TABLE, resume=True)
    assert set(resumed.done()) == set("abcdef")
    resumed.close()


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    parts = fill(out, "abcdef")
    parts.close()
    parts.files[0].write_bytes(parts.files[0].read_bytes()[:-20])
    with pytest.raises(OutputError, match="cannot be read"):
        Parts(out, TABLE, resume=True)


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    first = fill(out, "abcdef")
    with pytest.raises(OutputError, match="another run"):
        Parts(out, TABLE)
    first.finish("abcdef")
    assert pq.read_table(out).num_rows == 6


def test_a_run_without_parts_leaves_no_folder(tmp_path: Path) -> None:
    Parts(tmp_path / "out.parquet", TABLE).close()
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_goes_is_a_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    parts = fill(folder / "out.parquet", "ab")
    parts_folder(folder / "out.parquet").rename(tmp_path / "moved")
    with pytest.raises(OutputError, match="cannot be written; got No such file"):
        parts.flush()


def test_a_disk_that_fills_up_keeps_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.parquet"
    parts = fill(out, "abcdef")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ser_batch.parts.os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            parts.finish("abcdef")
    parts.close()
    assert not out.exists()
    assert set(Parts(out, TABLE, resume=True).done()) == set("abcdef")


def test_outputs_are_refused_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    check_output(out)
    with pytest.raises(OutputError, match="not an existing folder"):
        check_output(tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    fill(out, "abcdef").close()
    with pytest.raises(OutputError, match=r"unfinished.*--resume.*--overwrite"):
        check_output(out)
    check_output(out, resume=True)
    Parts(out, TABLE, resume=True).finish("abcdef")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
            check_output(out, resume=resume)
    check_output(out, overwrite=True)


def test_overwriting_spares_what_is_no_parquet_file(tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    speech.write_bytes(b"RIFF....WAVE")
    with pytest.raises(OutputError, match="no Parquet file"):
        check_output(speech, overwrite=True)
    with pytest.raises(OutputError, match="no Parquet file"):
        check_output(Path("/dev/null"), overwrite=True)
