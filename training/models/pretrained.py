"""Speech encoders from the hub, from a folder, from a description, or with random weights; strict about tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ser_batch.errors import TrainingError
from training.config import ContextConfig
from training.files import read_json
from training.models import repair_torchaudio
from training.models.backbones import Family, family_of

repair_torchaudio()
import transformers  # noqa: E402

EAGER = {"attn_implementation": "eager"}
"""The attention whose graph every runtime builds."""
UNUSED = "masked_spec_embed"
"""What masked frames are replaced by where `spec_augment` asks for it; some checkpoints leave it out."""

ORIGIN = "distillation.json"
"""In a checkpoint's folder: what it was distilled from."""
STUDENT = "student"
"""In a distillation's folder: what its stage has left."""
INCIDENTAL = ("dtype", "_name_or_path", "transformers_version", "apply_spec_augment")
"""Fields of a transformers configuration that say nothing about the float32 model built from it here."""


@dataclass(frozen=True)
class Encoder:
    """A speech encoder, and how it is taken apart."""

    model: Any
    """transformers' own model, float32."""
    family: Family
    normalise: bool
    """Whether its input is the z-normed waveform."""
    origin: dict[str, Any] | None = None
    """What it was distilled from, and on what (training.distillation)."""

    def describe(self) -> dict[str, Any]:
        """What `from_description` needs to build it again without its weights, as JSON types."""
        config = self.model.config.to_dict()
        found = {"normalise": self.normalise, "config": {k: v for k, v in config.items() if k not in INCIDENTAL}}
        return found | ({"origin": self.origin} if self.origin else {})


def load_encoder(config: ContextConfig) -> Encoder:
    """The encoder that the configuration names: a checkpoint, or random weights for `scratch`.

    Raises:
        TrainingError: it cannot be had, is of no known family, lacks a tensor, or has one of another shape.
    """
    if config.backbone == "scratch":
        fields = dict(config.architecture)
        model_type = fields.pop("model_type", "wav2vec2")
        _check_fields(model_type, fields)
        return _build(model_type, fields, config.normalise is not False, config.spec_augment)
    with _quiet():
        description = _fetch(config.backbone, transformers.AutoConfig)
        family = family_of(description.model_type)
        description.apply_spec_augment = config.spec_augment
        normalise = _normalises(config.backbone) if config.normalise is None else config.normalise
        weights, said = _load_weights(config.backbone, family, description), Path(config.backbone) / ORIGIN
        encoder = Encoder(weights, family, normalise, read_json(said) if said.is_file() else None)
    return _checked(encoder, config.spec_augment)


def from_description(description: dict[str, Any], spec_augment: bool = False) -> Encoder:
    """The encoder that `Encoder.describe` described, with random weights for a run's own to be loaded into."""
    fields = dict(description["config"])
    built = _build(fields.pop("model_type"), fields, bool(description["normalise"]), spec_augment)
    return replace(built, origin=description.get("origin"))


def _check_fields(model_type: str, fields: dict[str, Any]) -> None:
    kind = family_of(model_type).config
    known = set(kind().to_dict()) - set(INCIDENTAL)
    unknown = sorted(set(fields) - known)
    if unknown:
        raise TrainingError(f"architecture: {kind.__name__} has no field {unknown[0]!r}")


def _build(model_type: str, fields: dict[str, Any], normalise: bool, spec_augment: bool) -> Encoder:
    family = family_of(model_type)
    try:
        model = family.model(family.config(**fields, apply_spec_augment=spec_augment, **EAGER))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise TrainingError(f"the architecture cannot be built as {family.model.__name__}", got=error) from error
    return _checked(Encoder(model, family, normalise), spec_augment)


def _checked(encoder: Encoder, spec_augment: bool) -> Encoder:
    if getattr(encoder.model.config, "add_adapter", False):
        raise TrainingError("the backbone has an adapter on top of its layers, which is not supported")
    if spec_augment and not encoder.family.masks_frames:
        raise TrainingError(
            "spec_augment masks frames of the wav2vec family only",
            got=encoder.model.config.model_type,
            remedy="Set context.spec_augment = false.",
        )
    return encoder


def _fetch(backbone: str, kind: Any, **options: Any) -> Any:
    """`kind.from_pretrained`, or TrainingError with the first line of what transformers says."""
    try:
        return kind.from_pretrained(backbone, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"the backbone {backbone!r} cannot be loaded",
            got=str(error).strip().partition("\n")[0],
            expected="a folder with config.json and weights, or a name on the hub",
        ) from error


def _normalises(backbone: str) -> bool:
    """What the checkpoint's preprocessor_config.json says of the waveform; yes where it does not say."""
    try:
        fields, _ = transformers.FeatureExtractionMixin.get_feature_extractor_dict(backbone)
    except OSError:
        return True
    return bool(fields.get("do_normalize", True))


def _load_weights(backbone: str, family: Family, description: Any) -> Any:
    """The encoder of a checkpoint, which may hold a whole Whisper or a head beside it."""
    kind: Any = family.model
    whole = description.model_type == "whisper" and kind.__name__ not in (description.architectures or [])
    if whole:
        kind = transformers.WhisperModel
    model, report = _fetch(
        backbone,
        kind,
        config=description,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below by name instead
        **EAGER,
    )
    _check_tensors(backbone, model, report, strict=kind.__name__ in (description.architectures or []))
    return model.get_encoder() if whole else model


def _check_tensors(backbone: str, model: Any, report: dict[str, Any], strict: bool) -> None:
    """TrainingError that names the first tensor that is missing, of another shape, or one too many.

    A checkpoint with a head (`strict` false) may hold tensors beside the encoder's parts, but none inside of them.
    """
    where = f"the backbone {backbone!r} does not fit its own config.json"
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise TrainingError(f"{where}: tensor {name}", got=tuple(found), expected=f"shape {tuple(wanted)}")
    unused = () if model.config.apply_spec_augment else (UNUSED,)
    missing = sorted(name for name in report["missing_keys"] if name.rpartition(".")[2] not in unused)
    if missing:
        raise TrainingError(where, got=f"no tensor {missing[0]}", expected=f"{len(missing)} more tensors")
    parts = {name for name, _ in model.named_children()}
    extra = sorted(
        name
        for name in report["unexpected_keys"]
        if strict or name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0] in parts
    )
    if extra:
        raise TrainingError(where, got=f"a tensor {extra[0]}", expected=f"{len(extra)} tensors less")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' reports and bars; what they would say is checked."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
