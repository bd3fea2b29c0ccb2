from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle.files import write_arrays
from ser_batch.bundle.reference import Reference, load_reference, save_reference, synthetic_clips
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError

RULE = ClipRule(sample_rate=8_000, samples=8_000)


def make_reference(clips: np.ndarray | None = None, classes: int = 3) -> Reference:
    clips = synthetic_clips(RULE) if clips is None else clips
    rows = np.random.default_rng(0).dirichlet(np.ones(classes), len(clips)).astype(np.float32)
    return Reference(clips, {"x": rows, "y": rows[::-1].copy()}, rows)


def test_synthetic_clips_are_loud_quiet_silent_and_the_same_every_time() -> None:
    clips = synthetic_clips(ClipRule())
    assert clips.shape == (8, 144_000)
    assert clips.dtype == np.float32
    np.testing.assert_array_equal(clips, synthetic_clips(ClipRule()))
    peaks = np.abs(clips).max(axis=1)
    assert peaks[0] > 0.9
    assert 0 < peaks[1] < 2e-3
    assert peaks[2] == 0
    assert (peaks[3:6] > 0.1).all()
    assert set(np.unique(clips[6] * 32_768)) == {-1, 0, 1}
    assert clips[7].mean() == pytest.approx(0.05, abs=1e-3) and clips[7].std() < 1e-3
    assert (clips[5, 48_000:] == 0).all()


def test_the_sweep_stays_below_nyquist_and_reaches_high() -> None:
    rule = ClipRule()
    tail = synthetic_clips(rule)[3, -4_800:] * np.hanning(4_800)
    peak = np.abs(np.fft.rfft(tail)).argmax() * rule.sample_rate / 4_800
    assert 20_000 < peak < 22_000


def test_it_survives_being_stored_exactly_and_small(tmp_path: Path) -> None:
    reference = make_reference(synthetic_clips(ClipRule()))
    path = tmp_path / "reference.npz"
    save_reference(reference, path)
    back = load_reference(path, ("x", "y"))
    np.testing.assert_array_equal(back.waveform, reference.waveform)
    np.testing.assert_array_equal(back.fused, reference.fused)
    for name in ("x", "y"):
        np.testing.assert_array_equal(back.branches[name], reference.branches[name])
    assert back.waveform.dtype == np.float32
    assert path.stat().st_size < 1_000_000


def test_the_extremes_of_int16_survive(tmp_path: Path) -> None:
    clips = np.array([[-1.0, 32767 / 32768, 0.0, 1 / 32768]], dtype=np.float32)
    save_reference(make_reference(clips), tmp_path / "reference.npz")
    np.testing.assert_array_equal(load_reference(tmp_path / "reference.npz", ("x", "y")).waveform, clips)


@pytest.mark.parametrize("value", [1.0, 0.1, np.nan, -1.5])
def test_a_waveform_that_would_not_survive_is_refused(value: float) -> None:
    with pytest.raises(BundleError, match="16-bit"):
        make_reference(np.full((1, 4), value, dtype=np.float32))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(BundleError, match="nothing to compare"):
        Reference(np.zeros((0, 4), np.float32), {"x": np.zeros((0, 3), np.float32)}, np.zeros((0, 3), np.float32))
    with pytest.raises(BundleError, match="nothing to compare"):
        Reference(np.zeros((1, 4), np.float32), {}, np.full((1, 2), 0.5, np.float32))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.full((2, 2), 0.5), "do not fit"),
        (np.full((1, 3, 1), 1 / 3), "do not fit"),
        (np.array([[0.7, 0.7]]), "not distributions"),
        (np.array([[-0.5, 1.5]]), "not distributions"),
        (np.array([[np.nan, 1.0]]), "not distributions"),
    ],
)
def test_probabilities_that_are_not_are_refused(rows: np.ndarray, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Reference(np.zeros((1, 4), np.float32), {"x": rows.astype(np.float32)}, np.full((1, 2), 0.5, np.float32))


def test_a_file_of_other_branches_or_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    save_reference(make_reference(), path)
    with pytest.raises(BundleError, match="other arrays"):
        load_reference(path, ("x", "z"))
    rows = np.full((1, 2), 0.5, np.float32)
    write_arrays(path, {"pcm": np.zeros((1, 4), np.float32), "fused": rows, "branch:x": rows})
    with pytest.raises(BundleError, match="does not hold reference clips"):
        load_reference(path, ("x",))


def test_an_embedding_travels_with_the_clips(tmp_path: Path) -> None:
    plain = make_reference()
    embedding = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    given, path = replace(plain, embedding=embedding), tmp_path / "reference.npz"
    save_reference(given, path)
    np.testing.assert_array_equal(load_reference(path, ("x", "y")).embedding, embedding)
    save_reference(plain, path)
    assert load_reference(path, ("x", "y")).embedding is None
    with pytest.raises(BundleError, match=r"embedding does not fit; got \(7, 5\); expected \(8, D\)"):
        replace(plain, embedding=embedding[:7])
    with pytest.raises(BundleError, match="embedding holds values that are not finite"):
        replace(plain, embedding=embedding * np.float32(np.nan))


def test_branches_all_have_the_same_labels(tmp_path: Path) -> None:
    plain = make_reference()
    two = np.full((8, 2), 0.5, np.float32)
    assert replace(plain, fused=two).fused.shape == (8, 2)  # a head's
    with pytest.raises(BundleError, match="reference probabilities of y do not fit"):
        replace(plain, branches=dict(plain.branches) | {"y": two})
