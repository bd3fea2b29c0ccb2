"""torch as an engine: eager or compiled, in float32 or with weights and products in bfloat16 or float16.

In the short formats every torch.nn layer with parameters is cast, except batch norms; layers without keep float32. The
front-ends have none (their kernels are buffers), so decimation and log-mel stay exact.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.peak import DTYPES, check_device
from ser_batch.clips import Waveform
from ser_batch.errors import EngineError, InputError


class TorchEngine:
    """Branches as torch runs them, one after the other.

    Args:
        branches: name → module from waveform (B, samples) to logits (B, C); left as they are.
        precision: "fp32", "bf16" or "fp16".
        compiled: through torch.compile, whose first calls (one a batch size) are then slow.
        threads: of torch's CPU products, for the whole process; None leaves them.

    Raises:
        InputError: no such precision.
        EngineError: no GPU where one is asked for.
    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        *,
        device: str = "cpu",
        precision: str = "fp32",
        compiled: bool = False,
        threads: int | None = None,
    ) -> None:
        if precision not in DTYPES:
            raise InputError("torch is measured in no such precision", got=precision, expected=", ".join(DTYPES))
        check_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = "torch compile" if compiled else "torch eager"
        self.precision, self.device = precision, device
        self._timings: dict[str, float] = {}
        self._branches = {name: _prepare(branch, device, precision) for name, branch in branches.items()}
        if compiled:
            # Compiled for each batch size, without the slower kernels of a free one; torch ends at eight of them.
            torch._dynamo.config.recompile_limit = 64
            # On a GPU the launches of a whole pass are recorded and played back, which small batches live by.
            mode = "reduce-overhead" if device == "cuda" else None
            self._branches = {k: torch.compile(v, dynamic=False, mode=mode) for k, v in self._branches.items()}
        if device == "cuda":
            # The same batch comes many times, so it pays to choose among convolutions; their fp32 is TF32 by default.
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = False

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name → (B, C) probabilities."""
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(waveform).to(self.device)
                copied = self._now()
                rows = {name: branch(batch).float().softmax(dim=1) for name, branch in self._branches.items()}
                queued = time.perf_counter()
                computed = self._now()
                found = {name: row.cpu().numpy() for name, row in rows.items()}
        except Exception as error:
            # torch's compiler and CUDA raise without a common class.
            raise EngineError(f"{self.name} failed", got=str(error).strip().partition("\n")[0]) from error
        self._timings = {"compute": computed - copied}
        if self.device == "cuda":
            self._timings |= {
                "host_to_device": copied - started,
                "enqueue": queued - copied,
                "device_to_host": time.perf_counter() - computed,
            }
        return found

    def timings(self) -> Mapping[str, float]:
        """Stage → seconds of the last run; copies and enqueueing on a GPU only."""
        return self._timings

    def device_memory(self) -> int:
        """Bytes that torch held on the GPU at most; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0

    def close(self) -> None:
        """Release the weights and the code compiled for them."""
        self._branches.clear()
        torch.compiler.reset()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _prepare(branch: nn.Module, device: str, precision: str) -> nn.Module:
    model = copy.deepcopy(branch).float().eval().to(device)
    dtype: torch.dtype = getattr(torch, DTYPES[precision])
    if dtype == torch.float32:
        return model
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if (
            own
            and type(module).__module__.startswith("torch.nn")
            and not isinstance(module, nn.modules.batchnorm._NormBase)
        ):
            for parameter in own:
                parameter.data = parameter.data.to(dtype)
            module.register_forward_pre_hook(_Cast(dtype), with_kwargs=True)
    return model


class _Cast:
    """Casts a layer's floating inputs to the type of its weights, unless they have it already."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return tuple(map(self._cast, args)), {key: self._cast(value) for key, value in kwargs.items()}

    def _cast(self, value: Any) -> Any:
        return value.to(self._dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
