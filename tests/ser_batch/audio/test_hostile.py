"""Damaged recordings, end to end: a row each, in order, with a reason; no crash, no hang, no memory blown up.

300 by default; `SER_BATCH_FUZZ=5000 pytest tests/ser_batch/audio/test_hostile.py` makes more, `SER_BATCH_FUZZ_SEED`
others.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation
from ser_batch.decode.pool import DecodePool
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from support.damage import ODDITIES, mutants, oddities
from support.encoded import ENCODED, encode, write_chained, write_dsf, write_flac
from support.recordings import FORMATS, RULE, write
from support.runs import score

MUTANTS = int(os.environ.get("SER_BATCH_FUZZ", "300"))
SEED = int(os.environ.get("SER_BATCH_FUZZ_SEED", "0"))
WORKER_LIMIT = 1 << 30
"""Bytes of address that a decode process may touch; a decoder that believes a lying header would take gigabytes."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    files = [write(folder / kind, 1.0, rate=16_000, kind=kind) for kind in FORMATS]
    files += [encode(folder / kind, kind, 1.0) for kind in ENCODED]
    files.append(encode(folder / "faststart", "m4a", 1.0, movflags="+faststart"))
    files.append(encode(folder / "fragments", "mp4", 1.0, movflags="frag_every_frame+empty_moov"))
    files.append(encode(folder / "film", "mp4", 1.0, video=True))
    files.append(write_chained(folder / "chain", 0.5, 0.5))
    files.append(write_flac(folder / "flac20", np.arange(8_000) * 7, 16_000, 20, length=False))
    files.append(write_dsf(folder / "dsf", np.zeros(300_000)))
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes]) -> list[Recording]:
    folder = tmp_path_factory.mktemp("damaged")
    for name, content in mutants(whole, MUTANTS, SEED):
        (folder / name).write_bytes(content)
    oddities(folder)
    return list(find_recordings([folder]))


def resident(pid: int) -> int:
    """Most bytes that a process has held at once."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


@pytest.mark.parametrize("window", [None, 0.5])
def test_a_damaged_recording_has_one_outcome(damaged: list[Recording], window: float | None) -> None:
    seen = []
    with DecodePool(Segmentation(RULE, window), workers=2, prefetch=40, timeout=30.0) as pool:
        for row, waveform in pool.decode(damaged):
            assert (row.start is None) == (row.status == "error") == (row.error is not None)
            reason = row.error or ""
            assert not reason.startswith(("unexpected", "decoder crashed", "took longer")), (row.recording.name, reason)
            reason.encode("utf-8")
            if row.start is not None:
                assert 0 <= row.start < row.end <= row.duration
            if waveform is not None:
                assert np.isfinite(waveform).all()
            if row.last:
                seen.append(row.recording)
        peaks = [resident(process._process.pid) for process in pool._processes]
    assert seen == damaged
    assert len(damaged) == MUTANTS + ODDITIES
    assert max(peaks) < WORKER_LIMIT


def test_a_run_over_damage_is_a_row_a_recording(damaged: list[Recording], toy_bundle: Bundle, tmp_path: Path) -> None:
    scorer = Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))
    summary = score(damaged, scorer, tmp_path / "o.parquet", workers=2)
    table = pq.read_table(tmp_path / "o.parquet")
    assert table["file"].to_pylist() == [recording.name for recording in damaged]
    assert summary.rows == len(damaged)
    assert summary.failures > MUTANTS // 4
    for row in table.to_pylist():
        scored = [value for name, value in row.items() if name.startswith("p_")]
        if row["status"] == "ok":
            assert sum(scored) == pytest.approx(1, abs=1e-5)
        else:
            assert set(scored) == {None}
