"""torch's matrix product, in each precision."""

from __future__ import annotations

import torch

from bench.peak import Peak, best_rate
from ser_batch.errors import EngineError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TF32 = "tf32"
"""What CUDA libraries may use for "fp32" products; a precision of its own here."""
_SIZES = {"cpu": 2048, "cuda": 8192}
_PROBE, _TOO_LONG = 256, 0.5
"""On a CPU: size tried first, and seconds of one full product beyond which that rate stands; some crawl in float16."""
_PRODUCTS = {"cpu": 1, "cuda": 10}
"""Products queued together, so that submitting them does not count."""


def torch_peaks(device: str, size: int | None = None) -> list[Peak]:
    """Peak of each precision on `device`; EngineError where torch does not see a GPU that was asked for."""
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch sees no CUDA device here", got=f"torch {torch.__version__}", expected="an NVIDIA GPU")
    size = size or _SIZES[device]
    peaks = []
    for precision in [*PRECISIONS, *([TF32] if device == "cuda" else [])]:
        torch.backends.cuda.matmul.allow_tf32 = precision == TF32
        dtype = PRECISIONS.get(precision, torch.float32)
        measured = min(_PROBE, size) if device == "cpu" else size
        rate = _rate(device, dtype, measured)
        if measured < size and 2 * size**3 / rate < _TOO_LONG:
            measured, rate = size, _rate(device, dtype, size)
        peaks.append(Peak("torch", precision, device, measured, rate))
    return peaks


def _rate(device: str, dtype: torch.dtype, size: int) -> float:
    # Random values, since a product of zeros draws less power and runs faster than any real one.
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    products = _PRODUCTS[device]

    def multiply() -> None:
        for _ in range(products):
            torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        return products * best_rate(multiply, size)
