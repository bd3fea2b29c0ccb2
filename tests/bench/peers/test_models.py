from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from bench.peers.models import random_branches
from ser_batch.errors import InputError


def test_weights_follow_from_the_seed():
    branches, again, other = (random_branches("small", seed=seed)[1] for seed in (1, 1, 2))
    for name, branch in branches.items():
        same = [torch.equal(a, b) for a, b in zip(branch.parameters(), again[name].parameters(), strict=True)]
        assert all(same)
        assert not all(torch.equal(a, b) for a, b in zip(branch.parameters(), other[name].parameters(), strict=True))
    with pytest.raises(InputError, match="no model of that size"):
        random_branches("huge")
