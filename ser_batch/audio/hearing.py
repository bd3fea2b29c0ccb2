"""What the model hears of a recording: one clip of it, or a window every so often; and what it is not asked about."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from ser_batch.clips import ClipRule
from ser_batch.errors import InputError

SILENCE = -60.0
"""dBFS up to which a window is silent unless told otherwise; digital full scale is 0, the noise of 16 bits -98."""


@dataclass(frozen=True)
class Hearing:
    """How recordings become rows."""

    clip: ClipRule
    """The bundle's; without a window, each recording gives the one clip of this rule."""
    window: float | None = None
    """Seconds of a segment, at most those of the clip; shorter ones are padded with zeros as the clip rule pads."""
    hop: float | None = None
    """Seconds from the start of a segment to that of the next; None: the window."""
    min_duration: float = 0.0
    """Seconds of sound below which there is no prediction."""
    silence: float | None = None
    """dBFS (RMS) up to which there is no prediction; None: -60 with a window, without one digital silence alone."""

    def __post_init__(self) -> None:
        if self.hop is not None and self.window is None:
            raise InputError("a hop needs a window", got=f"--hop {self.hop:g}", remedy="Give --window, too.")
        if self.window is not None and not 0 < self.window <= self.clip.seconds:
            raise InputError(
                "the window does not fit the bundle",
                got=f"{self.window:g} s",
                expected=f"up to {self.clip.seconds:g} s",
            )
        if self.hop is not None and not 0.01 <= self.hop < math.inf:
            raise InputError("the hop is out of range", got=f"{self.hop:g} s", expected="0.01 s or more")
        if not 0 <= self.min_duration <= (self.window or self.clip.seconds):
            raise InputError(
                "no segment is as long as the shortest to be scored",
                got=f"--min-duration {self.min_duration:g}",
                expected=f"0 to {self.window or self.clip.seconds:g} s",
            )
        if self.silence is not None and (math.isnan(self.silence) or self.silence > 0):
            raise InputError("the silence gate is out of range", got=f"{self.silence:g} dBFS", expected="0 or less")

    @property
    def gate(self) -> float:
        """dBFS up to which a segment is silent; minus infinity is the level of digital silence."""
        if self.silence is not None:
            return self.silence
        return -math.inf if self.window is None else SILENCE

    def status(self, seconds: float, level: float) -> str:
        """ "ok", or why so much sound at that level (dBFS) is not scored: "short", "silent"."""
        if seconds < self.min_duration:
            return "short"
        return "silent" if level <= self.gate else "ok"

    def to_json(self) -> str:
        """Everything that decides about rows, for the table's provenance."""
        clip = self.clip.to_dict()
        if self.window is not None:
            clip |= {"window": self.window, "hop": self.hop or self.window}
        gate = None if math.isinf(self.gate) else self.gate
        return json.dumps(clip | {"min_duration": self.min_duration, "silence_dbfs": gate})
