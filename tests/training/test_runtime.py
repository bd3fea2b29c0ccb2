from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.runtime import fast_products, has_room, upload  # noqa: E402

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_products_are_fast_inside_a_step_alone() -> None:
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [part.fp32_precision for part in parts]
    with fast_products(CPU):
        assert [part.fp32_precision for part in parts] == before
    with pytest.raises(ValueError), fast_products(GPU):
        assert [part.fp32_precision for part in parts] == ["tf32", "tf32"]
        raise ValueError
    assert [part.fp32_precision for part in parts] == before


def test_what_a_cpu_has_is_not_copied() -> None:
    tensor = torch.zeros(3)
    assert upload(tensor, CPU) is tensor and has_room(tensor, CPU)
