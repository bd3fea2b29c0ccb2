"""How far a run's summary says that its labels are to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import ser_batch
from ser_batch.errors import BundleError
from ser_batch.pipeline.summary import summary_json
from support.bundles import reseal
from support.recordings import sound
from support.toy import make_toy_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_toy_bundle(tmp_path / "bundle").root


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A wide recording, two from a telephone of which one is clipped, a silent one."""
    folder = tmp_path / "audio"
    folder.mkdir()
    soundfile.write(folder / "a-wide.wav", sound(2.0, 48_000), 48_000)
    telephone = sound(2.0, 8_000)
    soundfile.write(folder / "b-narrow.wav", telephone, 8_000)
    soundfile.write(folder / "c-clipped.wav", np.clip(20 * telephone, -1, 1), 8_000)
    soundfile.write(folder / "d-silent.wav", np.zeros(8_000), 8_000)
    return folder


def state(bundle: Path, trust: Any) -> None:
    reseal(bundle, lambda data: data["metrics"].update(trust=trust))


def test_what_is_unlike_the_training_is_counted(audio: Path, bundle: Path, tmp_path: Path) -> None:
    summary = ser_batch.run(audio, tmp_path / "o.parquet", bundle=bundle)
    assert (summary.narrow, summary.narrow_below, summary.clipped) == (2, 4_200, 1)
    lines = dict(line.split(maxsplit=1) for line in str(summary).splitlines())
    assert lines["sound"] == "2 rows with nothing above 4.2 kHz, 1 clipped: see the columns `bandwidth` and `clipped`"
    assert lines["silent"] == "1" and lines["trust"] == "not measured on unseen corpora; ser-batch info says more"
    assert summary_json(summary)["clipped"] == 1 and summary_json(summary)["trust"] == summary.trust
    again = ser_batch.run(audio, tmp_path / "o.parquet", bundle=bundle, resume=True)
    assert (again.reused, again.narrow, again.clipped) == (4, 2, 1)
    alone = ser_batch.run(audio / "a-wide.wav", tmp_path / "a.parquet", bundle=bundle)
    assert "sound" not in str(alone)


def test_the_bundle_says_how_well_and_what_is_narrow(audio: Path, bundle: Path, tmp_path: Path) -> None:
    unseen = {"ua": 0.5, "labels": 4, "clips": 100, "corpora": ["EmoDB"]}
    state(bundle, {"unseen": unseen, "bandwidth_hz": 3000.0})
    summary = ser_batch.run(audio, tmp_path / "o.parquet", bundle=bundle)
    assert summary.narrow < 2 and summary.narrow_below == 3000
    assert "trust     UA 50.0 % on corpora that it was not trained on: EmoDB (100 clips, up to 4 labels" in str(summary)


def test_rows_that_reach_the_score_of_the_bundle_are_counted(audio: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    silent = ser_batch.run(audio, out, bundle=bundle)
    assert silent.confident is None and "\nsure " not in str(silent)
    scores = sorted(score for score in pq.read_table(out)["score"].to_pylist() if score is not None)
    state(bundle, {"confident": {"score": scores[1], "precision": 0.7, "share": 0.4}})
    summary = ser_batch.run(audio, tmp_path / "p.parquet", bundle=bundle)
    assert (summary.confident, summary.clips) == (2, 3) and "sure      2 of 3 clips: a score of" in str(summary)
    assert summary.trust.startswith("not measured on unseen corpora; 70 % right where the score is ")
    again = ser_batch.run(audio, tmp_path / "p.parquet", bundle=bundle, resume=True)
    assert (again.reused, again.confident) == (4, 2)


def test_a_statement_that_makes_no_sense_ends_the_run_before_it_begins(
    audio: Path, bundle: Path, tmp_path: Path
) -> None:
    state(bundle, {"unseen": 0.5})
    with pytest.raises(BundleError, match="metrics: trust: unseen is not an object"):
        ser_batch.run(audio, tmp_path / "o.parquet", bundle=bundle)
    assert not [*tmp_path.glob("o.*")]


def test_rows_per_recording_of_segments_have_their_share_of_clipping(audio: Path, bundle: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "w.parquet", tmp_path / "a.parquet"
    ser_batch.run(audio, out, bundle=bundle, window=1.0, aggregate=whole)
    segments, rows = pq.read_table(out).to_pylist(), pq.read_table(whole).to_pylist()
    for row in rows:
        own = [each["clipped"] for each in segments if each["file"] == row["file"]]
        assert row["clipped"] == pytest.approx(sum(own) / len(own), abs=1e-6)
    assert max(row["clipped"] for row in rows) > 0.01
