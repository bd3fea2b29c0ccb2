from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from bench.peers.models import random_branches
from bench.peers.torch_engine import TorchEngine
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule
from ser_batch.errors import EngineError, InputError


@pytest.fixture(scope="module")
def branches() -> dict[str, torch.nn.Module]:
    return random_branches("small", seed=1)[1]


def clips(count: int = 3) -> np.ndarray:
    return synthetic_clips(ClipRule())[:count]


def test_torch_gives_what_the_branches_give(branches):
    engine = TorchEngine(branches)
    found = engine.run(clips())
    with torch.inference_mode():
        for name, branch in branches.items():
            expected = branch(torch.from_numpy(clips())).softmax(1).numpy()
            np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert set(engine.timings()) == {"compute"}  # nothing is copied on a CPU
    engine.close()


def test_short_formats_are_near_and_leave_front_ends_and_the_branch_alone(branches):
    exact, short = TorchEngine(branches), TorchEngine(branches, precision="bf16")
    kinds = {parameter.dtype for branch in short._branches.values() for parameter in branch.parameters()}
    buffers = {b.dtype for branch in short._branches.values() for b in branch.buffers() if b.is_floating_point()}
    assert torch.bfloat16 in kinds and buffers == {torch.float32}
    assert all(p.dtype == torch.float32 for branch in branches.values() for p in branch.parameters())
    expected, found = exact.run(clips()), short.run(clips())
    for name in branches:
        difference = np.abs(found[name] - expected[name]).max()
        assert 0 < difference < 0.05
        np.testing.assert_allclose(found[name].sum(axis=1), 1, atol=1e-5)


class Levels(torch.nn.Module):
    """Logits from the energy of a clip's eighths: little to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 3)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.linear(waveform.unflatten(1, (8, -1)).square().mean(dim=2).log1p())


def test_what_is_compiled_gives_what_the_branch_gives(monkeypatch):
    compiles = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **more: compiles(*given, **more, backend="eager"))  # no C++
    torch.manual_seed(0)
    branch = Levels()
    eager, compiled = TorchEngine({"levels": branch}), TorchEngine({"levels": branch}, compiled=True)
    assert compiled.name == "torch compile"
    np.testing.assert_allclose(compiled.run(clips())["levels"], eager.run(clips())["levels"], atol=1e-6)
    compiled.close()


def test_a_device_or_precision_that_is_not_there_is_refused(branches):
    with pytest.raises(InputError, match="no such precision"):
        TorchEngine(branches, precision="fp4")
    with pytest.raises(EngineError, match="no such device"):
        TorchEngine(branches, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="sees no CUDA device"):
            TorchEngine(branches, device="cuda")
