"""Up to which frequency there is sound in what a run is trained on: recordings with less of it are new to the model."""

from __future__ import annotations

import numpy as np

from ser_batch.audio.measure import bandwidth
from training.data.augment import fresh_version
from training.runs import TrainingRun

CLIPS = 400
"""Training clips that are measured at most, evenly spread."""
SHARE = 0.05
"""Of the training clips that have less than the bandwidth that a run is trained for."""


def trained_bandwidth(run: TrainingRun) -> float | None:
    """The bandwidth in Hz (`ser_batch.audio.measure`) that all but SHARE of a run's training clips have.

    Measured on clips as they are augmented, if the recipe draws them anew: a model that was trained through telephones
    knows telephones. None: there is no sound in them.
    """
    config, rows = run.config, run.rows(*run.fitted_parts)
    rate, found = config.clip.sample_rate, []
    for index in np.linspace(0, len(rows) - 1, min(CLIPS, len(rows))).round().astype(int):
        if config.augment.fresh:
            rng = np.random.default_rng((config.seed, rows[index]))
            clip = fresh_version(run.corpus.recording(rows[index], rate), config.clip, config.augment, rng)
        else:
            clip = run.corpus.clip(rows[index], config.clip)
        found.append(bandwidth(clip, rate, rate))
    known = [hertz for hertz in found if hertz is not None]
    return float(np.quantile(known, SHARE)) if known else None
