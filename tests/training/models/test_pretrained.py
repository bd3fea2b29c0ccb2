"""Speech encoders from checkpoints: what is loaded, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.shared_data import RAVDESS, SHARED
from support.toy_encoders import ARCHITECTURES, CONVOLVED, WHISPER

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from ser_batch.audio.reader import read_clip  # noqa: E402
from ser_batch.clips import ClipRule  # noqa: E402
from ser_batch.errors import TrainingError  # noqa: E402
from training.config import ContextConfig  # noqa: E402
from training.models.backbones import FAMILIES  # noqa: E402
from training.models.context import ContextBranch  # noqa: E402
from training.models.pretrained import Encoder, from_description, load_encoder  # noqa: E402

WhisperEncoder: Any = FAMILIES["whisper"].model
BASE = SHARED / "backbones" / "whisper-base-encoder"


def load(folder: Path, **changes: Any) -> Encoder:
    return load_encoder(ContextConfig(backbone=str(folder), name="toy", unfrozen_layers=1, **changes))


def saved(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Save a model as its own checkpoint; its weights."""
    model.save_pretrained(folder)
    return model.state_dict()


def spoil(folder: Path, remove: str = "", **add: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if k != remove} | add
    save_file(weights, path, metadata={"format": "pt"})


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in found)


@pytest.mark.parametrize("kind", ["Wav2Vec2Model", "Wav2Vec2ForPreTraining", "Wav2Vec2ForCTC"])
def test_a_checkpoint_may_have_a_head(kind: str, tmp_path: Path) -> None:
    whole = getattr(transformers, kind)(transformers.Wav2Vec2Config(**CONVOLVED))
    saved(whole, tmp_path)
    assert same(load(tmp_path).model.state_dict(), whole.base_model.state_dict())


@pytest.mark.parametrize("name", ["hubert", "wavlm", "data2vec-audio"])
def test_the_family_is_the_checkpoints(name: str, tmp_path: Path) -> None:
    scratch = load_encoder(ContextConfig("scratch", "toy", ARCHITECTURES[name]))
    weights = saved(scratch.model, tmp_path)
    found = load(tmp_path)
    assert found.family is scratch.family and same(found.model.state_dict(), weights)


@pytest.mark.parametrize("kind", [WhisperEncoder, transformers.WhisperForConditionalGeneration])
def test_whisper_comes_alone_or_with_its_decoder_in_half_precision(kind: Any, tmp_path: Path) -> None:
    whole = kind(transformers.WhisperConfig(**WHISPER)).half()
    saved(whole, tmp_path)
    encoder = whole if kind is WhisperEncoder else whole.model.encoder
    found = load(tmp_path).model
    assert type(found) is WhisperEncoder and {p.dtype for p in found.parameters()} == {torch.float32}
    assert same(found.state_dict(), encoder.float().state_dict())


@pytest.mark.parametrize(("says", "normalise"), [(None, True), (True, True), (False, False)])
def test_the_waveform_is_normalised_as_the_checkpoint_says(says: bool | None, normalise: bool, tmp_path: Path) -> None:
    saved(transformers.WavLMModel(transformers.WavLMConfig(**CONVOLVED)), tmp_path)
    if says is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": says}))
    assert load(tmp_path).normalise == normalise
    assert load(tmp_path, normalise=not normalise).normalise != normalise


@pytest.mark.parametrize(
    ("remove", "add", "named"),
    [
        ("layers.1.fc1.bias", {}, "no tensor layers.1.fc1.bias"),
        ("", {"layers.3.fc1.bias": torch.zeros(24)}, "a tensor layers.3.fc1.bias"),
        ("", {"head.weight": torch.zeros(3)}, "a tensor head.weight"),
        ("", {"layers.1.fc1.bias": torch.zeros(25)}, r"tensor layers.1.fc1.bias; got \(25,\).*\(24,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    remove: str, add: dict[str, torch.Tensor], named: str, tmp_path: Path
) -> None:
    saved(WhisperEncoder(transformers.WhisperConfig(**WHISPER)), tmp_path)
    spoil(tmp_path, remove, **add)
    with pytest.raises(TrainingError, match=named):
        load(tmp_path)


def test_a_head_beside_the_encoder_hides_no_layer_too_many(tmp_path: Path) -> None:
    saved(transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**CONVOLVED)), tmp_path)
    spoil(tmp_path, **{"wav2vec2.encoder.layers.3.final_layer_norm.bias": torch.zeros(16)})
    with pytest.raises(TrainingError, match=r"encoder\.layers\.3\.final_layer_norm\.bias"):
        load(tmp_path)


def test_a_checkpoint_without_the_unused_mask_embedding_loads(tmp_path: Path) -> None:
    saved(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**CONVOLVED)), tmp_path)
    spoil(tmp_path, "masked_spec_embed")
    load(tmp_path)
    with pytest.raises(TrainingError, match="no tensor masked_spec_embed"):
        load(tmp_path, spec_augment=True)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be loaded"):
        load(tmp_path / "nothing" / "here")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(TrainingError, match="bert"):
        load(tmp_path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_description_builds_the_same_encoder(name: str) -> None:
    config = ContextConfig("scratch", "toy", ARCHITECTURES[name], unfrozen_layers=1, normalise=False)
    branch = ContextBranch(config, 4).eval()
    described = json.loads(json.dumps(branch.source.describe()))
    again = ContextBranch(config, 4, from_description(described)).eval()
    again.load_state_dict(branch.state_dict())
    x = 0.1 * torch.randn(1, 24_000)
    with torch.no_grad():
        torch.testing.assert_close(again(x), branch(x), atol=0, rtol=0)


@pytest.mark.shared
def test_whisper_base_on_real_clips_is_transformers_own() -> None:
    branch = ContextBranch(ContextConfig(str(BASE), "whisper_base", unfrozen_layers=-1, level="full scale"), 8).eval()
    names = ("Actor_01/03-01-01-01-01-01-01", "Actor_12/03-01-06-01-02-01-12")
    files = [next(RAVDESS.rglob(f"{Path(name).name}.*")) for name in names]
    clips = torch.from_numpy(np.stack([read_clip(file, ClipRule()).waveform for file in files]))
    reference = WhisperEncoder.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").eval()
    reference.config.max_source_positions = reference.embed_positions.num_embeddings = 150
    reference.embed_positions.weight = torch.nn.Parameter(reference.embed_positions.weight[:150])
    extractor = transformers.WhisperFeatureExtractor()
    with torch.no_grad():
        waveform = branch.decimate(clips)
        mel = extractor._np_extract_fbank_features(waveform.double().numpy(), "cpu")
        mel = torch.from_numpy(mel).float()
        torch.testing.assert_close(branch.frontend(waveform), mel, atol=1e-4, rtol=0)
        *_, ours = branch._outputs(branch.features(clips), 0, branch.depth)
        exact = reference(branch.frontend(waveform)).last_hidden_state
        torch.testing.assert_close(ours, exact, atol=1e-4, rtol=1e-4)
        theirs = reference(mel).last_hidden_state
    assert ours.shape == (2, 150, 512)
    # values reach 20; what is left is float32 in the mel of nearly silent bins
    assert (ours - theirs).abs().max() < 2e-3
