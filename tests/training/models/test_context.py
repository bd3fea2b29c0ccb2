"""The context branch with wav2vec 2.0: small configs, and once at base size with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ser_batch.errors import TrainingError  # noqa: E402
from training.config import ContextConfig  # noqa: E402
from training.models.backbones import ZeroMeanUnitVariance  # noqa: E402
from training.models.context import ContextBranch  # noqa: E402

CLASSES, LAYERS = 8, 5
SMALL = {
    "conv_dim": [16] * 7,
    "hidden_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
SCRATCH = ContextConfig(backbone="scratch", architecture=SMALL)


def make(config: ContextConfig = SCRATCH, **changes: object) -> ContextBranch:
    torch.manual_seed(0)
    return ContextBranch(dataclasses.replace(config, **changes), CLASSES).eval()


def waveforms(count: int, seed: int = 0, samples: int = 144_000) -> torch.Tensor:
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def base() -> ContextBranch:
    return make(ContextConfig(backbone="scratch"))


def trained(branch: ContextBranch) -> set[str]:
    """Parts with trainable parameters: "classifier", "feature_projection", "layer 4" …"""
    names = [name for name, p in branch.named_parameters() if p.requires_grad]
    short = set()
    for name in names:
        piece = name.removeprefix("encoder.").split(".")
        short.add(f"layer {piece[2]}" if piece[:2] == ["encoder", "layers"] else piece[0])
    return short


@pytest.mark.parametrize("k", [0, 1, 3, LAYERS])
def test_the_top_k_layers_the_projection_and_the_head_are_trained(k: int) -> None:
    branch = make(unfrozen_layers=k)
    assert trained(branch) == {"classifier", "feature_projection"} | {f"layer {LAYERS - 1 - i}" for i in range(k)}
    for name, parameter in branch.named_parameters():  # whole parts, not single tensors
        if "feature_projection" in name or "classifier" in name or (k and f"encoder.layers.{LAYERS - 1}." in name):
            assert parameter.requires_grad, name


def test_minus_one_trains_the_whole_context_network_but_not_the_feature_encoder() -> None:
    branch = make(unfrozen_layers=-1)
    frozen = {name for name, p in branch.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("encoder.feature_extractor.") for name in frozen)
    assert all(p.requires_grad for p in make(unfrozen_layers=-1, freeze_feature_encoder=False).parameters())


@pytest.mark.parametrize("k", [LAYERS + 1, -2])
def test_more_layers_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(TrainingError, match=rf"got {k}.*{LAYERS}"):
        make(unfrozen_layers=k)


@pytest.mark.parametrize(
    "change", [{"pooling": "mean+std"}, {"pooling": "mean+std+thirds+deltas"}, {"layer_weights": True}, {"hidden": ()}]
)
def test_head_settings(change: dict[str, object]) -> None:
    """A setting either changes the branch or is refused; none is ignored."""
    x = waveforms(2)
    try:
        changed = make(**change)
    except TrainingError:
        return
    with torch.no_grad():
        assert not torch.equal(changed(x), make()(x))


def test_statistics_over_time() -> None:
    branch = make(pooling="mean+std+thirds+deltas")
    hidden = torch.randn(2, 50, branch.width, generator=torch.Generator().manual_seed(0))
    x = hidden.double().numpy()
    expected = [x.mean(axis=1), x.std(axis=1), x[:, :16].mean(axis=1), x[:, 16:33].mean(axis=1), x[:, 33:].mean(axis=1)]
    expected += [(x[:, step:] - x[:, :-step]).std(axis=1) for step in (1, 4)]
    found = branch._pool(hidden).double().numpy()
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-6)
    assert branch.classifier[0].in_features == found.shape[1] == 7 * branch.width


def test_dimensions_at_base_size(base: ContextBranch) -> None:
    seen = []
    handles = [
        part.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
        for part in (base.decimate, base.classifier[0], base.classifier[3], base.classifier[6])
    ]
    handles.append(base.classifier.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape))))
    with torch.no_grad():
        features = base.features(waveforms(1))
        base.head(features)
    for handle in handles:
        handle.remove()
    assert features.shape == (1, 512, 149)
    assert seen == [(1, 48_000), (1, 768), (1, 256), (1, 256), (1, CLASSES)]
    assert [type(part).__name__ for part in base.classifier] == [
        "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip
    assert all(part.p == 0.3 for part in base.classifier if isinstance(part, torch.nn.Dropout))
    assert len(base.encoder.encoder.layers) == 12
    assert trained(base) == {"classifier", "feature_projection", "layer 9", "layer 10", "layer 11"}


def test_state_dict_names_are_the_public_checkpoints(base: ContextBranch) -> None:
    with torch.device("meta"):  # names and shapes only
        plain = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()).state_dict()
    ours = base.encoder.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in plain.items()}
    assert {k.split(".")[0] for k in base.state_dict()} == {"encoder", "classifier"}
    for name in (  # as in facebook/wav2vec2-base
        "feature_extractor.conv_layers.0.layer_norm.weight",
        "feature_projection.projection.weight",
        "encoder.layers.11.attention.q_proj.weight",
        "encoder.layers.0.feed_forward.intermediate_dense.bias",
        "masked_spec_embed",
    ):
        assert name in ours


def test_forward_is_head_of_features_and_transformers_own_path() -> None:
    branch, x = make(), waveforms(2)
    with torch.no_grad():
        logits = branch(x)
        torch.testing.assert_close(branch.head(branch.features(x)), logits, atol=0, rtol=0)
        plain = branch.encoder(ZeroMeanUnitVariance()(branch.decimate(x))).last_hidden_state
        torch.testing.assert_close(branch.classifier(plain.mean(dim=1)), logits, atol=1e-5, rtol=1e-5)
        thawed = make(freeze_feature_encoder=False)
        assert thawed.features(x).shape == (2, 48_000)
        torch.testing.assert_close(thawed(x), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", [1.0, 1e-4, 0.0])
def test_z_norm_is_transformers_feature_extractor(level: float) -> None:
    x = level * (waveforms(1, samples=48_000)[0] + 0.01)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    expected = extractor(x.numpy().astype(np.float64), sampling_rate=16_000)["input_values"][0]
    np.testing.assert_allclose(ZeroMeanUnitVariance()(x[None])[0].numpy(), expected, atol=2e-5)


def test_a_clip_alone_is_the_same_clip_in_a_batch() -> None:
    branch, x = make(), torch.cat([waveforms(2), 1e-4 * waveforms(1, seed=1), torch.zeros(1, 144_000)])
    with torch.no_grad():
        together = branch(x)
        alone = torch.cat([branch(clip[None]) for clip in x])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[3]).abs().max() > 1e-5, "logits do not depend on the clip"


def test_loads_a_saved_checkpoint_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    saved = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SMALL))
    saved.save_pretrained(tmp_path)
    branch = make(ContextConfig(backbone=str(tmp_path)))
    for name, value in saved.state_dict().items():
        torch.testing.assert_close(branch.encoder.state_dict()[name], value, atol=0, rtol=0)
    assert trained(branch) == {"classifier", "feature_projection", "layer 2", "layer 3", "layer 4"}


def test_frozen_parts_get_no_gradient_and_the_others_do() -> None:
    branch = make(unfrozen_layers=1).train()
    branch(waveforms(2)).square().sum().backward()
    for name, parameter in branch.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("spec_augment", [False, True])
def test_frames_are_masked_in_training_only_where_asked(spec_augment: bool) -> None:
    quiet = {"layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    architecture = SMALL | quiet | {"feat_proj_dropout": 0.0, "mask_time_prob": 0.5}
    branch = make(architecture=architecture, spec_augment=spec_augment, dropout=0.0)
    features = branch.features(waveforms(2))
    with torch.no_grad():
        evaluated, masked = branch.head(features), branch.train().head(features)
    assert torch.allclose(evaluated, masked, atol=1e-6) != spec_augment


def test_layers_above_the_kept_ones_are_gone_and_the_rest_is_what_it_was() -> None:
    whole, short = make(), make(layers=3, unfrozen_layers=1)
    assert short.depth == 3 and len(short.family.layers(short.encoder)) == 3
    for name, tensor in short.encoder.state_dict().items():
        assert torch.equal(tensor, whole.encoder.state_dict()[name])
    assert trained(short) == {"classifier", "feature_projection", "layer 2"}
    with pytest.raises(TrainingError, match="layers counts Transformer layers from below"):
        make(layers=LAYERS + 1)


def test_layers_learn_slower_the_deeper_they_lie() -> None:
    branch = make(layers=3, unfrozen_layers=2)
    rates = {name: branch.rate(name, 0.1, 0.5) for name, p in branch.named_parameters() if p.requires_grad}
    assert {rates[name] for name in rates if name.startswith("classifier")} == {1.0}
    assert {rates[name] for name in rates if "layers.2." in name} == {0.1}
    assert {rates[name] for name in rates if "layers.1." in name} == {0.05}
    assert {rates[name] for name in rates if "feature_projection" in name} == {0.1 * 0.5**3}
