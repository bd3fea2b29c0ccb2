"""The paper's figures, and EmoBox's, as data: per cent, as printed. None is a figure that is not given.

Sources: the paper's Tables I and III–V, Fig. 2 as its section IV-C tells it; EmoBox (Ma et al., Interspeech 2024),
RAVDESS, speaker-independent, six folds, frozen encoders.
"""

from __future__ import annotations

from typing import NamedTuple


class Scores(NamedTuple):
    """Accuracy and macro averages, per cent."""

    accuracy: float
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None


class EmoBox(NamedTuple):
    """Unweighted and weighted accuracy and macro-F1, per cent."""

    ua: float
    wa: float
    f1: float


TABLE_I = {"train": 1147, "validation": 143, "test": 150}
"""Clips of each part."""
TABLE_III = {
    "MFCC-Fusion (2023)": Scores(81.5, 82.5, 85.5),
    "AFEA-Net (2025)": Scores(80.3, 80.8, 80.6, 80.4),
    "CNN-n-GRU (2025)": Scores(86.6, 87.1, 86.6, 86.7),
    "MFGCN (2025)": Scores(85.7, 85.7, 85.1, 85.4),
    "IGRFXG (2025)": Scores(79.3),
    "RELUEM (2025)": Scores(89.5, 87.0, 85.0, 86.0),
    "the paper": Scores(92.7, 92.4, 92.5, 92.2),
}
"""Method → figures, the paper's own last."""
TABLE_IV = {
    1: Scores(82.67, 83.63, 80.63, 81.22),
    3: Scores(88.67, 88.22, 88.75, 88.19),
    5: Scores(88.0, 87.22, 86.88, 86.81),
    9: Scores(17.33, 5.0, 16.25, 7.42),
}
"""Unfrozen layers of wav2vec 2.0 base's twelve → figures."""
TABLE_V = {
    "spectrogram": Scores(77.0, 76.0, 74.0, 74.0),
    "context": Scores(88.67, 88.22, 88.75, 88.19),
    "weighted": Scores(90.67, 90.4, 90.62, 90.32),
    "gated": Scores(88.0, 87.97, 86.87, 87.08),
    "logistic regression": Scores(92.67, 92.36, 92.5, 92.24),
}
"""Model or fusion strategy → figures."""
FIG_2_CORRECT = {
    "neutral": (9, 10),
    "calm": (18, 20),
    "happy": (20, 20),
    "sad": (20, 20),
    "angry": (17, 20),
    "fearful": (18, 20),
    "disgust": (19, 20),
    "surprised": (18, 20),
}
"""Emotion → clips recognised of clips tested; of the 20 angry ones the text accounts for 19."""
EMOBOX = {
    "wav2vec2-base": EmoBox(54.33, 55.40, 53.99),
    "hubert-base": EmoBox(65.43, 66.21, 65.31),
    "wavlm-base": EmoBox(61.56, 62.10, 61.18),
    "wavlm-large": EmoBox(72.00, 72.22, 71.42),
    "data2vec2-large": EmoBox(71.15, 71.63, 70.94),
    "whisper-large-v3": EmoBox(75.32, 75.87, 75.19),
}
"""Frozen encoder → figures."""
