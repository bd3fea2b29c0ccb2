"""The clip rule: which three seconds of a recording the model hears.

Training and serving both cut clips with this one function, so they cannot drift apart.
Source: paper, section III-B ("trimmed or padded to a uniform duration of three seconds"); the 0.5 s offset is
the ancestors' value (reading notes, "What it leaves open").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClipRule:
    """How a recording becomes one clip; travels in the bundle's manifest."""

    sample_rate: int = 48_000
    """Hz of the clip; recordings of any other rate are resampled to it."""
    samples: int = 144_000
    """Length of the clip in samples: 3 s at 48 kHz."""
    offset: float = 0.5
    """Seconds skipped at the start of a recording longer than one clip; a shorter one is kept whole."""
    clamp_offset: bool = False
    """Skip no more than a recording has over one clip, so that one of 3.0 to 3.5 s is not cut only to be padded."""

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or self.samples <= 0 or not 0 <= self.offset < float("inf"):
            raise InputError(
                "a clip rule needs a positive rate and length and a finite offset that is not negative",
                got=f"sample_rate {self.sample_rate}, samples {self.samples}, offset {self.offset}",
            )

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.samples / self.sample_rate

    def start(self, length: int) -> int:
        """First sample of the clip in a recording of `length` samples at `sample_rate`.

        A recording that fits into one clip is kept whole; a longer one loses its first `offset` seconds, or with
        `clamp_offset` so much of them that a clip is left.
        """
        if length <= self.samples:
            return 0
        first = round(self.offset * self.sample_rate)
        return min(first, length - self.samples) if self.clamp_offset else first

    def to_dict(self) -> dict[str, Any]:
        """The rule as JSON types, as bundles and tables hold it: without `clamp_offset` where it is off."""
        fields = asdict(self)
        if not self.clamp_offset:
            del fields["clamp_offset"]
        return fields


def fit(waveform: Waveform, samples: int) -> Waveform:
    """Trim `waveform` (n,) at the end, or pad it there with zeros, to (samples,)."""
    if len(waveform) >= samples:
        return waveform[:samples]
    return np.pad(waveform, (0, samples - len(waveform)))


def cut(recording: Waveform, rule: ClipRule) -> Waveform:
    """The one clip of a mono recording (n,) at the rule's rate, as (rule.samples,) float32."""
    return fit(recording[rule.start(len(recording)) :], rule.samples)
