"""Every family taken apart is the model's own forward; the context branch on top of each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.toy_encoders import ARCHITECTURES, DEPTH, WIDTH

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ser_batch.errors import TrainingError  # noqa: E402
from training.config import ContextConfig  # noqa: E402
from training.models.context import ContextBranch  # noqa: E402
from training.models.pretrained import load_encoder  # noqa: E402

SAMPLES, FRAMES, WHISPER_FRAMES = 24_000, 24, 25
"""Half a second, to be fast."""
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "whisper")


def config(name: str, **changes: Any) -> ContextConfig:
    chosen = {"name": "toy", "unfrozen_layers": 1, "hidden": (8, 8), "architecture": ARCHITECTURES[name]} | changes
    return ContextConfig(backbone="scratch", **chosen)


def branch(name: str, **changes: Any) -> ContextBranch:
    torch.manual_seed(0)
    made = ContextBranch(config(name, **changes), 4).eval()
    with torch.no_grad():  # weights as made are so small that a swapped part would go unseen
        for parameter in made.encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for parameter in made.classifier.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def waveforms(count: int = 2, samples: int = SAMPLES) -> torch.Tensor:
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


def cut_positions(model: Any, frames: int) -> Any:
    """A copy of a Whisper encoder whose table of positions is only as long as the clip, as its forward demands."""
    model = copy.deepcopy(model)
    model.config.max_source_positions = model.embed_positions.num_embeddings = frames
    model.embed_positions.weight = torch.nn.Parameter(model.embed_positions.weight[:frames])
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_parts_in_a_row_are_the_models_own_forward(name: str) -> None:
    made = branch(name, unfrozen_layers=-1, freeze_feature_encoder=False)
    with torch.no_grad():
        inputs = made.features(waveforms())
        whole = cut_positions(made.encoder, WHISPER_FRAMES) if name == "whisper" else made.encoder
        expected = whole(inputs, output_hidden_states=True)
        hidden = made.family.embed(made.encoder, made.family.convolve(made.encoder, inputs))
        outputs = list(made._outputs(hidden, 0, DEPTH))
    torch.testing.assert_close(outputs[-1], expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    assert len(outputs) == len(expected.hidden_states) == DEPTH + 1
    for ours, theirs in zip(outputs[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert outputs[-1].shape == (2, WHISPER_FRAMES if name == "whisper" else FRAMES, WIDTH)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(outputs[1:], outputs, strict=False))


CUTS = (
    {"unfrozen_layers": -1, "freeze_feature_encoder": False},
    {"unfrozen_layers": -1},
    {"unfrozen_layers": 2},
    {"unfrozen_layers": 0},
    {"unfrozen_layers": 1, "freeze_projection": True},
    {"unfrozen_layers": DEPTH, "freeze_projection": True},
    {"unfrozen_layers": 0, "freeze_projection": True},
)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("head", [(False, "mean"), (True, "mean+std"), (True, "mean+std+thirds+deltas")])
def test_logits_do_not_depend_on_where_the_features_are_cut(name: str, head: tuple[bool, str]) -> None:
    layer_weights, pooling = head
    chosen, x = {"layer_weights": layer_weights, "pooling": pooling}, waveforms()
    whole = branch(name, **chosen, **CUTS[0])
    if layer_weights:
        torch.nn.init.normal_(whole.layer_mix)
    with torch.no_grad():
        expected = whole(x)
        for cut in CUTS[1:]:
            other = branch(name, **chosen, **cut)
            other.load_state_dict(whole.state_dict())
            torch.testing.assert_close(other.head(other.features(x)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layer_weights", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_features_hold_all_that_is_frozen_and_nothing_that_trains(
    name: str, layer_weights: bool, cut: dict[str, Any]
) -> None:
    made, x = branch(name, layer_weights=layer_weights, **cut).train(), waveforms()
    features = made.features(x)
    assert not features.requires_grad
    made.head(features).square().sum().backward()
    for key, parameter in made.named_parameters():
        used = key not in ("encoder.masked_spec_embed",)
        assert (parameter.grad is not None) == (parameter.requires_grad and used), key
    with torch.no_grad():  # no dropout in what is frozen, even while the rest trains
        torch.testing.assert_close(made.features(x), features, atol=0, rtol=0)
    for layer in made.family.layers(made.encoder):
        trained = any(p.requires_grad for p in layer.parameters())
        assert all(module.training == trained for module in layer.modules())


@pytest.mark.parametrize(
    ("name", "k", "layer_weights", "shape"),
    [
        ("whisper", 3, False, (25, 16)),
        ("whisper", 1, False, (25, 16)),
        ("whisper", 0, False, (32,)),
        ("whisper", 0, True, (8, 16)),
        ("whisper", 1, True, (6 + 25, 16)),
        ("wav2vec2", 1, True, (8, 24)),
        ("hubert", 0, False, (8, 24)),
    ],
)
def test_shapes_of_features(name: str, k: int, layer_weights: bool, shape: tuple[int, ...]) -> None:
    made = branch(name, unfrozen_layers=k, layer_weights=layer_weights, pooling="mean+std")
    assert made.features(waveforms()).shape == (2, *shape)


def test_weights_of_layers_weigh_the_layers() -> None:
    made, x = branch("whisper", layer_weights=True, unfrozen_layers=0), waveforms()
    hidden = made.family.embed(made.encoder, made.family.convolve(made.encoder, made.frontend(made.decimate(x))))
    outputs = [torch.nn.functional.layer_norm(o, (WIDTH,)).mean(dim=1) for o in made._outputs(hidden, 0, DEPTH)]
    with torch.no_grad():
        torch.testing.assert_close(made(x), made.classifier(torch.stack(outputs).mean(dim=0)), atol=1e-5, rtol=1e-5)
        made.layer_mix.copy_(torch.tensor([0.0, 100.0, 0.0, 0.0]))
        torch.testing.assert_close(made(x), made.classifier(outputs[1]), atol=1e-5, rtol=1e-5)


def test_dropped_layers_are_trained_ones() -> None:
    architecture = ARCHITECTURES["whisper"] | {"encoder_layerdrop": 1.0}
    made = ContextBranch(ContextConfig("scratch", "toy", architecture, unfrozen_layers=1), 4).train()
    features = made.features(waveforms())
    evaluated = copy.deepcopy(made).eval().features(waveforms())
    torch.testing.assert_close(features, evaluated, atol=0, rtol=0)
    *_, last = made._outputs(features, made.cut, made.depth)
    torch.testing.assert_close(last, made.encoder.layer_norm(features))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": {"model_type": "bert"}}, "bert"),
        ({"architecture": {"hidden_sise": 32}}, "hidden_sise"),
        ({"architecture": {"model_type": "whisper"}, "spec_augment": True}, "spec_augment"),
        ({"architecture": ARCHITECTURES["wav2vec2"] | {"add_adapter": True}}, "adapter"),
        ({"architecture": ARCHITECTURES["wav2vec2"] | {"num_attention_heads": 5}}, "embed_dim"),
        ({"architecture": ARCHITECTURES["wav2vec2"], "unfrozen_layers": 4}, "unfrozen_layers"),
        ({"architecture": ARCHITECTURES["whisper"], "unfrozen_layers": -1, "freeze_projection": True}, "freeze_proj"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        ContextBranch(ContextConfig(backbone="scratch", name="toy", **change), 4)


@pytest.mark.parametrize("name", ["spectrogram", "fused", "Whisper", "a/b", ""])
def test_a_name_that_files_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(TrainingError, match="name"):
        ContextConfig(name=name)


def test_a_clip_longer_than_the_positions_is_refused() -> None:
    short = ARCHITECTURES["whisper"] | {"max_source_positions": 100}
    made = ContextBranch(ContextConfig("scratch", "toy", short), 4)
    with pytest.raises(TrainingError, match="150 frames"):
        made(waveforms(1, 144_000))


def test_z_norm_is_a_setting_of_the_waveform_family() -> None:
    x = waveforms()
    for normalise, level, same in (
        (None, "full scale", True), (True, "full scale", True), (False, "full scale", False), (False, "clip", True)
    ):  # fmt: skip
        settings = {"normalise": normalise, "level": level}
        made = branch("wavlm", **settings, freeze_feature_encoder=False, unfrozen_layers=-1)
        assert torch.allclose(made.features(10 * x), made.features(x), atol=1e-3) == same
    assert load_encoder(config("whisper")).normalise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer_weights"),
    # Those of wav2vec 2.0 and Whisper are in tests/export/test_onnx.py.
    [("hubert", False), ("data2vec-audio", False), ("wavlm-large", True)],
)
def test_every_family_exports_to_onnx(name: str, layer_weights: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx_export = pytest.importorskip("export.onnx")
    from ser_batch.clips import ClipRule

    # The fewest layers that have all that a family does: WavLM's second takes the position bias of its first.
    few = {"conv_dim": [8] * 3, "conv_kernel": [10, 8, 8], "conv_stride": [5, 8, 8]}
    layers = {"num_hidden_layers": 2 if name == "wavlm-large" else 1}
    pooling = "mean+std" if layer_weights else "mean"
    changes = {"layer_weights": layer_weights, "pooling": pooling, "normalise": True}
    made = branch(name, architecture=ARCHITECTURES[name] | few | layers, **changes)
    exported = onnx_export.export_branch(
        made, tmp_path / "toy.onnx", name="toy", labels=("a", "b", "c", "d"), clip=ClipRule(samples=SAMPLES)
    )
    assert exported.max_difference <= 1e-4
    assert np.ptp(exported.probabilities, axis=0).max() > 1e-3, "probabilities do not depend on the clip"
