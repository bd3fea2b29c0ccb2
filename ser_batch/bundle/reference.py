"""Reference clips: a few synthetic waveforms and the probabilities the trained model gave for them.

They travel in the bundle, so any runtime can be checked against training without torch or audio files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.files import read_arrays, write_arrays
from ser_batch.bundle.fusion import Probabilities
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import BundleError

PCM_SCALE = 32_768.0
"""Waveforms are stored as int16 and read back as int16 / 32768: exact in float32, half the bytes."""
_BRANCH_PREFIX = "branch:"


@dataclass(frozen=True, eq=False)
class Reference:
    """Waveforms (N, samples) and what each branch and the fusion give for them, (N, C) each.

    Raises:
        BundleError: nothing to compare, shapes that differ, a row that is no distribution, or a waveform off
            the int16 grid (it would not survive being stored).
    """

    waveform: Waveform
    """(N, samples) float32 in [-1, 1), every value a multiple of 1/32768."""
    branches: Mapping[str, Probabilities] = field(repr=False)
    """Branch name -> (N, C)."""
    fused: Probabilities = field(repr=False)
    """(N, C)"""
    embedding: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(N, D); None: the bundle has none."""

    def __post_init__(self) -> None:
        if self.waveform.ndim != 2 or 0 in self.waveform.shape or not self.branches:
            raise BundleError(
                "reference clips hold nothing to compare",
                got=f"waveform {self.waveform.shape} and {len(self.branches)} branches",
            )
        pcm = self.waveform.astype(np.float64) * PCM_SCALE
        if not (
            np.isfinite(pcm).all()
            and (pcm == np.round(pcm)).all()
            and pcm.min() >= -PCM_SCALE
            and pcm.max() < PCM_SCALE
        ):
            raise BundleError(
                "reference waveforms are not 16-bit PCM",
                expected="multiples of 1/32768 in [-1, 1)",
                remedy="Use synthetic_clips().",
            )
        # A head gives other labels than the branches, which all have the same.
        of_branches = next(iter(self.branches.values())).shape[1:]
        for name, rows in {**self.branches, "fused": self.fused}.items():
            columns = self.fused.shape[1:] if name == "fused" else of_branches
            if rows.shape != (len(self.waveform), *columns) or rows.ndim != 2:
                raise BundleError(
                    f"reference probabilities of {name} do not fit",
                    got=rows.shape,
                    expected=(len(self.waveform), *columns),
                )
            if not (np.isfinite(rows).all() and (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-4)):
                raise BundleError(f"reference probabilities of {name} are not distributions over the labels")
        if self.embedding is not None and (self.embedding.ndim != 2 or len(self.embedding) != len(pcm)):
            expected = f"({len(pcm)}, D)"
            raise BundleError("the reference embedding does not fit", got=self.embedding.shape, expected=expected)
        if self.embedding is not None and not np.isfinite(self.embedding).all():
            raise BundleError("the reference embedding holds values that are not finite")


def synthetic_clips(rule: ClipRule) -> Waveform:
    """Eight clips that try a front-end where it breaks: (8, samples) float32 on the int16 grid, deterministic.

    In order: speech-like noise at full scale, the same 60 dB down, silence, a tone sweep, clicks, a short utterance
    padded with zeros, noise of the last bit, and quiet speech on a constant. The quiet ones show what normalisation
    hides on loud ones: wav2vec 2.0 base normalises behind its first convolution, too, where all but the last two clips
    look the same with another epsilon, the variance in place of its root, or the mean left in.
    """
    rng = np.random.default_rng(0)
    time = np.arange(rule.samples) / rule.sample_rate
    speech = _speech_like(time, rng)
    top = 0.45 * rule.sample_rate
    # Phase of a sweep whose frequency rises in proportion to time, from 50 Hz to just under Nyquist.
    sweep = np.sin(2 * np.pi * (50 * time + (top - 50) / (2 * rule.seconds) * time**2))
    clicks = np.zeros(rule.samples)
    clicks[:: max(rule.samples // 7, 1)] = 1.0
    short = np.where(time < rule.seconds / 3, speech, 0.0)
    silence, last_bit = np.zeros(rule.samples), rng.integers(-1, 2, rule.samples) / (PCM_SCALE - 1)
    loud = [0.95 * speech, 1e-3 * speech, silence, 0.5 * sweep, 0.8 * clicks, 0.3 * short]
    clips = np.stack([*loud, last_bit, 1e-3 * speech + 0.05])
    return (np.round(clips * (PCM_SCALE - 1)) / PCM_SCALE).astype(np.float32)


def _speech_like(time: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Harmonics of a wavering 140 Hz voice under four syllables a second, with breath noise; peak 1."""
    pitch = 140 * (time + 0.01 * np.sin(2 * np.pi * 2.5 * time))
    voice = sum(
        (np.sin(2 * np.pi * k * pitch + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 25)),
        np.zeros_like(time),
    )
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    speech = syllables * (voice + 0.2 * rng.standard_normal(len(time)))
    return np.asarray(speech / np.abs(speech).max())


def save_reference(reference: Reference, path: Path) -> None:
    """Write `reference` as an .npz: `pcm` (N, samples) int16, `fused`, `branch:<name>` and, if any, `embedding`."""
    pcm = np.round(reference.waveform.astype(np.float64) * PCM_SCALE).astype(np.int16)
    arrays = {_BRANCH_PREFIX + name: rows.astype(np.float32) for name, rows in reference.branches.items()}
    if reference.embedding is not None:
        arrays[EMBEDDING] = reference.embedding.astype(np.float32)
    write_arrays(path, {"pcm": pcm, "fused": reference.fused.astype(np.float32), **arrays})


def load_reference(path: Path, branches: tuple[str, ...]) -> Reference:
    """Read what `save_reference` wrote, without pickle; its branches must be exactly `branches`.

    Raises:
        BundleError: the file is damaged, or its arrays are not reference clips of these branches.
    """
    names = {"pcm", "fused", *(_BRANCH_PREFIX + name for name in branches)}
    arrays = read_arrays(path, frozenset(names), frozenset({EMBEDDING}))
    kinds = {name: str(array.dtype) for name, array in arrays.items()}
    if kinds != {name: "int16" if name == "pcm" else "float32" for name in arrays}:
        raise BundleError(
            f"{path} does not hold reference clips", got=kinds, expected="int16 pcm and float32 probabilities"
        )
    return Reference(
        waveform=(arrays["pcm"] / PCM_SCALE).astype(np.float32),
        branches={name: arrays[_BRANCH_PREFIX + name] for name in branches},
        fused=arrays["fused"],
        embedding=arrays.get(EMBEDDING),
    )
