from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import OutputError
from ser_batch.output.destination import SUCCESS, Output
from ser_batch.output.parts import Parts
from support.parts import TABLE, batch, done, fill, opened, small_parts  # noqa: F401 — a fixture


def finish(out: Path, names: str, **options: Any) -> None:
    fill(out, names, **options).finish()


def folder(out: Path) -> Path:
    return Path(str(Output.parse(out).folder))


def scores(out: Path) -> dict[str, float]:
    table = pq.read_table(out)
    return dict(zip(table["file"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_the_finished_table_has_every_row_in_order_and_leaves_no_parts(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    names = "abcdefghijklmnopqrstuvwxyz"
    parts = fill(out, names)
    assert len(parts.files) > 3
    assert not out.exists()
    parts.finish()
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
    (folder(out) / ".part-000009.parquet.tmp").write_bytes(b"half a part")
    assert not out.exists()
    again = opened(out, "abcdefgh")
    assert done(again, "abcdefgh") == "abcdef"  # g and h were in no part yet
    again.append(batch("gh"))
    again.finish()
    assert pq.read_table(out)["file"].to_pylist() == list("abcdefgh")
    assert list(tmp_path.iterdir()) == [out]


def test_other_inputs_than_before_the_latest_row_counts_and_none_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "acegik", score=0.25).close()
    parts = opened(out, "abceg")
    parts.append(batch("bc", score=0.75))
    parts.finish()
    assert scores(out) == {"a": 0.25, "b": 0.75, "c": 0.75, "e": 0.25, "g": 0.25, "i": 0.25, "k": 0.25}
    assert list(scores(out)) == list("abcegik")  # what is no longer listed comes last


def test_a_finished_table_is_added_to(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    finish(out, "bdfhjlnprtvx", score=0.25)
    before = out.stat().st_ino
    fill(out, "", resume=True, order="bdfhjlnprtvx").finish()
    assert out.stat().st_ino == before  # nothing new: not written again
    parts = fill(out, "acfy", resume=True, score=0.75, order="abcdfhjlnprtvxy")
    assert done(parts, "abcdefy") == "bdf"
    parts.finish()
    assert list(scores(out)) == list("abcdfhjlnprtvxy")
    assert {name for name, score in scores(out).items() if score == 0.75} == set("acfy")
    assert list(tmp_path.iterdir()) == [out]


def test_starting_anew_deletes_parts_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "abcdef").close()
    (folder(out) / "notes.txt").write_text("mine")
    parts = Parts(Output.parse(out), TABLE, "z")
    assert done(parts, "abcdef") == ""
    parts.append(batch("z"))
    parts.finish()
    assert pq.read_table(out)["file"].to_pylist() == ["z"]
    assert [path.name for path in folder(out).iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("other", [TABLE.with_metadata({"ser_batch.backend": "two"}), TABLE.remove(1)])
def test_parts_of_another_configuration_are_refused(tmp_path: Path, other: pa.Schema) -> None:
    out = tmp_path / "out.parquet"
    fill(out, "abcdef").close()
    with pytest.raises(OutputError, match="another configuration"):
        Parts(Output.parse(out), other, "", resume=True)
    resumed = opened(out, "")
    assert done(resumed, "abcdef") == "abcdef"
    resumed.close()


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    parts = fill(out, "abcdef")
    parts.close()
    damaged = Path(str(parts.files[0]))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(OutputError, match="cannot be read"):
        opened(out, "")


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    first = fill(out, "abcdef")
    with pytest.raises(OutputError, match="another run"):
        Parts(Output.parse(out), TABLE, "")
    first.finish()
    assert pq.read_table(out).num_rows == 6


def test_a_run_without_parts_leaves_no_folder(tmp_path: Path) -> None:
    Parts(Output.parse(tmp_path / "out.parquet"), TABLE, "").close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    out = tmp_path / "results" / "out.parquet"
    parts = fill(out, "ab")
    folder(out).rename(tmp_path / "moved")
    with pytest.raises(OutputError, match="cannot be written; got No such file"):
        parts.flush()


def test_a_disk_that_fills_up_keeps_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.parquet"
    parts = fill(out, "abcdef")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ser_batch.files.os.fsync", full)
        with pytest.raises(OutputError, match=r"No space left.*--resume"):
            parts.finish()
    parts.close()
    assert not out.exists()
    assert done(opened(out, ""), "abcdef") == "abcdef"


def test_a_folder_keeps_its_parts_and_says_that_it_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    finish(out, "abcdefgh")
    assert sorted(path.name for path in out.iterdir()) == [
        SUCCESS, "notes.txt", "part-000000.parquet", "part-000001.parquet",
    ]  # fmt: skip
    parts = opened(out, "abcdefghxy")
    assert not (out / SUCCESS).exists()
    parts.append(batch("bcxy", score=0.75, version=7))
    parts.finish()
    tables = [pq.read_table(file.source()) for file in parts.out.tables()]
    rows = [(row["file"], row["score"]) for table in tables for row in table.to_pylist()]
    assert [name for name, _ in rows] == list("adefghbcxy")
    assert {name for name, score in rows if score == 0.75} == set("bcxy")
    Parts(Output.parse(out), TABLE, "").close()
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("killed_after", range(1, 7))
def test_a_recording_of_many_rows_is_whole_or_absent(tmp_path: Path, killed_after: int) -> None:
    out = tmp_path / "out.parquet"
    written = [("aab", True), ("cc", False), ("ccc", False), ("ccc", False), ("ccd", False), ("dd", True)]
    whole = "".join(names for names, _ in written)
    parts = Parts(Output.parse(out), TABLE, "")
    for names, complete in written[:killed_after]:
        parts.append(batch(names, 0.25), complete=complete)
    parts.close()
    parts = opened(out, "abcd")
    kept = done(parts, "abcd")
    assert kept == {1: "", 6: "abcd"}.get(killed_after, "ab")
    parts.append(batch("".join(name for name in whole if name not in kept), 0.75))
    parts.finish()
    table = pq.read_table(out)
    assert table["file"].to_pylist() == list(whole)
    expected = [0.25 if name in kept else 0.75 for name in whole]
    assert table["score"].to_pylist() == expected


def test_an_overwritten_table_of_another_configuration_is_not_added_to(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    finish(out, "abcdef")
    other = TABLE.with_metadata({"ser_batch.backend": "two"})
    parts = Parts(Output.parse(out), other, "")
    parts.append(batch("abcd").replace_schema_metadata(other.metadata))
    parts.close()  # killed before the end; the old table is still there
    parts = Parts(Output.parse(out), other, "", resume=True)
    assert done(parts, "abcdef") == "abcd"
    parts.close()
    with pytest.raises(OutputError, match="another configuration"):
        opened(out, "")
