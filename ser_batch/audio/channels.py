"""The channels of a recording: mixed down to one, taken apart, or one of them chosen."""

from __future__ import annotations

import numpy as np

from ser_batch.clips import MIX, SPLIT, Waveform
from ser_batch.errors import AudioError

MAX_PEAK = 1e6
"""Largest magnitude taken for a sample; integer-scaled floats (32768) pass, damage (1e30) does not."""
MAX_SPLIT = 64
"""Channels that are scored apart at most: each is held in memory."""
CANCELLED = 0.1
"""A mix with less than this share of the power that unrelated channels would leave has cancelled itself."""
QUIET = 1e-8
"""Power (that of -80 dBFS) below which nothing is said of how channels are related."""
SAMPLED = 8192
"""Frames of a block from which it is judged."""


class Channels:
    """What is taken of each block of frames of one recording.

    Args:
        choice: `MIX`, `SPLIT`, or the number of a channel, from 1 on.
        count: channels of the recording.

    Raises:
        AudioError: there is no such channel, or there are too many to be split.
    """

    def __init__(self, choice: str, count: int) -> None:
        if choice == SPLIT and count > MAX_SPLIT:
            raise AudioError("has too many channels to be split", got=count, expected=f"{MAX_SPLIT} at most")
        if choice not in (MIX, SPLIT) and int(choice) > count:
            raise AudioError(f"has no channel {choice}", got=f"{count} channel{'s' if count > 1 else ''}")
        self._choice, self._count = choice, count
        self._loudest = 0
        self.numbers: tuple[int | None, ...] = (None,)
        """Of the channels that are taken, from 1 on; None: the mix of all."""
        if choice == SPLIT:
            self.numbers = tuple(range(1, count + 1))
        elif choice != MIX:
            self.numbers = (int(choice),)

    def take(self, frames: Waveform) -> tuple[Waveform, int | None]:
        """(what is taken of a block, (n, len(numbers)); the number of the channel that stands in for a mix).

        Args:
            frames: (n, channels).

        Raises:
            AudioError: it holds samples that are no audio.
        """
        instead = None
        with np.errstate(invalid="ignore", over="ignore"):
            if self._choice == SPLIT or self._count == 1:
                taken = frames
            elif self._choice != MIX:
                taken = frames[:, int(self._choice) - 1, None]
            elif instead := self._stand_in(frames):
                taken = frames[:, instead - 1, None]
            elif self._count == 2:
                # The same numbers as those of `mean`, in a fifth of the time.
                taken = (frames[:, :1] + frames[:, 1:]) / np.float32(2)
            else:
                taken = frames.mean(axis=1, dtype=np.float32, keepdims=True)
            low, high = float(taken.min()), float(taken.max())
        # NaN makes both comparisons false, and min() and max() hand a NaN on.
        if not (low >= -MAX_PEAK and high <= MAX_PEAK):
            raise AudioError("holds samples that are no audio", got=f"values from {low:g} to {high:g}")
        return taken, instead

    def _stand_in(self, frames: Waveform) -> int | None:
        """The number of the loudest channel where the mean of all would be next to nothing."""
        some = frames[:: max(1, len(frames) // SAMPLED)]
        powers = some.var(axis=0, dtype=np.float64)
        power = float(powers.mean())
        mix = float(some.mean(axis=1).var(dtype=np.float64))
        # NaN and infinity are looked for in what is taken.
        if not (power > QUIET and mix < CANCELLED * power / self._count):
            return None
        # The first choice stays, so that the recording does not jump from channel to channel.
        self._loudest = self._loudest or int(powers.argmax()) + 1
        return self._loudest
