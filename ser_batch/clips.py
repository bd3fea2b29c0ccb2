"""Which seconds of a recording the model is given: the one clip of its rule, or windows over all of it.

Training and serving both cut clips with this one function, so they cannot drift apart.
Source: paper, section III-B ("trimmed or padded to a uniform duration of three seconds"); the 0.5 s offset is
the ancestors' value (reading notes, "What it leaves open").
"""

from __future__ import annotations

import json
import math
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


LONG = 2
"""Clips' lengths beyond which a recording is long: the one clip is then less than half of it."""
MIX, SPLIT, FIRST = "mix", "split", "first"
"""What is scored of several channels: their mean, each of them, the first one."""
SILENCE = -60.0
"""dBFS up to which a window is silent unless told otherwise; digital full scale is 0, the noise of 16 bits -98."""


@dataclass(frozen=True)
class Segmentation:
    """How a recording becomes segments, and which of them are scored."""

    clip: ClipRule
    """The bundle's; without a window, each recording gives the one clip of this rule."""
    window: float | None = None
    """Seconds of a segment, each of which is a row; at most those of the clip; padded with zeros as a clip is."""
    hop: float | None = None
    """Seconds from the start of a segment to that of the next; None: the window."""
    min_duration: float = 0.0
    """Seconds of sound below which there is no prediction."""
    silence: float | None = None
    """dBFS (RMS) up to which there is no prediction; None: -60 for windows, for a clip digital silence alone."""
    channels: str = MIX
    """`MIX`: their mean, or the loudest where it cancels; `SPLIT`: a row for each; `FIRST` or a number from 1 on."""
    whole: bool = False
    """Without a window, whether a recording of more than `LONG` clips is scored by windows over all of it, in one row;
    else by its one clip."""

    def __post_init__(self) -> None:
        if self.hop is not None and self.window is None:
            raise InputError("a hop needs a window", got=f"--hop {self.hop:g}", remedy="Give --window, too.")
        if self.window is not None and not 0 < self.window <= self.clip.seconds:
            raise InputError(
                "the window does not fit the bundle",
                got=f"{self.window:g} s",
                expected=f"up to {self.clip.seconds:g} s",
            )
        if self.whole and self.window is not None:
            raise InputError("a window has a row of its own, so that none is for the whole", got="both")
        if self.hop is not None and not 0.01 <= self.hop < math.inf:
            raise InputError("the hop is out of range", got=f"{self.hop:g} s", expected="0.01 s or more")
        if not 0 <= self.min_duration <= (self.window or self.clip.seconds):
            raise InputError(
                "no segment is as long as the shortest to be scored",
                got=f"--min-duration {self.min_duration:g}",
                expected=f"0 to {self.window or self.clip.seconds:g} s",
            )
        if self.silence is not None and (math.isnan(self.silence) or self.silence > 0):
            raise InputError(
                "the silence threshold is out of range", got=f"{self.silence:g} dBFS", expected="0 or less"
            )
        number = "1" if self.channels == FIRST else self.channels
        if number not in (MIX, SPLIT) and not (number.isdecimal() and int(number) >= 1):
            raise InputError(
                "there are no such channels",
                got=self.channels,
                expected=f"{MIX}, {SPLIT}, {FIRST} or a number from 1 on",
            )
        object.__setattr__(self, "channels", number if number in (MIX, SPLIT) else str(int(number)))

    @property
    def is_one_row(self) -> bool:
        """Whether each recording is one row."""
        return self.window is None and self.channels != SPLIT

    @property
    def is_one_clip(self) -> bool:
        """Whether each recording is one row, made of one clip."""
        return self.is_one_row and not self.whole

    def is_long(self, seconds: float) -> bool:
        """Whether a recording of so many seconds is scored by windows that make one row."""
        return self.whole and self.window is None and seconds > LONG * self.clip.seconds

    def threshold(self, *, window: bool) -> float:
        """dBFS up to which a window or a clip is silent; minus infinity is the level of digital silence."""
        if self.silence is not None:
            return self.silence
        return SILENCE if window else -math.inf

    def status(self, seconds: float, level: float, *, window: bool) -> str:
        """ "ok", or why so much sound at that level (dBFS) is not scored: "short", "silent"."""
        if seconds < self.min_duration:
            return "short"
        return "silent" if level <= self.threshold(window=window) else "ok"

    def to_json(self) -> str:
        """Everything that decides about rows, for the table's provenance."""
        clip: dict[str, object] = dict(self.clip.to_dict())
        if self.window is not None:
            clip |= {"window": self.window, "hop": self.hop or self.window}
        threshold = self.threshold(window=self.window is not None or self.whole)
        clip |= {"min_duration": self.min_duration, "silence_dbfs": None if math.isinf(threshold) else threshold}
        # Outputs of version 0.1.0, which mixed and took the one clip, are gone on with.
        if self.channels != MIX:
            clip["channels"] = self.channels
        if self.whole:
            clip["whole"] = True
        return json.dumps(clip)
