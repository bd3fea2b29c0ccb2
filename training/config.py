"""The training configuration: one dataclass per part, the paper's value as the default; recipes as files.

Every field says what it is and where its value comes from: `paper` names the place ("Table II", "III-D"), `ancestor`
marks a value that the paper leaves open and that is taken from the notebooks it descends from, `ours` a choice of this
project. What is the ancestor's or ours is listed as an assumption in docs/reproduction.md.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ser_batch.clips import ClipRule
from ser_batch.errors import TrainingError
from ser_batch.strict_json import decode, parse

BranchOfRecipe = Literal["context", "spectrogram"]
"""The two branches of every recipe, by the part that they have in it."""
RECIPES = Path(__file__).parent / "configs"
"""Folder of the named recipes."""

BEFORE: dict[str, Any] = {
    "spectrogram.norm": "post",
    "spectrogram.positions": "none",
    "spectrogram.residual_mean": False,
    "spectrogram.balance": False,
    "spectrogram.statistics": "clean",
    "spectrogram.mel.reference": "full scale",
    "context.level": "full scale",
    "context_stage.decay": "all",
    "spectrogram_stage.decay": "all",
    "fusion_stage.decay": "all",
}
"""What runs did before a field existed, where its default is something else."""

CLOSED_FORM: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 1, "patience": 1}
"""What a ridge stage has where its recipe does not say; nothing reads it, and runs that stated it go on."""

SAMPLE_RATE = 48_000
"""Hz of every clip (III-B)."""
RESERVED = ("spectrogram", "fusion", "fused", "targets", "files")
"""Names that files and columns use for something else than the context branch."""


def paper(place: str, text: str) -> dict[str, str]:
    """Metadata of a field whose value the paper gives there, and what it is."""
    return {"paper": place, "text": text}


def ancestor(text: str) -> dict[str, str]:
    """Metadata of a field, or of the part of it, that follows the notebooks that the paper descends from."""
    return {"ancestor": text}


def ours(text: str) -> dict[str, str]:
    """Metadata of a field, or of the part of it, that is this project's choice."""
    return {"ours": text}


@dataclass(frozen=True)
class LogMelConfig:
    """The log-mel spectrogram of the spectrogram branch (III-D.1)."""

    sample_rate: int = field(default=48_000, metadata=paper("III-B", "Hz."))
    n_fft: int = field(
        default=2048,
        metadata=paper("III-D.1", "278 frames per clip.")
        | ours("Samples of a frame: with `hop` 512 and no centring the only power of two that gives so many frames."),
    )
    hop: int = field(
        default=512, metadata=paper("III-D.1", "278 frames per clip.") | ours("Samples between frames: see `n_fft`.")
    )
    n_mels: int = field(default=128, metadata=paper("III-D.1", "Mel bands."))
    f_min: float = field(default=0.0, metadata=ancestor("Hz, lower edge."))
    f_max: float = field(default=24_000.0, metadata=ancestor("Hz, upper edge."))
    mel_scale: Literal["htk", "slaney"] = field(
        default="htk", metadata=ours("Mel scale: torchaudio's default, for the paper does not say.")
    )
    mel_norm: Literal["none", "slaney"] = field(
        default="none", metadata=ours("Filter normalisation: torchaudio's default.")
    )
    floor: float = field(
        default=1e-10,
        metadata=ours("Power below which the logarithm is clamped: −100 dB, torchaudio's and librosa's `amin`."),
    )
    reference: Literal["full scale", "clip"] = field(
        default="clip",
        metadata=ancestor("Decibels of full scale.")
        | ours(
            "Of the clip's own loudest band, its mean removed before, so that neither level nor offset of a recording "
            "matter: the paper is silent, Whisper's log-mel does so (Radford et al. 2022)."
        ),
    )
    dynamic_range: float = field(
        default=80.0, metadata=ours("With `reference` clip: dB kept below the loudest band, as Whisper does.")
    )

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

    mel: LogMelConfig = field(default_factory=LogMelConfig, metadata=paper("III-D.1", "The front-end."))
    channels: tuple[int, ...] = field(
        default=(16, 32, 64, 64),
        metadata=paper("III-D.2a", "Channels of the four residual blocks.")
        | ours(
            "Order within a block: convolution, batch norm, ReLU, convolution, batch norm, plus a 1×1 skip, then ReLU, "
            "2×2 max-pooling, dropout."
        ),
    )
    cnn_dropout: float = field(default=0.3, metadata=ancestor("After each block."))
    pool: tuple[int, int] = field(
        default=(2, 4),
        metadata=paper("III-D.2b", "Pooling window before the Transformer.")
        | ancestor(
            "Max-pooling, of the raw spectrogram as III-D.3 has it; III-D.2b can be read as the convolutions' output."
        ),
    )
    layers: int = field(
        default=4,
        metadata=paper("III-D.2b", "Transformer encoder layers.")
        | ours("0 leaves out the Transformer with its cross-attention, to measure what that arm is worth."),
    )
    heads: int = field(
        default=4,
        metadata=paper("III-D.2b", "Attention heads of the encoder.") | ours("The cross-attention has as many."),
    )
    feed_forward: int = field(default=512, metadata=ancestor("Width of the encoder's feed-forward part."))
    transformer_dropout: float = field(default=0.4, metadata=ancestor("Dropout in the encoder; ReLU as there."))
    norm: Literal["post", "pre"] = field(
        default="pre",
        metadata=ancestor("Layer norm after each part of a Transformer layer (`post`).")
        | ours(
            "Before it, with one more at the encoder's end, which lets gradients through from the first step: the "
            "paper is silent (Xiong et al. 2020, arXiv 2002.04745)."
        ),
    )
    positions: Literal["none", "sinusoidal", "learned"] = field(
        default="sinusoidal",
        metadata=ancestor("Nothing tells the Transformer where a frame is (`none`).")
        | ours(
            "Sines and cosines added to the frames, or a learned table, without which attention cannot tell an order: "
            "the paper is silent (Vaswani et al. 2017, section 3.5)."
        ),
    )
    residual_mean: bool = field(
        default=True,
        metadata=ours(
            "Add the frames' mean to what the cross-attention draws from them, so that the encoder learns before the "
            "attention has: the paper is silent, the ancestors have no cross-attention."
        ),
    )
    balance: bool = field(
        default=True,
        metadata=ours(
            "Layer norm, without parameters, of both parts before the joint layer, the CNN's scaled by the root of the "
            "widths' ratio, so that 64 numbers speak as loudly as 8704: the paper is silent (Ba et al. 2016, arXiv "
            "1607.06450)."
        ),
    )
    standardise: Literal["pixel", "bin", "global"] = field(
        default="pixel",
        metadata=paper("III-B", "From the training set.")
        | ancestor("Statistics per mel-and-frame pixel; or per mel bin, or one for all."),
    )
    statistics: Literal["clean", "augmented"] = field(
        default="augmented",
        metadata=paper("III-B", "From the training set.")
        | ours("As it is trained on, or of its clean clips alone (`clean`): the paper is silent on which."),
    )

    def __post_init__(self) -> None:
        if min(*self.pool, self.heads) < 1 or self.layers < 0:
            got = f"pool {self.pool}, heads {self.heads}, layers {self.layers}"
            raise TrainingError(
                "a spectrogram branch has a pool, heads and layers",
                got=got,
                expected="1 or more each, layers 0 or more",
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

    backbone: str = field(
        default="facebook/wav2vec2-base",
        metadata=paper(
            "III-C",
            "Hub name or folder of a transformers checkpoint, or `scratch` for `architecture` with random weights.",
        ),
    )
    name: str = field(
        default="wav2vec2",
        metadata=ours(
            "Name of the branch in bundles, columns and tables; say which backbone it is when it is not wav2vec 2.0."
        ),
    )
    architecture: dict[str, Any] = field(
        default_factory=dict,
        metadata=ours(
            "With `scratch`: fields of transformers' configuration class that differ from its defaults "
            "(Wav2Vec2Config's are base, 12 × 768); `model_type` chooses another family of training.models.backbones."
        ),
    )
    layers: int = field(
        default=0,
        metadata=ours(
            "Lowest Transformer layers kept, those above removed; 0 keeps all (middle layers carry emotion best)."
        ),
    )
    unfrozen_layers: int = field(
        default=3,
        metadata=paper(
            "III-C.2",
            "Top Transformer layers trained beside the feature projection; −1 trains the whole context network.",
        ),
    )
    freeze_feature_encoder: bool = field(
        default=True,
        metadata=paper(
            "III-C.2", "Keep the convolutional encoder fixed; False only makes sense when training from scratch."
        ),
    )
    freeze_projection: bool = field(
        default=False,
        metadata=paper("III-C.2", "The feature projection trains.")
        | ours("True keeps it fixed, so that frozen layers are computed once."),
    )
    normalise: bool | None = field(
        default=None,
        metadata=ours(
            "z-norm the waveform; None does as the checkpoint's preprocessor_config.json says, and yes where it is "
            "silent."
        ),
    )
    level: Literal["full scale", "clip"] = field(
        default="clip",
        metadata=ours(
            "Show the encoder a recording at its own level (`full scale`), or each clip without its mean and at one "
            "level, so that neither level nor offset of a recording matter: the paper is silent."
        ),
    )
    spec_augment: bool = field(
        default=False,
        metadata=ours("transformers' masking of frames while training, which the paper does not mention."),
    )
    layer_weights: bool = field(
        default=False,
        metadata=ours("Weigh the pooled, layer-normalised outputs of all layers instead of the last one's."),
    )
    concatenate_layers: bool = field(
        default=False,
        metadata=ours(
            "With `layer_weights`: show the classifier all layers' statistics side by side, standardised, instead of "
            "their weighted sum."
        ),
    )
    standardise: bool = field(
        default=False,
        metadata=ours("Standardise what enters the classifier, each number over the clips of training."),
    )
    pooling: Literal["mean", "mean+std", "mean+std+thirds+deltas"] = field(
        default="mean",
        metadata=paper("III-C.3", "The mean over time.")
        | ours(
            "Beside it: the deviation, the means of the clip's three thirds, and the deviations of the differences "
            "from one and from four frames before."
        ),
    )
    hidden: tuple[int, ...] = field(
        default=(256, 256),
        metadata=paper("III-C.3", "Widths of the MLP's hidden layers.") | ours("None leaves a linear classifier."),
    )
    dropout: float = field(default=0.3, metadata=paper("III-C.3", "After each hidden layer of the MLP."))
    input_dropout: float = field(default=0.0, metadata=ours("Before the classifier."))

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

    snrs: tuple[float, ...] = field(
        default=(10.0, 20.0, 30.0), metadata=paper("IV-A", "dB of the white Gaussian noise added to the copies.")
    )
    keep_original: bool = field(
        default=True,
        metadata=paper("IV-A", '"Original + 3": 4588 clips.')
        | ours("Train on the clean clip beside its copies; the paper can be read as the copies alone (3441), too."),
    )
    fresh: bool = field(
        default=False, metadata=ours("Draw a new version of each clip every epoch instead of fixed copies.")
    )
    crop_jitter: float = field(
        default=0.0, metadata=ours("With `fresh`: seconds by which the crop's start moves, either way.")
    )
    gain: float = field(
        default=0.0,
        metadata=ours(
            "With `fresh`: dB by which the level changes, either way; of no effect on branches that take every clip at "
            "one level (`context.level` and `spectrogram.mel.reference` clip)."
        ),
    )
    speeds: tuple[float, ...] = field(
        default=(1.0,), metadata=ours("With `fresh`: speeds, pitch included, one drawn per clip.")
    )
    random_snr: bool = field(
        default=False,
        metadata=ours("With `fresh`: draw the noise's level evenly between the least and the greatest of `snrs`."),
    )
    noises: tuple[Literal["white", "coloured", "babble"], ...] = field(
        default=("white",),
        metadata=paper("IV-A", "White Gaussian noise.")
        | ours("Or, with `fresh`, one drawn per clip (training.data.augment)."),
    )
    channels: tuple[Literal["clean", "lowpass", "telephone", "opus", "mp3", "room"], ...] = field(
        default=("clean",),
        metadata=ours(
            "With `fresh`: what the noisy clip is heard through, one drawn per clip, more often what is named more "
            "often (training.data.augment)."
        ),
    )
    time_mask: int = field(
        default=0,
        metadata=ours("With `fresh`: widest stretch of spectrogram frames masked, twice per clip (SpecAugment)."),
    )
    band_mask: int = field(
        default=0, metadata=ours("With `fresh`: widest stretch of mel bands masked, twice per clip (SpecAugment).")
    )
    versions: int = field(
        default=0,
        metadata=ours(
            "With `fresh`: versions of each recording drawn once, of which an epoch takes one, as it takes the clean "
            "clip, if kept; their features are computed once and shared by all splits and seeds. 0 draws a new one "
            "every epoch."
        ),
    )
    background: float = field(
        default=0.0,
        metadata=ours(
            "Clips without speech (training.data.background) added to a batch, as a share of its clips: every label is "
            "equally right for them, so that noise and music get no confident one (outlier exposure)."
        ),
    )

    def __post_init__(self) -> None:
        if not self.snrs and not self.keep_original:
            raise TrainingError("augmentation without originals and without noisy copies leaves nothing to train on")
        ours = (self.crop_jitter, self.gain, self.time_mask, self.band_mask, self.versions, self.speeds != (1.0,))
        ours += (self.random_snr, self.channels != ("clean",), self.noises != ("white",))
        if not self.fresh and any(ours):
            raise TrainingError(
                "crop jitter, gain, speeds, noises, channels, masks, versions and random_snr are of fresh augmentation",
                remedy="Set fresh = true.",
            )
        for name in ("crop_jitter", "gain", "time_mask", "band_mask", "versions", "background"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TrainingError(f"augmentation's {name}", got=getattr(self, name), expected="0 or more")
        if not self.speeds or not all(0 < speed < float("inf") for speed in self.speeds):
            raise TrainingError("augmentation's speeds", got=self.speeds, expected="positive numbers, one or more")
        if not self.channels or not self.noises or (self.random_snr and len(self.snrs) < 2):
            raise TrainingError(
                "augmentation draws among noises and channels, and random_snr between two of snrs",
                got=f"noises {list(self.noises)}, channels {list(self.channels)}, snrs {list(self.snrs)}",
                expected="one noise and one channel or more, such as white and clean, and two levels or more",
            )


@dataclass(frozen=True)
class Stage:
    """Optimiser, schedule and stopping rule of one stage (Table II)."""

    optimizer: Literal["adamw", "sgd", "adam", "ridge"] = field(
        metadata=paper("Table II", "AdamW, SGD or Adam.")
        | ours("Or, for a linear head over frozen layers, ridge regression in closed form (training.models.ridge).")
    )
    learning_rate: float = field(metadata=paper("Table II", "Of the optimiser, before the schedule."))
    epochs: int = field(metadata=paper("Table II", "At most."))
    patience: int = field(metadata=paper("Table II", "Epochs without a better `monitor` before the stage stops."))
    monitor: Literal["accuracy", "loss", "macro_f1"] = field(
        metadata=paper("Table II", "Validation figure that decides which epoch is kept.")
    )
    schedule: Literal["cosine", "step", "constant", "one_cycle"] = field(
        default="constant",
        metadata=paper("Table II", "Of the learning rate, by epoch.") | ours("one_cycle moves every step."),
    )
    step_size: int = field(default=10, metadata=paper("Table II", "Epochs between drops of the step schedule."))
    step_gamma: float = field(default=0.7, metadata=paper("Table II", "Factor of each drop of the step schedule."))
    cycles: int = field(default=1, metadata=ours("Times the one-cycle schedule is run through within `epochs`."))
    momentum: float = field(default=0.8, metadata=ancestor("SGD only."))
    weight_decay: float = field(default=0.0, metadata=ours("Of the optimiser: none unless the stage names one."))
    decay: Literal["all", "matrices"] = field(
        default="matrices",
        metadata=ancestor("Weight decay draws every parameter to zero (`all`).")
        | ours("No norms, biases and positions: the paper is silent."),
    )
    penalties: tuple[float, ...] = field(
        default=(0.03, 0.1, 0.3, 1.0),
        metadata=ours("Ridge only: those tried, in units of a standardised row's mean squared norm."),
    )
    backbone_rate: float = field(
        default=1.0, metadata=ours("Factor of the learning rate for the top layer of a pretrained backbone.")
    )
    layer_decay: float = field(default=1.0, metadata=ours("Factor from each of its layers to the one below."))
    batch_size: int = field(default=32, metadata=paper("Table II", "Clips per step."))
    clip_norm: float = field(
        default=1.0, metadata=paper("IV-B.2", "Global gradient norm clipped to this; 0 turns clipping off.")
    )
    label_smoothing: float = field(default=0.0, metadata=ours("Share of a target that goes to all classes alike."))
    mixup: float = field(
        default=0.0, metadata=ours("Beta parameter of mixup, which the paper has none of; 0 turns it off.")
    )

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

    fit_on: Literal["training", "validation", "out-of-fold"] = field(
        default="training",
        metadata=ours(
            "Whose probabilities are the fusion's rows, which the paper does not say: training clips', of which the "
            "branches are surer than of others, validation clips', which chose their epochs, or `out-of-fold`."
        ),
    )
    folds: int = field(
        default=5,
        metadata=ours("With `out-of-fold`: folds of the training clips, both branches trained once per fold."),
    )
    solver: Literal["adam", "lbfgs", "shrunk"] = field(
        default="adam",
        metadata=paper("Table II", "Adam.")
        | ours(
            "Or the exact optimum of the L2-penalised problem (`lbfgs`), or that of one in which the penalty draws "
            "towards a weighted sum of the branches instead of to nothing (`shrunk`, training.models.fusion)."
        ),
    )
    inverse_penalty: float = field(default=1.0, metadata=ours("scikit-learn's C of the `lbfgs` solver."))
    shrinkage: float = field(
        default=1.0, metadata=ours("Penalty of the `shrunk` solver, beside the mean cross-entropy of a clip.")
    )

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

    recipe: str = field(default="paper", metadata=ours("Name under which results are reported."))
    seed: int = field(
        default=0, metadata=ours("Of the split, the augmentation, the initial weights and the order of batches.")
    )
    protocol: Literal["paper", "emobox", "sentence", "speakers", "given"] = field(
        default="paper",
        metadata=paper("Table I", "The random split.") | ours("The other splits (training.data.splits)."),
    )
    fold: int = field(default=0, metadata=ours("Which of the protocol's splits, from 0."))
    corpus_power: float = field(
        default=1.0,
        metadata=ours("Draw each of several corpora, of n clips, in proportion to n to this power: 1 all clips alike."),
    )
    label_power: float = field(
        default=1.0,
        metadata=ours("Draw each label of a corpus in proportion to its clips to this power: 0 all labels alike."),
    )
    refit: bool = field(
        default=False,
        metadata=ours(
            "Once validation clips have chosen, train on them too: the ridge penalty and its temperature are settled "
            "before, an epoch-wise stage runs its whole schedule, and the fusion meets both parts out of fold."
        ),
    )
    clip: ClipRule = field(
        default_factory=lambda: ClipRule(clamp_offset=True),
        metadata=paper("III-B", "Three seconds at 48 kHz.")
        | ancestor("A longer recording loses its first 0.5 s (`clip.offset`).")
        | ours("But no more than it has over three seconds (`clip.clamp_offset`): the paper is silent."),
    )
    augment: AugmentConfig = field(default_factory=AugmentConfig, metadata=paper("IV-A", "Copies of training clips."))
    context: ContextConfig = field(default_factory=ContextConfig, metadata=paper("III-C", "The context branch."))
    spectrogram: SpectrogramConfig = field(
        default_factory=SpectrogramConfig, metadata=paper("III-D", "The spectrogram branch.")
    )
    fusion: FusionConfig = field(default_factory=FusionConfig, metadata=paper("III-E", "Of the two branches."))
    context_stage: Stage = field(
        default=CONTEXT_STAGE,
        metadata=paper("Table II", "The context branch's.") | ours("The weight decay, 0.01: torch's default of AdamW."),
    )
    spectrogram_stage: Stage = field(
        default=SPECTROGRAM_STAGE,
        metadata=paper("Table II", "The spectrogram branch's.") | ancestor("Momentum 0.8 and weight decay 1e-3."),
    )
    fusion_stage: Stage = field(default=FUSION_STAGE, metadata=paper("Table II", "The fusion's."))

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
        if stage.label_smoothing or stage.mixup or self.augment.background:
            raise TrainingError(
                "ridge regression knows no label smoothing, no mixup and no clips without speech",
                got=f"label_smoothing {stage.label_smoothing}, mixup {stage.mixup}, "
                f"augment.background {self.augment.background}",
                expected="0 for all three",
            )
        if self.augment.fresh and not self.augment.versions:
            raise TrainingError(
                "ridge regression sees all examples at once, and this recipe draws new ones every epoch",
                remedy="Set augment.versions to as many as shall be drawn once.",
            )


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON types."""
    return dataclasses.asdict(config)


def load_config(recipe: str | Path, **overrides: Any) -> RunConfig:
    """The configuration of a named recipe ("paper"), of a .toml file, or of a run's config.json.

    `overrides` replace top-level fields. Raises TrainingError for an unknown recipe, key or value.
    """
    path = Path(recipe)
    if not path.suffix:
        path = RECIPES / f"{recipe}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise TrainingError(f"there is no recipe {recipe}", expected=f"one of {known}, or a .toml file")
    raw = parse(path.read_bytes(), str(path), TrainingError) if path.suffix == ".json" else read_toml(path)
    if not isinstance(raw, dict):
        raise TrainingError(f"{path} is not an object", got=type(raw).__name__)
    if path.suffix == ".json":  # a run's own, which has its recipe's name
        _fill_in(raw)
    else:
        raw = {"recipe": re.sub(r"[^\w.-]+", "-", path.stem)} | raw
        if isinstance(raw.get("clip"), dict):  # a bundle's rule has another default than a recipe's
            raw["clip"] = {"clamp_offset": True} | raw["clip"]
        stage = raw.get("context_stage")
        if isinstance(stage, dict) and stage.get("optimizer") == "ridge":
            raw["context_stage"] = CLOSED_FORM | stage
    return decode(RunConfig, raw | overrides, path.name, TrainingError)


def _fill_in(raw: dict[str, Any]) -> None:
    """Add what a run's config.json does not say because the run was begun before there was such a field."""
    for name, value in BEFORE.items():
        *tables, field_name = name.split(".")
        place: Any = raw
        for table in tables:
            place = place.get(table) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.setdefault(field_name, value)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; TrainingError if it is missing or damaged."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not even text
        raise TrainingError(f"{path} cannot be read", got=error, expected="a TOML file") from error
