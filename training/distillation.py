"""Distillation: a compact speech encoder learns to give the frames of a larger, frozen one, from speech without labels.

The student is a wav2vec 2.0.
The teacher sees the clean clip, the student the clip with noise and through a channel, so that what it learns does
not depend on either. A recipe names what comes of it as its `context.backbone`.

Sources: Chang et al. 2022, "DistilHuBERT" (arXiv 2110.01900), for heads that predict layers of the teacher by L1
and cosine; Wang et al. 2022 (arXiv 2203.16773) for a distorted input against a clean target. Frames differ mostly by
what is said, and a clip's mean and deviation over time, which a classifier of emotions reads, by how: `clip_weight`
adds the distance of those.

<out>/
  config.json  clips.json  environment.json
  student/        metrics.jsonl, best.safetensors, state.pt
  encoder/        a wav2vec 2.0 as a checkpoint of transformers
  result.json     held-out loss, and cosine with each layer of the teacher
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.clips import ClipRule
from ser_batch.errors import TrainingError
from ser_batch.files import write_json
from ser_batch.strict_json import decode
from training.config import RECIPES, AugmentConfig, ContextConfig, Stage, ours, read_toml, to_dict
from training.data.augment import degraded
from training.data.corpora import Corpora, balanced_weights
from training.data.corpus import Corpus
from training.data.examples import TrainingSet, run_ahead
from training.data.features import FeatureCache, Features
from training.files import read_json
from training.loop import BEST, autocast, fit, load_weights, seed_everything
from training.models.backbones import ENCODER_RATE, EncoderInput, ZeroMeanUnitVariance
from training.models.frontends import Centre, Decimate
from training.models.pretrained import ORIGIN, STUDENT, Encoder, load_encoder
from training.runs import environment, write_or_compare
from training.runtime import Runtime

HELD_OUT = 80
"""One clip of so many is not trained on, but tells how well the student does."""
MEASURED = 500
"""Clips that the mean and the deviation of the teacher's frames are measured on."""


@dataclass(frozen=True)
class DistillationConfig:
    """Everything that decides what a distillation trains; with the clips it fixes the result."""

    stage: Stage = field(metadata=ours("Optimiser, schedule, epochs and batch size."))
    architecture: dict[str, Any] = field(
        metadata=ours("Fields of transformers' Wav2Vec2Config that differ from its defaults: the student.")
    )
    recipe: str = field(default="distilled", metadata=ours("Name."))
    seed: int = field(default=0, metadata=ours("Of the student's weights, the order of clips and the augmentation."))
    teacher: str = field(default="openai/whisper-base", metadata=ours("Hub name or folder of the frozen encoder."))
    teacher_layers: tuple[int, ...] = field(
        default=(2, 4), metadata=ours("Layers whose output the student predicts, counted from 1.")
    )
    clips_per_epoch: int = field(default=2_880, metadata=ours("Clips drawn for one epoch."))
    clip_weight: float = field(
        default=0.0, metadata=ours("Weight, beside the frames' 1, of the mean and the deviation over a clip's frames.")
    )
    start: str | None = field(
        default=None, metadata=ours("Folder of a distillation whose student this one goes on from; None: random.")
    )
    corpus_power: float = field(
        default=0.5, metadata=ours("A corpus of n clips is drawn in proportion to n to this power.")
    )
    clip: ClipRule = field(
        default_factory=lambda: ClipRule(clamp_offset=True), metadata=ours("What is cut of a recording.")
    )
    augment: AugmentConfig = field(
        default_factory=AugmentConfig, metadata=ours("What the student's input goes through.")
    )

    def __post_init__(self) -> None:
        if not self.teacher_layers or min(self.teacher_layers) < 1:
            raise TrainingError("teacher_layers", got=self.teacher_layers, expected="numbers from 1, one or more")
        if self.clips_per_epoch < self.stage.batch_size:
            raise TrainingError(
                "an epoch's clips do not fill a batch", got=self.clips_per_epoch, expected=self.stage.batch_size
            )
        if self.augment.versions or self.augment.crop_jitter or self.augment.speeds != (1.0,):
            raise TrainingError(
                "the student's input has to stay in step with the teacher's frames",
                expected="no versions, no crop jitter and no speeds among the augmentation",
            )


def load_distillation(recipe: str | Path, **overrides: Any) -> DistillationConfig:
    """The configuration of a named recipe or of a .toml file; TrainingError for an unknown recipe, key or value."""
    path = Path(recipe) if Path(recipe).suffix else RECIPES / "distillation" / f"{recipe}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.toml")))
        raise TrainingError(f"there is no distillation recipe {recipe}", expected=f"one of {known}, or a .toml file")
    return decode(DistillationConfig, {"recipe": path.stem} | read_toml(path) | overrides, path.name, TrainingError)


def distill(
    config: DistillationConfig, corpora: Corpora, folder: Path, runtime: Runtime | None = None
) -> dict[str, Any]:
    """Train the student on every clip that may be trained on, labelled or not; goes on where a killed call stopped.

    Returns result.json. Raises TrainingError when the teacher cannot be had, or the folder holds another distillation.
    """
    runtime = runtime or Runtime()
    members = corpora.of_role("train", labelled=False)
    corpus, rows = corpora.join(members), corpora.rows(members, "train", "validation")
    teacher = Teacher(config)
    _describe(folder, config, corpus, rows)
    cache = FeatureCache(runtime.cache or folder / "features", corpus, config.clip, AugmentConfig(), runtime.device)
    frames = cache.versions(teacher.to(runtime.device), range(1))[0]
    inputs = cache.versions(EncoderInput().to(runtime.device), range(1))[0]
    held_out = rows[::HELD_OUT]
    seed_everything(config.seed, 0)
    examples = DistillationSet(inputs, frames, corpus, sorted(set(rows) - set(held_out)), config)
    objective = Imitation(config.clip_weight, examples.clip_mean, examples.clip_deviation)
    validation = (examples.inputs_of(held_out), examples.frames_of(held_out))
    student = Student(config, frames[0].shape[2])
    if config.start is not None:
        load_weights(student, Path(config.start) / STUDENT / BEST)
    fit(
        STUDENT,
        student,
        config.stage,
        examples,
        validation,
        folder / STUDENT,
        seed=config.seed,
        runtime=runtime,
        objective=objective,
    )
    result = {"clips": len(rows), **objective.evaluate(student, *validation, runtime.device)}
    _save_encoder(student, folder / "encoder", config, corpus, result)
    write_json(folder / "result.json", result)
    return result


def _save_encoder(
    student: Student, folder: Path, config: DistillationConfig, corpus: Corpus, result: dict[str, Any]
) -> None:
    student.source.model.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", {"do_normalize": True, "sampling_rate": ENCODER_RATE})
    origin = {
        "teacher": Path(config.teacher).name,
        "layers": list(config.teacher_layers),
        "corpora": {name: corpus.licences[name] for name in corpus.roots},
    }
    write_json(folder / ORIGIN, origin | result)


def _describe(folder: Path, config: DistillationConfig, corpus: Corpus, rows: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clips = [f"{corpus.examples[i].file}@{corpus.examples[i].start or 0:g}" for i in rows]
    write_or_compare(folder / "config.json", to_dict(config), lambda path: _named(_kept(path)) == _named(config))
    write_or_compare(folder / "clips.json", clips, lambda path: read_json(path) == clips)
    if not (folder / "environment.json").is_file():
        write_json(folder / "environment.json", environment())


def _kept(path: Path) -> DistillationConfig:
    return decode(DistillationConfig, read_json(path), str(path), TrainingError)


def _named(config: DistillationConfig) -> DistillationConfig:
    """With the teacher's name: a folder says only where the checkpoint lies here."""
    return replace(config, teacher=Path(config.teacher).name)


class Teacher(nn.Module):
    """Frames of a frozen encoder's layers.

    Shape: (B, 144000) float32 at 48 kHz → (B, layers, frames, D) float16.
    """

    def __init__(self, config: DistillationConfig) -> None:
        super().__init__()
        self.source: Encoder = load_encoder(ContextConfig(backbone=config.teacher, name="teacher"))
        self.encoder, self.layers = self.source.model.requires_grad_(False), config.teacher_layers
        depth = len(self.source.family.layers(self.encoder))
        if max(self.layers) > depth:
            raise TrainingError("the teacher has no such layer", got=max(self.layers), expected=f"1 … {depth}")
        frontend = self.source.family.frontend(self.encoder, self.source.normalise, True)
        self.steps = nn.Sequential(Centre(), Decimate(3), frontend)

    def features(self, waveform: Tensor) -> Tensor:
        """What is cached."""
        family, model = self.source.family, self.encoder
        inputs = self.steps(waveform)
        with autocast(waveform.device):  # the student comes nowhere near as close as bf16 rounds
            hidden = family.embed(model, family.convolve(model, inputs))
            outputs = list(family.run(model, hidden, 0, max(self.layers)))
        return torch.stack([outputs[layer - 1] for layer in self.layers], dim=1).half()

    def features_settings(self) -> dict[str, Any]:
        """What decides the frames, beside the weights."""
        return {"layers": list(self.layers), "encoder": self.source.describe()}

    def features_state(self) -> dict[str, Tensor]:
        """The weights."""
        return dict(self.encoder.named_parameters())


class Student(nn.Module):
    """A wav2vec 2.0 and the head that predicts the teacher's standardised frames from its last layer.

    Shape: (B, 48000) float32 at 16 kHz → (B, layers, frames, D).
    """

    def __init__(self, config: DistillationConfig, width: int) -> None:
        super().__init__()
        context = ContextConfig(backbone="scratch", architecture=config.architecture)
        self.source = load_encoder(context)
        self.encoder, self.shape = self.source.model, (len(config.teacher_layers), width)
        self.predict = nn.Linear(int(self.encoder.config.hidden_size), self.shape[0] * width)
        self.normalise = ZeroMeanUnitVariance(1.0)

    def head(self, waveform: Tensor) -> Tensor:
        """Everything: all of it trains."""
        family, model = self.source.family, self.encoder
        hidden = family.embed(model, family.convolve(model, self.normalise(waveform)))
        *_, last = family.run(model, hidden, 0, len(family.layers(model)))
        predicted = self.predict(family.finish(model, last))
        return predicted.unflatten(2, self.shape).transpose(1, 2)


class Imitation:
    """The distance of a student's frames from the teacher's, and of their mean and deviation over each clip.

    A distance is L1 plus one minus the cosine. `mean` and `deviation` (2 layers, D) are those of the clips' statistics
    in the teacher, which put all of them on one scale.
    """

    def __init__(self, clip_weight: float, mean: Tensor, deviation: Tensor) -> None:
        self.clip_weight, self.mean, self.deviation = clip_weight, mean, deviation

    def loss(self, head: Callable[[Tensor], Tensor], features: Tensor, targets: Tensor, stage: Stage) -> Tensor:
        """Loss () of waveforms (B, 48000) and the teacher's standardised frames (B, layers, frames, D)."""
        found = head(features).float()
        return self._distance(found, targets[:, :, : found.shape[2]].float()).mean()

    def evaluate(self, branch: nn.Module, features: Tensor, targets: Tensor, device: torch.device) -> dict[str, float]:
        """Loss, and the mean cosine over all layers of frames and of clips, of clean clips in full precision."""
        branch.eval()
        losses, cosines, of_clips = [], [], []
        with torch.no_grad():
            for waveforms, wanted in zip(features.split(32), targets.split(32), strict=True):
                found = branch.head(waveforms.to(device)).float().cpu()
                wanted = wanted[:, :, : found.shape[2]].float()
                losses.append(self._distance(found, wanted))
                cosines.append(nn.functional.cosine_similarity(found, wanted, dim=3).mean(dim=(1, 2)))
                of_clips.append(nn.functional.cosine_similarity(self._clips(found), self._clips(wanted), dim=2).mean(1))
        figures = {"loss": losses, "cosine": cosines, "clip_cosine": of_clips}
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}

    def _distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """(B, layers, frames, D) twice → (B,)."""
        frames = distances(found, wanted).mean(dim=(1, 2))
        if not self.clip_weight:
            return frames
        return frames + self.clip_weight * distances(self._clips(found), self._clips(wanted)).mean(dim=1)

    def _clips(self, frames: Tensor) -> Tensor:
        """(B, layers, frames, D) → (B, 2 layers, D): statistics over time, standardised over clips."""
        return (clip_statistics(frames) - self.mean.to(frames.device)) / self.deviation.to(frames.device)


def clip_statistics(frames: Tensor) -> Tensor:
    """(B, layers, frames, D) → (B, 2 layers, D): each layer's mean over time, then each layer's deviation."""
    variance, mean = torch.var_mean(frames, dim=2, correction=0)
    return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


def distances(found: Tensor, wanted: Tensor) -> Tensor:
    """(…, D) twice → (…): mean absolute difference, plus one minus the cosine."""
    return (found - wanted).abs().mean(dim=-1) + 1 - nn.functional.cosine_similarity(found, wanted, dim=-1)


class DistillationSet(TrainingSet):
    """Clips drawn so that no corpus decides, degraded anew each time, with the teacher's frames of the clean clip."""

    def __init__(
        self, inputs: Features, frames: Features, corpus: Corpus, rows: list[int], config: DistillationConfig
    ) -> None:
        self.inputs, self.frames, self.rows, self.config = inputs, frames, rows, config
        self.seed = config.seed
        self.weights = balanced_weights(corpus, rows, config.corpus_power, 1.0)
        measured = self.frames[rows[:: max(1, len(rows) // MEASURED)]].astype(np.float32)
        self.mean, self.deviation = (f(axis=(0, 2), keepdims=True)[0] for f in (measured.mean, measured.std))
        clips = clip_statistics(torch.from_numpy((measured - self.mean) / self.deviation))
        self.clip_mean, self.clip_deviation = clips.mean(dim=0), clips.std(dim=0) + 1e-3

    def __len__(self) -> int:
        return self.config.clips_per_epoch

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Degraded clips (b, 48000) and the teacher's frames (b, layers, frames, D) float16; the same for an epoch."""
        return run_ahead(self._drawn(epoch, size))

    def _drawn(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((self.seed, epoch))
        drawn = rng.choice(len(self.rows), size=len(self), p=self.weights)
        for start in range(0, len(self), size):
            chosen = [self.rows[i] for i in drawn[start : start + size]]
            clips = [degraded(np.float32(self.inputs[i]), ENCODER_RATE, self.config.augment, rng) for i in chosen]
            yield torch.from_numpy(np.stack(clips)), self.frames_of(chosen)

    def inputs_of(self, rows: list[int]) -> Tensor:
        """Clean clips (n, 48000) float32."""
        return torch.from_numpy(self.inputs[rows]).float()

    def frames_of(self, rows: list[int]) -> Tensor:
        """The teacher's frames (n, layers, frames, D) float16, in units of their deviation."""
        return torch.from_numpy(((self.frames[rows] - self.mean) / self.deviation).astype(np.float16))
