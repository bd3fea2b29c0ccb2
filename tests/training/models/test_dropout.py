import pytest
import torch
from torch import nn

from training.models.dropout import Dropout

IMAGES = torch.ones(4, 8, 33, 17)


@pytest.mark.parametrize("x", [torch.ones(7, 13, 5), IMAGES, IMAGES.to(memory_format=torch.channels_last)])
def test_drops_each_value_alike_and_keeps_the_mean(x):
    torch.manual_seed(0)
    draws = torch.stack([Dropout(0.3)(x) for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.7))}
    dropped = (draws == 0).double().mean(dim=0)
    assert abs(dropped.mean() - 0.3) < 5 * (0.21 / draws.numel()) ** 0.5
    assert (dropped - 0.3).abs().max() < 6 * (0.21 / 2000) ** 0.5


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1_000_000)) > 0).double() - 0.5
    for apart in range(1, 9):  # four values share a number of the generator
        assert abs((kept[apart:] * kept[:-apart]).mean()) < 5 * 0.25 / 1000


def test_the_gradient_passes_where_the_value_does():
    x = torch.randn(64, 8, 3, 5).to(memory_format=torch.channels_last).requires_grad_()
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_seed_repeats_it():
    x = torch.randn(1001)
    torch.manual_seed(3)
    first = Dropout(0.3)(x)
    state = torch.get_rng_state()
    second = Dropout(0.3)(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(Dropout(0.3)(x), second)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_agrees_with_torch_where_nothing_is_drawn(p):
    x = torch.randn(5, 6)
    ours, theirs = Dropout(p), nn.Dropout(p)
    if p != 0.3:
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), x)
    assert Dropout(0.3)(x.bfloat16()).dtype == torch.bfloat16
