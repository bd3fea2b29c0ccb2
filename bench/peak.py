"""The fastest matrix product of this machine, and the floating point operations that a clip takes: two a multiply-add.

The first is measured in the same run as the engines that are compared with it, in a process of its own (`python -m
bench.peak`), so that neither torch's memory nor its threads touch the benchmark. The second is counted from an ONNX
graph: convolutions and matrix products are over 99 % of both branches, elementwise work is not counted. Graphs with
operators whose products cannot be counted here are refused, so that no count is too small in silence.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError
from ser_batch.strict_json import decode, parse

_log = logging.getLogger(__name__)
REPEATS = 5
SECONDS = 1.0
"""Spent on one library and precision, at most, after its first product."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Precision → torch's name of it."""
TF32 = "tf32"
"""CUDA libraries may use it for "fp32" products; here it counts as another precision."""
_SIZES = {"cpu": 2048, "cuda": 8192}
_SMALL = 128
_PROBE, _TOO_LONG = 256, 0.5
"""On a CPU: the size tried first, and the seconds of a full product beyond which its rate is kept; some CPUs crawl in
float16."""
_PRODUCTS = {"cpu": 1, "cuda": 10}
"""Products queued together, so that submitting them does not count."""
Shapes = Mapping[str, tuple[int, ...]]
REFUSED = frozenset(
    {"Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "GroupQueryAttention", "If", "LSTM"}
    | {"Loop", "MatMulInteger", "MultiHeadAttention", "QLinearConv", "QLinearMatMul", "RNN", "STFT", "Scan", "DFT"}
)
"""Operators with products inside that this module does not count."""


@dataclass(frozen=True)
class Peak:
    """Best rate of one square matrix product."""

    library: str
    precision: str
    device: str
    size: int
    """Rows and columns of the two matrices."""
    flops: float
    """Operations per second, a multiplication and an addition counting as two."""


def measure_peaks(device: str = "cpu", small: bool = False) -> list[Peak]:
    """Peaks of every precision at hand on `device` ("cpu" or "cuda"), measured in a child process.

    Args:
        small: use matrices too small to show the machine's peak, to rehearse a measurement.

    Raises:
        EngineError: the child failed.
    """
    command = [sys.executable, "-m", "bench.peak", device, *(["small"] if small else [])]
    _log.info("measuring how fast this machine multiplies matrices, to compare with")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise EngineError(f"the peak of a matrix product cannot be measured on {device}", got=reason)
    where = "the output of `python -m bench.peak`"
    peaks = parse(done.stdout.strip().rpartition("\n")[2], where, EngineError)
    return [decode(Peak, peak, where, EngineError) for peak in peaks]


def best(peaks: Sequence[Peak], precision: str, device: str) -> Peak | None:
    """The fastest of `peaks` in that precision on that device; None if it was not measured."""
    fitting = [peak for peak in peaks if (peak.precision, peak.device) == (precision, device)]
    return max(fitting, key=lambda peak: peak.flops, default=None)


def best_rate(multiply: Callable[[], object], size: int) -> float:
    """Operations per second of the fastest of `REPEATS` calls, fewer where they take long; the first is warm-up."""
    multiply()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < SECONDS:
        started = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def numpy_peak(size: int = _SIZES["cpu"]) -> Peak:
    """numpy's product in float32."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, size, size), dtype=np.float32)
    out = np.empty((size, size), dtype=np.float32)
    return Peak("numpy", "fp32", "cpu", size, best_rate(lambda: np.matmul(left, right, out=out), size))


def check_device(device: str) -> None:
    """EngineError if `device` is neither "cpu" nor "cuda", or is "cuda" and torch sees no GPU."""
    import torch

    if device not in ("cpu", "cuda"):
        raise EngineError("torch is measured on no such device", got=device, expected="cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch sees no CUDA device here", got=f"torch {torch.__version__}", expected="an NVIDIA GPU")


def torch_peaks(device: str, size: int | None = None) -> list[Peak]:
    """torch's product in each precision on `device`; EngineError as `check_device`."""
    import torch

    check_device(device)
    size, peaks = size or _SIZES[device], []
    for precision in [*DTYPES, *([TF32] if device == "cuda" else [])]:
        torch.backends.cuda.matmul.allow_tf32 = precision == TF32
        dtype = DTYPES.get(precision, "float32")
        measured = min(_PROBE, size) if device == "cpu" else size
        rate = _torch_rate(device, dtype, measured)
        if measured < size and 2 * size**3 / rate < _TOO_LONG:
            measured, rate = size, _torch_rate(device, dtype, size)
        peaks.append(Peak("torch", precision, device, measured, rate))
    return peaks


def _torch_rate(device: str, dtype: str, size: int) -> float:
    import torch

    # Random values, since a product of zeros draws less power and runs faster than any real one.
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    products = _PRODUCTS[device]

    def multiply() -> None:
        for _ in range(products):
            torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        return products * best_rate(multiply, size)


def _main(device: str, size: int | None) -> None:
    peaks = [numpy_peak(size or _SIZES["cpu"])] if device == "cpu" else []
    if importlib.util.find_spec("torch") is not None:
        peaks += torch_peaks(device, size)
    sys.stdout.write(json.dumps([asdict(peak) for peak in peaks]) + "\n")


@dataclass(frozen=True)
class FlopCount:
    """Operations of one clip through one graph."""

    by_operator: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_operator.values())


def count_bundle(bundle: Bundle) -> dict[str, FlopCount]:
    """Branch name → operations of one clip. EngineError as `count_flops`."""
    return {branch.name: count_flops(bundle.path(branch.file)) for branch in bundle.manifest.branches}


def count_flops(path: Path) -> FlopCount:
    """Operations of a batch of one through the graph at `path`.

    Raises:
        EngineError: onnx is missing, a shape cannot be inferred, or an operator is in `REFUSED`.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineError(
            "counting operations needs onnx", got=error, remedy="Install it: pip install 'ser-batch[export]'."
        ) from error
    model = onnx.load(path)
    shapes = _shapes(model)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in REFUSED:
            raise EngineError(f"{path} holds an operator whose work is not counted", got=f"{node.op_type} {node.name}")
        if count := _COUNTED.get(node.op_type):
            try:
                counts[node.op_type] = counts.get(node.op_type, 0) + count(node, shapes)
            except KeyError as missing:
                raise EngineError(f"{path}: the shape of {missing} cannot be inferred") from missing
    return FlopCount(counts)


def _shapes(model: Any) -> Shapes:
    """Name → shape of every tensor whose shape is known for a batch of one."""
    import onnx

    for tensor in model.graph.input:
        for dimension in tensor.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = 1
    # What the exporter noted still has its own free batch dimension.
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            shapes[value.name] = tuple(d.dim_value for d in dimensions)
    return shapes


def _conv(node: Any, shapes: Shapes) -> int:
    # The weight is (out, in / groups, kernel…): one output value is a product over all but its first axis.
    return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _matmul(node: Any, shapes: Shapes) -> int:
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: Any, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_COUNTED: dict[str, Callable[[Any, Shapes], int]] = {"Conv": _conv, "MatMul": _matmul, "Gemm": _gemm}


if __name__ == "__main__":
    _main(sys.argv[1], _SMALL if "small" in sys.argv[2:] else None)
