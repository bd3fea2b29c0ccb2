from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import ser_batch.output.parts
from ser_batch.audio.reader import read_clip
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import EngineError, InputError, OutputError
from ser_batch.output.destination import Output
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.summary import format_summary
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from support.recordings import sources
from support.runs import score
from support.toy import toy_fusion, toy_probabilities, toy_weights


@pytest.fixture(scope="module")
def scorer(toy_bundle: Bundle) -> Scorer:
    return Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))


class FailingEngine:
    """A real engine that fails at any batch with a clip that `fails` says it cannot take."""

    name, precision, device = "failing", "fp32", "cpu"

    def __init__(self, engine: Any, fails: Any) -> None:
        self.engine, self.fails = engine, fails

    def run(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        if any(self.fails(clip) for clip in waveform):
            raise EngineError("cannot take this clip")
        rows: dict[str, np.ndarray] = self.engine.run(waveform)
        return rows

    def close(self) -> None:
        pass


def test_rows_hold_the_probabilities_of_their_own_clip(tmp_path: Path, scorer: Scorer, toy_bundle: Bundle) -> None:
    listed = sources(tmp_path / "audio", 10)
    summary = score(listed, scorer, tmp_path / "out.parquet", batch_size=3, workers=2)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["file"] for row in rows] == [recording.name for recording in listed]
    for recording, row in zip(listed, rows, strict=True):
        if row["status"] == "error":
            assert row["label"] is None
            assert "cannot be decoded" in row["error"]
            continue
        waveform = read_clip(recording.path, toy_bundle.manifest.clip).waveform[None]
        branches = {
            name: toy_probabilities(waveform, toy_weights(name, 8)).astype(np.float32)
            for name in ("wav2vec2", "spectrogram")
        }
        fused = toy_fusion()(branches)[0]
        assert row["label"] == toy_bundle.labels[int(fused.argmax())]
        for index, label in enumerate(toy_bundle.labels):
            assert row[f"p_{label}"] == pytest.approx(fused[index], abs=1e-5)
            assert row[f"spectrogram_p_{label}"] == pytest.approx(branches["spectrogram"][0, index], abs=1e-5)
    assert (summary.clips, summary.failures, summary.reused) == (8, 2, 0)
    assert sum(summary.labels.values()) == 8
    assert [file for file, _ in summary.errors] == ["003.wav", "008.wav"]
    assert summary.audio_hours == pytest.approx(sum(row["end"] or 0 for row in rows) / 3600)


def test_the_table_does_not_depend_on_batches_or_workers(tmp_path: Path, scorer: Scorer) -> None:
    listed = sources(tmp_path / "audio", 23)
    score(listed, scorer, tmp_path / "one.parquet")
    one = pq.read_table(tmp_path / "one.parquet")
    for batch_size, workers in ((1, 1), (2, 5), (64, 3)):
        score(listed, scorer, tmp_path / f"{batch_size}.parquet", batch_size=batch_size, workers=workers)
        other = pq.read_table(tmp_path / f"{batch_size}.parquet")
        for name in one.column_names:
            if one.schema.field(name).type == "float":
                np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-6)
            else:
                assert one[name].to_pylist() == other[name].to_pylist()


def test_only_failures_still_make_a_table(tmp_path: Path, scorer: Scorer) -> None:
    (tmp_path / "audio").mkdir()
    for index in range(40):
        (tmp_path / "audio" / f"{index}.wav").write_bytes(b"x")
    seen: list[tuple[int, int]] = []
    summary = score(
        find_recordings([tmp_path / "audio"]),
        scorer,
        tmp_path / "out.parquet",
        batch_size=2,
        listener=lambda progress: seen.append((progress.rows, progress.failures)),
    )
    assert (summary.clips, summary.failures, summary.audio_hours) == (0, 40, 0)
    assert seen[-1] == (40, 40)
    assert len(seen) > 1  # they are not all held back for a batch that never fills
    assert pq.read_table(tmp_path / "out.parquet")["status"].to_pylist() == ["error"] * 40


def test_a_clip_that_the_engine_cannot_take_is_a_row(tmp_path: Path, scorer: Scorer) -> None:
    listed = [recording for recording in sources(tmp_path / "audio", 8) if recording.name != "003.wav"]
    bad = read_clip(listed[5].path, scorer.bundle.manifest.clip).waveform
    engine = FailingEngine(scorer.engine, lambda clip: np.array_equal(clip, bad))
    failing = Scorer(scorer.bundle, engine)
    summary = score(listed, failing, tmp_path / "out.parquet", batch_size=3)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["error"] + ["ok"]
    assert "cannot take this clip" in rows[5]["error"]
    assert summary.failures == 1
    score(listed, scorer, tmp_path / "whole.parquet", batch_size=3)
    whole = pq.read_table(tmp_path / "whole.parquet").to_pylist()
    assert rows[4]["p_sad"] == pytest.approx(whole[4]["p_sad"], abs=1e-6)
    assert rows[6]["p_sad"] == pytest.approx(whole[6]["p_sad"], abs=1e-6)


def test_an_engine_that_never_works_is_no_table_of_errors(tmp_path: Path, scorer: Scorer) -> None:
    broken = Scorer(scorer.bundle, FailingEngine(scorer.engine, lambda clip: True))
    with pytest.raises(EngineError, match="cannot take"):
        score(sources(tmp_path / "audio", 5), broken, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def interrupt_after(rows: int) -> Any:
    def listener(progress: Progress) -> None:
        if progress.rows >= rows:
            raise KeyboardInterrupt

    return listener


def test_an_interrupted_run_keeps_its_rows_for_resume(tmp_path: Path, scorer: Scorer) -> None:
    listed, out = sources(tmp_path / "audio", 20), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score(listed, scorer, out, batch_size=4, listener=interrupt_after(9))
    assert not out.exists()
    with pytest.raises(OutputError, match="unfinished"):
        score(listed, scorer, out, batch_size=4)
    summary = score(listed, scorer, out, batch_size=4, resume=True)
    assert 9 <= summary.reused < 20
    assert summary.clips + summary.failures == 20
    score(listed, scorer, tmp_path / "whole.parquet", batch_size=4)
    resumed, whole = pq.read_table(out), pq.read_table(tmp_path / "whole.parquet")
    assert resumed["file"].equals(whole["file"])
    assert resumed["label"].to_pylist() == whole["label"].to_pylist()
    np.testing.assert_allclose(resumed["p_sad"].to_numpy(), whole["p_sad"].to_numpy(), atol=1e-6)
    assert not Output.parse(out).folder.is_there()


def test_resume_makes_changed_inputs_again_and_takes_new_ones(
    tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ser_batch.output.parts, "PART_ROWS", 2)
    audio, out = tmp_path / "audio", tmp_path / "out.parquet"
    listed = sources(audio, 9)
    with pytest.raises(KeyboardInterrupt):
        score(listed, scorer, out, batch_size=2, listener=interrupt_after(6))
    (audio / "003.wav").write_bytes((audio / "000.wav").read_bytes())  # was no audio
    (audio / "001.wav").unlink()
    (audio / "000b.wav").write_bytes(b"new, and no audio")
    listed = find_recordings([audio])
    summary = score(listed, scorer, out, batch_size=2, resume=True)
    rows = {row["file"]: row for row in pq.read_table(out).to_pylist()}
    assert list(rows) == [*(recording.name for recording in listed), "001.wav"]
    assert summary.unlisted == 1
    assert "unlisted  1 of an earlier run" in format_summary(summary)
    assert rows["003.wav"]["status"] == "ok"
    assert rows["003.wav"]["p_sad"] == pytest.approx(rows["000.wav"]["p_sad"], abs=1e-6)
    assert rows["000b.wav"]["status"] == "error"


def test_results_of_another_configuration_are_not_resumed(tmp_path: Path, scorer: Scorer) -> None:
    listed, out = sources(tmp_path / "audio", 9), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score(listed, scorer, out, batch_size=2, listener=interrupt_after(4))
    other = Scorer(scorer.bundle, FailingEngine(scorer.engine, lambda clip: False))
    with pytest.raises(OutputError, match=r"another configuration; got ser_batch\.backend onnxruntime"):
        score(listed, other, out, resume=True)
    with pytest.raises(OutputError, match="another configuration; got other columns"):
        score(listed, scorer, out, resume=True, branch_columns=False)
    score(listed, other, out, overwrite=True)
    assert pq.read_schema(out).metadata[b"ser_batch.backend"] == b"failing"


def test_nothing_to_do_is_an_input_error(tmp_path: Path, scorer: Scorer) -> None:
    with pytest.raises(InputError):
        score([], scorer, tmp_path / "out.parquet")
    with pytest.raises(InputError):
        score([Recording("x", "x")], scorer, tmp_path / "out.parquet", workers=-1)
