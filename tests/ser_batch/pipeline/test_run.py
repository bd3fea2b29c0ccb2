"""What a run reads of its own output, and outputs of earlier versions that it goes on with."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import ser_batch.output.parts
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.output.stores import LocalStore
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.run import run
from support.recordings import sources
from support.runs import score

OLD = Path(__file__).parents[2] / "support" / "version_0_1_0"


@pytest.fixture(scope="module")
def scorer(toy_bundle: Bundle) -> Scorer:
    return Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of an output was read; parts have two rows."""
    monkeypatch.setattr(ser_batch.output.parts, "PART_ROWS", 2)
    counted: Counter[str] = Counter()
    source = LocalStore.source

    def counting(store: LocalStore, name: str) -> str:
        counted[name] += 1
        return source(store, name)

    monkeypatch.setattr(LocalStore, "source", counting)
    return counted


@pytest.mark.parametrize("window", [None, 0.1])
def test_a_fresh_run_reads_a_part_once_to_make_one_file(
    tmp_path: Path, scorer: Scorer, reads: Counter[str], window: float | None
) -> None:
    summary = score(sources(tmp_path / "audio", 15), scorer, tmp_path / "o.parquet", window=window, batch_size=2)
    assert len(reads) > 5 and set(reads.values()) == {1} and "o.parquet" not in reads
    _agrees(summary, tmp_path / "o.parquet")


def test_a_fresh_run_reads_nothing_of_a_folder_of_parts(tmp_path: Path, scorer: Scorer, reads: Counter[str]) -> None:
    summary = score(sources(tmp_path / "audio", 15), scorer, f"{tmp_path}/o/", batch_size=2)
    assert not reads
    _agrees(summary, tmp_path / "o")


@pytest.mark.parametrize("name", ["o.parquet", "o/"])
def test_the_summary_is_of_the_whole_output_also_when_rows_are_made_again(
    tmp_path: Path, scorer: Scorer, reads: Counter[str], name: str
) -> None:
    listed, audio = sources(tmp_path / "audio", 12), tmp_path / "audio"
    score(listed, scorer, f"{tmp_path}/{name}", batch_size=2)
    _agrees(score(listed, scorer, f"{tmp_path}/{name}", resume=True), tmp_path / name)
    (audio / "003.wav").write_bytes((audio / "000.wav").read_bytes())  # was no audio
    (audio / "005.wav").write_bytes(b"not any more")
    again = score(listed, scorer, f"{tmp_path}/{name}", resume=True)
    assert (again.reused, again.failures) == (10, 2)
    assert [file for file, _ in again.errors] == (
        ["005.wav", "008.wav"] if name == "o.parquet" else ["008.wav", "005.wav"]
    )
    _agrees(again, tmp_path / name)


def _agrees(summary: object, output: Path) -> None:
    """A summary counts what a reader of the output would count."""
    rows = pq.read_table(output).to_pylist()
    found = [row for row in rows if row["start"] is not None]
    assert summary.rows == len(rows)
    assert {status: n for status, n in summary.statuses.items() if n} == Counter(row["status"] for row in rows)
    assert {label: n for label, n in summary.labels.items() if n} == Counter(r["label"] for r in rows if r["label"])
    assert summary.audio_hours * 3600 == pytest.approx(sum(row["end"] - row["start"] for row in found))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Outputs that version 0.1.0 left, and the ten recordings that they are about, the fourth no audio."""
    shutil.copytree(OLD, tmp_path / "old")
    audio = tmp_path / "old" / "audio"
    audio.mkdir()
    for number in range(10):
        path = audio / f"{number:02}.wav"
        time = np.arange(16_000 * (1 + number)) / 16_000
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * time), 16_000, subtype="PCM_16")
        if number == 3:
            path.write_bytes(b"no audio")
        os.utime(path, ns=(1_700_000_000_000_000_000 + number,) * 2)
    return tmp_path / "old"


@pytest.mark.parametrize(
    ("name", "whole", "reused", "options"),
    [
        ("finished.parquet", "whole.parquet", 4, {}),
        ("interrupted.parquet", "whole.parquet", 7, {}),
        ("windows.parquet", "whole-windows.parquet", 7, {"window": 2.0, "hop": 1.0}),
    ],
)
def test_outputs_of_version_0_1_0_are_gone_on_with(
    old: Path, name: str, whole: str, reused: int, options: dict[str, float]
) -> None:
    config = RunConfig(
        (str(old / "audio"),), old / name, old / "bundle", "onnxruntime", threads=1, resume=True, **options
    )
    made: list[int] = []

    def listen(progress: Progress) -> None:
        made.append(progress.files)

    result = run(config, watch=lambda total: nullcontext(listen))
    assert (result.summary.reused, made[-1]) == (reused, 10 - reused)
    found, expected = pq.read_table(old / name), pq.read_table(old / whole)
    assert found.schema.equals(expected.schema, check_metadata=True)
    for column in found.column_names:
        if column == "error":
            continue  # its words are free to change
        if found.schema.field(column).type == "float":
            np.testing.assert_allclose(found[column].to_numpy(), expected[column].to_numpy(), atol=1e-5)
        else:
            assert found[column].to_pylist() == expected[column].to_pylist()
    _agrees(result.summary, old / name)
