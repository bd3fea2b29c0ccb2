"""The spectrogram branch: every shape the paper names, and standardisation from training clips only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.config import SpectrogramConfig  # noqa: E402
from training.models.spectrogram import SpectrogramBranch, Standardise, sinusoids  # noqa: E402

CLASSES = 8
ANCESTOR = {"norm": "post", "positions": "none", "residual_mean": False, "balance": False}
FORMS = {
    "ours": SpectrogramConfig(),
    "ancestor": SpectrogramConfig(**ANCESTOR),
    "learned positions": SpectrogramConfig(positions="learned"),
}


@pytest.fixture(scope="module", params=FORMS)
def branch(request: pytest.FixtureRequest) -> SpectrogramBranch:
    torch.manual_seed(0)
    branch = SpectrogramBranch(FORMS[request.param], CLASSES).eval()
    branch.standardise.fit(branch.features(waveforms(4, seed=9)))
    return branch


def waveforms(count: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(count, 144_000, generator=torch.Generator().manual_seed(seed))


def shapes_seen(branch: SpectrogramBranch, batch: int = 2) -> dict[str, list[tuple[int, ...]]]:
    """Shapes that went in and out of every part, by forward hooks; the batch axis left out."""
    seen: dict[str, list[tuple[int, ...]]] = {}

    def watch(name: str) -> object:
        def hook(_: object, inputs: tuple, output: object) -> None:
            tensors = [*inputs, output[0] if isinstance(output, tuple) else output]
            seen[name] = [tuple(t.shape[1:]) for t in tensors]

        return hook

    handles = [part.register_forward_hook(watch(name)) for name, part in branch.named_modules() if name]
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path calls no hooks
    try:
        branch(waveforms(batch))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        for handle in handles:
            handle.remove()
    return seen


def test_every_shape_of_the_paper(branch: SpectrogramBranch) -> None:
    seen = shapes_seen(branch)
    assert seen["frontend"] == [(144_000,), (128, 278)]
    assert seen["cnn"][0] == (1, 128, 278)
    blocks = [seen[f"cnn.{i}"][-1] for i in range(4)]
    assert blocks == [(16, 64, 139), (32, 32, 69), (64, 16, 34), (64, 8, 17)]
    assert seen["pool"] == [(1, 128, 278), (1, 64, 69)]  # 64 × 69 …
    assert seen["transformer"] == [(69, 64), (69, 64)]  # … as 69 steps of d 64
    assert [seen[f"transformer.layers.{i}"][-1] for i in range(4)] == [(69, 64)] * 4
    assert "transformer.layers.4" not in seen
    assert seen["query"] == [(8704,), (64,)]
    assert seen["cross_attention"] == [(1, 64), (69, 64), (69, 64), (1, 64)]
    assert seen["classifier"] == [(8768,), (CLASSES,)]


def test_parts_of_the_paper(branch: SpectrogramBranch) -> None:
    for block in branch.cnn:
        kinds = [type(part).__name__ for part in block.body]
        assert kinds.count("Conv2d") == 2 and kinds.count("BatchNorm2d") == 2 and "ReLU" in kinds
    layer = branch.transformer.layers[0]
    assert layer.self_attn.num_heads == branch.cross_attention.num_heads == 4
    assert layer.linear1.out_features == 512 and layer.dropout.p == 0.4
    assert layer.norm_first == (branch.config.norm == "pre") == (branch.transformer.norm is not None)


def test_forward_is_head_of_features(branch: SpectrogramBranch) -> None:
    x = waveforms(3)
    with torch.no_grad():
        torch.testing.assert_close(branch(x), branch.head(branch.features(x)), atol=0, rtol=0)


def test_a_clip_alone_is_the_same_clip_in_a_batch(branch: SpectrogramBranch) -> None:
    x = torch.cat([waveforms(2), 1e-4 * waveforms(1, seed=1), torch.zeros(1, 144_000)])
    with torch.no_grad():
        together = branch(x)
        alone = torch.cat([branch(clip[None]) for clip in x])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3, "logits do not depend on the clip"


@pytest.mark.parametrize("part", ["cnn.0.body.0", "query", "transformer.layers.0.linear1", "classifier"])
def test_gradients_reach_every_part(branch: SpectrogramBranch, part: str) -> None:
    branch.zero_grad()
    branch(waveforms(2)).square().sum().backward()
    assert branch.get_submodule(part).weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [("pixel", (128, 278), (0,)), ("bin", (128, 1), (0, 2)), ("global", (1, 1), (0, 1, 2))],
)
def test_standardisation_is_of_the_training_clips(kind: str, shape: tuple[int, int], axes: tuple[int, ...]) -> None:
    config = dataclasses.replace(SpectrogramConfig(), standardise=kind)
    branch = SpectrogramBranch(config, CLASSES)
    training = torch.randn(6, 128, 278, generator=torch.Generator().manual_seed(0)) * 20 - 40
    branch.standardise.fit(training)
    reference = training.double().numpy()
    assert branch.standardise.mean.shape == branch.standardise.std.shape == shape
    np.testing.assert_allclose(branch.standardise.mean.numpy().squeeze(), reference.mean(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(branch.standardise.std.numpy().squeeze(), reference.std(axis=axes), rtol=1e-5)

    batched = SpectrogramBranch(config, CLASSES).standardise
    batched.fit(training.split(4))
    for key, value in batched.state_dict().items():
        torch.testing.assert_close(value, branch.standardise.state_dict()[key])

    before = {key: value.clone() for key, value in branch.standardise.state_dict().items()}
    for mode in (branch.train(), branch.eval()):  # neither training nor serving moves them
        mode.head(torch.full((2, 128, 278), 7.0))
    assert before.keys() == {"mean", "std"}
    for key, value in branch.standardise.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=0, rtol=0)


def test_standardised_training_clips_have_mean_0_and_deviation_1() -> None:
    part, x = Standardise((4, 5)), torch.randn(50, 4, 5) * 3 + 2
    part.fit(x)
    y = part(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(4, 5), atol=1e-5, rtol=0)


def test_a_pixel_that_never_moves_stays_finite() -> None:
    part = Standardise((1, 1))
    part.fit(torch.full((3, 4, 5), -100.0))
    assert torch.isfinite(part(torch.full((1, 4, 5), -99.0))).all()


def test_statistics_travel_with_the_weights(branch: SpectrogramBranch) -> None:
    other = SpectrogramBranch(branch.config, CLASSES).eval()
    other.load_state_dict(branch.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(waveforms(1)), branch(waveforms(1)))


def test_balanced_parts_have_the_same_norm() -> None:
    branch = SpectrogramBranch(FORMS["ours"], CLASSES).eval()
    views = branch.views(branch.features(waveforms(2)))
    for part in (views.local, views.attended):
        torch.testing.assert_close(part.norm(dim=1), torch.full((2,), 8.0), atol=0.05, rtol=0)


def test_without_layers_it_is_the_cnn_alone() -> None:
    branch = SpectrogramBranch(SpectrogramConfig(layers=0), classes=8).eval()
    whole = SpectrogramBranch(SpectrogramConfig(), classes=8)
    assert {name.split(".")[0] for name, _ in branch.named_parameters()} == {"cnn", "classifier"}
    assert branch.classifier.in_features == 8704 and whole.classifier.in_features == 8704 + 64
    assert branch(waveforms(2)).shape == (2, 8)


def test_positions_are_those_of_vaswani() -> None:
    table = sinusoids(69, 64).numpy()
    step, pair = 17, 5
    angle = step / 10_000 ** (2 * pair / 64)
    np.testing.assert_allclose(table[step, [pair, 32 + pair]], [np.sin(angle), np.cos(angle)], atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned"])
def test_only_positions_tell_an_order(positions: str) -> None:
    torch.manual_seed(0)
    branch = SpectrogramBranch(SpectrogramConfig(positions=positions), CLASSES).eval()
    branch.query.weight.data.zero_()  # the CNN, which asks, can tell an order
    frames = torch.randn(1, 128, 69, 4, generator=torch.Generator().manual_seed(0))
    there, back = (
        branch.views(torch.nn.functional.pad(steps.reshape(1, 128, 276), (0, 2))).attended
        for steps in (frames, frames.flip(2))
    )
    assert torch.allclose(there, back, atol=1e-4) == (positions == "none")


def test_the_ancestors_form_has_the_tensors_of_runs_before_there_were_forms() -> None:
    names = set(SpectrogramBranch(FORMS["ancestor"], CLASSES).state_dict())
    assert {name.split(".")[0] for name in names} == {
        "standardise", "cnn", "transformer", "query", "cross_attention", "classifier"
    }  # fmt: skip
    assert "transformer.norm.weight" not in names
