"""How far a bundle's labels are to be trusted, as its manifest may state: `metrics.trust`, whose keys are all optional.

    "trust": {
      "unseen": {"ua": 0.52, "ua_interval": [0.47, 0.57], "labels": 8, "clips": 4321, "corpora": ["EmoDB", "SAVEE"],
                 "how": "mean over corpora, each left out of the training in turn"},
      "confident": {"score": 0.62, "precision": 0.7, "share": 0.31},
      "bandwidth_hz": 3400.0
    }

A bundle without it says "not measured on unseen corpora".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ser_batch import strict_json
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.manifest import MANIFEST_FILE
from ser_batch.errors import BundleError, InputError, SerError

KEY = "trust"
"""Of the manifest's metrics."""
NARROW = 4_200.0
"""Hz that nothing from a telephone reaches, resampled or not: what counts as narrow where a bundle does not say."""


@dataclass(frozen=True)
class Unseen:
    """How well a model does on corpora that it was not trained on."""

    ua: float
    """Unweighted average recall, 0 to 1."""
    labels: int
    """How many labels it chose among; chance is one of them."""
    clips: int
    corpora: tuple[str, ...]
    how: str = ""
    """What was averaged, in a few words."""
    ua_interval: tuple[float, float] | None = None
    """95 %."""

    def __post_init__(self) -> None:
        shares = (self.ua, *(self.ua_interval or ()))
        if not all(0 <= share <= 1 for share in shares) or self.labels < 2 or self.clips < 1 or not self.corpora:
            raise SerError(
                "a figure on unseen corpora is out of range",
                got=f"ua {shares}, {self.labels} labels, {self.clips} clips, {len(self.corpora)} corpora",
                expected="shares of 0 to 1, two labels, a clip and a corpus or more",
            )

    def __str__(self) -> str:
        return self._said(": " + ", ".join(self.corpora), f"{self.how}; " if self.how else "")

    @property
    def brief(self) -> str:
        """The same in one line of a summary: of many corpora only their number."""
        many = len(self.corpora) > 3
        return self._said("" if many else ": " + ", ".join(self.corpora), f"{len(self.corpora)} of them; " * many)

    def _said(self, corpora: str, what: str) -> str:
        interval = (
            "" if self.ua_interval is None else " ({:.1f} to {:.1f} %)".format(*(100 * x for x in self.ua_interval))
        )
        return (
            f"UA {100 * self.ua:.1f} %{interval} on corpora that it was not trained on{corpora} "
            f"({what}{self.clips:,} clips, up to {self.labels} labels, chance {100 / self.labels:.1f} % or more)"
        )


@dataclass(frozen=True)
class Confident:
    """From which score on the answers on unseen corpora were right as often as is said here, the corpora together.

    Every corpus counts alike in both shares, so that on one of them far fewer may be right.
    """

    score: float
    """The least `score` of a row."""
    precision: float
    """Share of right answers among those that reach it."""
    share: float
    """Of the clips, those that reach it."""

    def __post_init__(self) -> None:
        if not all(0 < value <= 1 for value in (self.score, self.precision, self.share)):
            raise SerError("a score, a precision and a share are above 0 and at most 1", got=self)

    def __str__(self) -> str:
        return (
            f"{100 * self.precision:.0f} % right where the score is {self.score:g} or more, as it was for "
            f"{100 * self.share:.0f} % of the clips (the mean over such corpora; single ones differ)"
        )


@dataclass(frozen=True)
class Trust:
    """What a bundle states of its limits."""

    unseen: Unseen | None = None
    confident: Confident | None = None
    bandwidth_hz: float | None = None
    """Recordings whose `bandwidth` is lower are unlike what it was trained on; None: it does not say."""

    def __post_init__(self) -> None:
        if self.bandwidth_hz is not None and not 0 < self.bandwidth_hz < math.inf:
            raise SerError("a bandwidth is above 0 Hz", got=self.bandwidth_hz)

    @property
    def narrow(self) -> float:
        """Hz below which the bandwidth of a recording is narrow."""
        return self.bandwidth_hz or NARROW

    def __str__(self) -> str:
        return self._said(str(self.unseen))

    @property
    def brief(self) -> str:
        """The same in one line of a summary."""
        return self._said(self.unseen.brief if self.unseen else "")

    def _said(self, unseen: str) -> str:
        said = unseen if self.unseen else "not measured on unseen corpora"
        return f"{said}; {self.confident}" if self.confident else said


def parse_trust(value: Any, where: str) -> Trust:
    """Read the object of `metrics.trust`; BundleError for another key, type or range."""
    return strict_json.decode(Trust, value, where, partial(BundleError, remedy="docs/bundle-format.md describes it."))


def read_trust(path: Path) -> dict[str, Any]:
    """The object of `metrics.trust` from a JSON file, to be put into a manifest.

    Raises:
        InputError: it cannot be read.
        BundleError: another key, type or range.
    """
    try:
        value: dict[str, Any] = strict_json.parse(path.read_bytes(), str(path), InputError)
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error.strerror) from error
    parse_trust(value, str(path))
    return value


def trust_of(bundle: Bundle) -> Trust:
    """What a bundle states of its limits; nothing, if its manifest has no `metrics.trust`.

    Raises:
        BundleError: it has one that is malformed.
    """
    stated: Mapping[str, Any] = bundle.manifest.metrics.get(KEY, {})
    return parse_trust(stated, f"bundle {bundle.id}: {MANIFEST_FILE}: metrics: {KEY}")
