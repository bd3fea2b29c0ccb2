"""The training configuration: one dataclass a part, one docstring a field, the paper's value as the default.

"Table II", "III-D" and the like are places in the paper; "ancestor" marks a value the paper leaves open and
that is taken from the notebooks it descends from; "ours" marks a choice of this project. Every "ancestor" and
"ours" is listed as an assumption in docs/reproduction.md.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from ser_batch.clips import ClipRule
from ser_batch.errors import TrainingError

SAMPLE_RATE = 48_000
"""Hz of every clip (III-B)."""
RESERVED = ("spectrogram", "fusion", "fused", "targets", "files")
"""Names that files and columns use for something else than the context branch."""


@dataclass(frozen=True)
class LogMelConfig:
    """The log-mel spectrogram of the spectrogram branch (III-D.1)."""

    sample_rate: int = 48_000
    """Hz (III-B)."""
    n_fft: int = 2048
    """Samples a frame; with `hop` 512 and no centring the only power of two that gives 278 frames (III-D.1)."""
    hop: int = 512
    """Samples between frames."""
    n_mels: int = 128
    """Mel bands (III-D.1)."""
    f_min: float = 0.0
    """Hz, lower edge (ancestor)."""
    f_max: float = 24_000.0
    """Hz, upper edge (ancestor)."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """Mel scale; torchaudio's default (ours: the paper does not say)."""
    mel_norm: Literal["none", "slaney"] = "none"
    """Filter normalisation; torchaudio's default (ours)."""
    floor: float = 1e-10
    """Power below which the logarithm is clamped: −100 dB (torchaudio's and librosa's `amin`)."""
    reference: Literal["full scale", "clip"] = "clip"
    """Decibels of full scale (ancestor), or of the clip's own loudest band, its mean removed before, so that neither
    level nor offset of a recording matter (ours, as the paper is silent: Whisper's log-mel, Radford et al. 2022)."""
    dynamic_range: float = 80.0
    """With `reference` clip: dB kept below the loudest band (ours, Whisper's)."""

    def __post_init__(self) -> None:
        if self.n_fft not in (2 * self.hop, 4 * self.hop) or self.n_fft % 64:
            raise TrainingError(
                "the log-mel front-end frames by halves or quarters of n_fft",
                got=f"n_fft {self.n_fft}, hop {self.hop}",
                expected="n_fft a multiple of 64, and hop a half or a quarter of it",
            )
        if not 0 < self.dynamic_range < float("inf"):
            raise TrainingError(
                "the log-mel's dynamic_range", got=self.dynamic_range, expected="a positive number of dB"
            )
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise TrainingError(
                "the mel bank's edges are out of order or above the Nyquist frequency",
                got=f"f_min {self.f_min}, f_max {self.f_max} Hz at {self.sample_rate} Hz",
            )

    def frames(self, samples: int) -> int:
        """Frames of a clip of so many samples, which is not padded."""
        return (samples - self.n_fft) // self.hop + 1


@dataclass(frozen=True)
class SpectrogramConfig:
    """The CNN–Transformer spectrogram branch (III-D.2)."""

    mel: LogMelConfig = field(default_factory=LogMelConfig)
    """The front-end."""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """Channels of the four residual blocks (III-D.2a)."""
    cnn_dropout: float = 0.3
    """After each block (ancestor)."""
    pool: tuple[int, int] = (2, 4)
    """Max-pooling of the raw spectrogram before the Transformer (III-D.2b)."""
    layers: int = 4
    """Transformer encoder layers (III-D.2b)."""
    heads: int = 4
    """Attention heads, of the encoder (III-D.2b) and of the cross-attention (ours)."""
    feed_forward: int = 512
    """Width of the encoder's feed-forward part (ancestor)."""
    transformer_dropout: float = 0.4
    """Dropout in the encoder (ancestor); ReLU as there."""
    norm: Literal["post", "pre"] = "pre"
    """Layer norm after each part of a Transformer layer (ancestor), or before it with one more at the encoder's end,
    which lets gradients through from the first step (ours, as the paper is silent: Xiong et al. 2020, 2002.04745)."""
    positions: Literal["none", "sinusoidal", "learned"] = "sinusoidal"
    """Added to the frames before the Transformer: nothing (ancestor), or sines and cosines, or a learned table, without
    which attention cannot tell an order (ours, as the paper is silent: Vaswani et al. 2017, section 3.5)."""
    residual_mean: bool = True
    """Add the frames' mean to what the cross-attention draws from them, so that the encoder learns before the attention
    has (ours, as the paper is silent)."""
    balance: bool = True
    """Layer norm, without parameters, of both parts before the joint layer, the CNN's scaled by the root of the widths'
    ratio, so that 64 numbers speak as loudly as 8704 (ours, as the paper is silent: Ba et al. 2016, 1607.06450)."""
    standardise: Literal["pixel", "bin", "global"] = "pixel"
    """Statistics a mel-and-frame pixel (ancestor), a mel bin, or one for all (III-B: from the training set)."""

    def __post_init__(self) -> None:
        if min(*self.pool, self.heads, self.layers) < 1:
            got = f"pool {self.pool}, heads {self.heads}, layers {self.layers}"
            raise TrainingError(
                "a spectrogram branch without pool, heads or layers", got=got, expected="1 or more each"
            )
        width = self.mel.n_mels // self.pool[0]
        if not width or width % self.heads:
            raise TrainingError(
                "the Transformer's heads share its width, the mel bands over pool[0]",
                got=f"{self.heads} heads, width {width}",
                expected="heads that divide it",
            )


@dataclass(frozen=True)
class ContextConfig:
    """The context branch: wav2vec 2.0, or another speech encoder in its place (III-C)."""

    backbone: str = "facebook/wav2vec2-base"
    """Hub name or folder of a transformers checkpoint, or `scratch` for `architecture` with random weights."""
    name: str = "wav2vec2"
    """Name of the branch in bundles, columns and tables; say which backbone it is when it is not wav2vec 2.0."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """With `scratch`: fields of transformers' configuration class that differ from its defaults (Wav2Vec2Config's
    are base, 12 × 768); `model_type` chooses another family of training.models.backbones."""
    layers: int = 0
    """Lowest Transformer layers kept, those above removed; 0 keeps all (ours: middle layers carry emotion best)."""
    unfrozen_layers: int = 3
    """Top Transformer layers trained beside the feature projection (III-C.2); −1 trains the whole context network."""
    freeze_feature_encoder: bool = True
    """Keep the convolutional encoder fixed (III-C.2); False only makes sense when training from scratch."""
    freeze_projection: bool = False
    """Keep the feature projection fixed too, so that frozen layers are computed once (ours; the paper trains it)."""
    normalise: bool | None = None
    """z-norm the waveform; None does as the checkpoint's preprocessor_config.json says, and yes where it is silent."""
    level: Literal["full scale", "clip"] = "clip"
    """Show the encoder a recording at the level it has, or each clip without its mean and at one level, so that neither
    level nor offset of a recording matter (ours, as the paper is silent)."""
    spec_augment: bool = False
    """transformers' masking of frames while training (ours: the paper does not mention it)."""
    layer_weights: bool = False
    """Weigh the pooled, layer-normalised outputs of all layers instead of the last one's (ours)."""
    concatenate_layers: bool = False
    """With `layer_weights`: show the classifier all layers' statistics side by side, standardised, instead of their
    weighted sum (ours)."""
    pooling: Literal["mean", "mean+std", "mean+std+thirds+deltas"] = "mean"
    """Pooling over time (III-C.3); beside the mean (ours): the deviation, the means of the clip's three thirds, and
    the deviations of the differences from one and from four frames before."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the MLP's hidden layers (III-C.3); none leaves a linear classifier (ours)."""
    dropout: float = 0.3
    """After each hidden layer of the MLP (III-C.3)."""
    input_dropout: float = 0.0
    """Before the classifier (ours)."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise TrainingError("the context branch's hidden", got=self.hidden, expected="widths of 1 or more")
        if self.concatenate_layers and not self.layer_weights:
            raise TrainingError("concatenate_layers is a way of layer_weights", remedy="Set layer_weights = true.")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or self.name in RESERVED:
            raise TrainingError(
                "the context branch's name goes into files and columns",
                got=repr(self.name),
                expected=f"a lower-case identifier other than {', '.join(RESERVED)}",
            )

    def check_linear(self) -> None:
        """TrainingError unless the branch is one linear layer over frozen, standardised features."""
        needed = {"hidden": (), "unfrozen_layers": 0, "freeze_projection": True, "concatenate_layers": True}
        found = {name: getattr(self, name) for name in needed}
        if found != needed:
            raise TrainingError(
                "ridge regression fits a linear classifier over frozen, standardised layers",
                got=found,
                expected="hidden = [], unfrozen_layers = 0, freeze_projection and concatenate_layers = true",
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training clips (IV-A); validation and test clips are never touched."""

    snrs: tuple[float, ...] = (10.0, 20.0, 30.0)
    """dB of the white Gaussian noise added to the copies."""
    keep_original: bool = True
    """Train on the clean clip beside its copies ("original + 3", 4588 clips) or on the copies alone (3441)."""
    fresh: bool = False
    """Draw a new version of each clip every epoch instead of fixed copies (ours)."""
    crop_jitter: float = 0.0
    """With `fresh`: seconds by which the crop's start moves, either way (ours)."""
    gain: float = 0.0
    """With `fresh`: dB by which the level changes, either way (ours)."""
    speeds: tuple[float, ...] = (1.0,)
    """With `fresh`: speeds, pitch included, one drawn a clip (ours)."""
    time_mask: int = 0
    """With `fresh`: widest stretch of spectrogram frames masked, twice a clip (ours, SpecAugment)."""
    band_mask: int = 0
    """With `fresh`: widest stretch of mel bands masked, twice a clip (ours, SpecAugment)."""
    versions: int = 0
    """With `fresh`: versions of each recording drawn once, of which an epoch takes one, as it takes the clean clip, if
    kept; their features are computed once and shared by all splits and seeds. 0 draws a new one every epoch (ours)."""

    def __post_init__(self) -> None:
        if not self.snrs and not self.keep_original:
            raise TrainingError("augmentation without originals and without noisy copies leaves nothing to train on")
        ours = (self.crop_jitter, self.gain, self.time_mask, self.band_mask, self.versions, self.speeds != (1.0,))
        if not self.fresh and any(ours):
            raise TrainingError(
                "crop jitter, gain, speeds, masks and versions belong to fresh augmentation",
                remedy="Set fresh = true.",
            )
        for name in ("crop_jitter", "gain", "time_mask", "band_mask", "versions"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TrainingError(f"augmentation's {name}", got=getattr(self, name), expected="0 or more")
        if not self.speeds or not all(0 < speed < float("inf") for speed in self.speeds):
            raise TrainingError("augmentation's speeds", got=self.speeds, expected="positive numbers, one or more")


@dataclass(frozen=True)
class Stage:
    """Optimiser, schedule and stopping rule of one stage (Table II)."""

    optimizer: Literal["adamw", "sgd", "adam", "ridge"]
    """Or, for a linear head over frozen layers, ridge regression in closed form (ours, training.ridge)."""
    learning_rate: float
    epochs: int
    patience: int
    """Epochs without a better `monitor` before the stage stops."""
    monitor: Literal["accuracy", "loss", "macro_f1"]
    """Validation figure that decides which epoch is kept."""
    schedule: Literal["cosine", "step", "constant", "one_cycle"] = "constant"
    step_size: int = 10
    """Epochs between drops of the step schedule."""
    step_gamma: float = 0.7
    """Factor of each drop of the step schedule."""
    cycles: int = 1
    """Times the one-cycle schedule is run through within `epochs`."""
    momentum: float = 0.8
    """SGD only (ancestor)."""
    weight_decay: float = 0.0
    decay: Literal["all", "matrices"] = "matrices"
    """What weight decay draws to zero: everything, or no norms, biases and positions (ours, as the paper is silent)."""
    penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Ridge only: those tried, in units of a standardised row's mean squared norm."""
    backbone_rate: float = 1.0
    """Factor of the learning rate for the top layer of a pretrained backbone (ours)."""
    layer_decay: float = 1.0
    """Factor from each of its layers to the one below (ours)."""
    batch_size: int = 32
    clip_norm: float = 1.0
    """Global gradient norm clipped to this; 0 turns clipping off."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """Beta parameter of mixup; 0 turns it off (the paper has none)."""

    def __post_init__(self) -> None:
        least = {"epochs": 1, "patience": 1, "batch_size": 2, "step_size": 1, "clip_norm": 0, "mixup": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise TrainingError(f"a stage's {name}", got=getattr(self, name), expected=f"at least {bound}")
        for name in ("backbone_rate", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise TrainingError(f"a stage's {name}", got=getattr(self, name), expected="above 0, at most 1")
        if not self.penalties or not all(0 < penalty < float("inf") for penalty in self.penalties):
            raise TrainingError("a stage's penalties", got=self.penalties, expected="positive numbers, one or more")
        if not 0 < self.learning_rate < float("inf"):
            raise TrainingError("a stage's learning_rate", got=self.learning_rate, expected="a positive number")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError("a stage's label_smoothing", got=self.label_smoothing, expected="from 0 to below 1")


@dataclass(frozen=True)
class FusionConfig:
    """The logistic regression over the branches' probabilities (III-E)."""

    fit_on: Literal["training", "validation", "out-of-fold"] = "training"
    """Whose probabilities the fusion is fitted on: the paper does not say; training ones are overconfident."""
    folds: int = 5
    """With `out-of-fold`: folds of the training clips, both branches trained once a fold (ours)."""
    solver: Literal["adam", "lbfgs", "shrunk"] = "adam"
    """Table II's Adam, the exact optimum of the L2-penalised problem (ours), or that of one in which the penalty draws
    towards a weighted sum of the branches instead of to nothing (ours, training.models.shrunk_fusion)."""
    inverse_penalty: float = 1.0
    """scikit-learn's C of the `lbfgs` solver."""
    shrinkage: float = 1.0
    """Of the `shrunk` solver: its penalty, beside the mean cross-entropy of a clip."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise TrainingError("out-of-fold fusion needs folds", got=self.folds, expected="2 or more")
        if not 0 < self.shrinkage < float("inf"):
            raise TrainingError("the fusion's shrinkage", got=self.shrinkage, expected="a positive number")


CONTEXT_STAGE = Stage("adamw", 1e-4, epochs=120, patience=10, monitor="accuracy", schedule="cosine", weight_decay=0.01)
"""Table II; 0.01 is torch's default weight decay of AdamW."""
SPECTROGRAM_STAGE = Stage(
    "sgd", 1e-2, epochs=500, patience=25, monitor="loss", schedule="step", momentum=0.8, weight_decay=1e-3
)
"""Table II; momentum and weight decay are the ancestor's."""
FUSION_STAGE = Stage("adam", 5e-4, epochs=30, patience=5, monitor="macro_f1")
"""Table II."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run trains; with the corpus and the seed it fixes the result."""

    recipe: str = "paper"
    """Name under which results are reported."""
    seed: int = 0
    """Of the split, the augmentation, the initial weights and the order of batches."""
    protocol: Literal["paper", "emobox", "sentence", "given"] = "paper"
    """Which split (training.data.splits)."""
    fold: int = 0
    """Which of the protocol's splits, from 0."""
    refit: bool = False
    """Once validation clips have chosen, train on them too: the ridge penalty and its temperature are settled before,
    an epoch-wise stage runs its whole schedule, and the fusion meets both parts out of fold (ours)."""
    clip: ClipRule = field(default_factory=ClipRule)
    """Which three seconds are heard (III-B)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    context_stage: Stage = CONTEXT_STAGE
    spectrogram_stage: Stage = SPECTROGRAM_STAGE
    fusion_stage: Stage = FUSION_STAGE

    def __post_init__(self) -> None:
        if "/" in self.recipe or not self.recipe:
            raise TrainingError("a recipe's name goes into the names of files", got=repr(self.recipe), expected="no /")
        self._check_clip()
        for name in ("spectrogram_stage", "fusion_stage"):
            if getattr(self, name).optimizer == "ridge":
                raise TrainingError(
                    f"{name} by ridge regression", expected="adamw, sgd or adam: ridge fits linear heads"
                )
        if self.context_stage.optimizer == "ridge":
            self._check_ridge()
        if self.refit and self.fusion.fit_on != "out-of-fold":
            raise TrainingError(
                "refit leaves no clips that the branches have not seen to fit the fusion on",
                got=f"fusion.fit_on {self.fusion.fit_on}",
                expected="out-of-fold",
            )

    def _check_clip(self) -> None:
        """Refuse clips that the front-ends, whose rates are fixed, would take for something else."""
        mel, rate = self.spectrogram.mel, self.clip.sample_rate
        if not rate == mel.sample_rate == SAMPLE_RATE:
            raise TrainingError(
                "both front-ends are made for clips at 48 kHz",
                got=f"clip.sample_rate {rate}, spectrogram.mel.sample_rate {mel.sample_rate}",
                expected=f"{SAMPLE_RATE} for both; recordings of any rate are resampled to it",
            )
        frames = mel.frames(self.clip.samples)
        if frames < 1:
            raise TrainingError(
                "a clip is shorter than one frame of the spectrogram",
                got=self.clip.samples,
                expected=f"{mel.n_fft} samples",
            )
        for name, widest, there in (
            ("time_mask", self.augment.time_mask, frames),
            ("band_mask", self.augment.band_mask, mel.n_mels),
        ):
            if widest > there:
                raise TrainingError(f"augmentation's {name} is wider than the spectrogram", got=widest, expected=there)

    def _check_ridge(self) -> None:
        """Refuse what a closed form cannot fit, before anything is computed."""
        stage = self.context_stage
        self.context.check_linear()
        if stage.label_smoothing or stage.mixup:
            raise TrainingError(
                "ridge regression knows neither label smoothing nor mixup",
                got=f"label_smoothing {stage.label_smoothing}, mixup {stage.mixup}",
                expected="0 for both",
            )
        if self.augment.fresh and not self.augment.versions:
            raise TrainingError(
                "ridge regression sees all examples at once, and this recipe draws new ones every epoch",
                remedy="Set augment.versions to as many as shall be drawn once.",
            )


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON types."""
    return dataclasses.asdict(config)
