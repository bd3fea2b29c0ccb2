"""What a training runs with: a device, compilation, someone who watches, a folder of cached features.

None of it is part of a run's configuration, so a run may go on with another runtime than it began with.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ser_batch.errors import TrainingError

Progress = Callable[[str, dict[str, float]], None]
"""Called with a stage's name and its figures after every epoch."""
CPU = torch.device("cpu")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


@dataclass(frozen=True)
class Runtime:
    """What every stage of a training runs with."""

    device: torch.device = CPU
    compiled: bool = False
    """Compile the branches by torch.compile."""
    progress: Progress | None = None
    cache: Path | None = None
    """Folder of features that several runs share."""
    within: str = ""
    """What the stages are a part of, said before their names: "fold 1 of 2"; empty: the run itself."""

    def report(self, stage: str, row: dict[str, float]) -> None:
        """Tell whoever watches the figures of one epoch."""
        if self.progress:
            self.progress(f"{self.within}, {stage}" if self.within else stage, row)


def find_device(name: str) -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1"); TrainingError if this machine does not have it."""
    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in known and not (name == "cuda" and len(known) > 1):
        raise TrainingError("this machine has no such device", got=name, expected=f"one of {', '.join(known)}")
    if name != "cpu":
        # Features and figures are exact; `fast_products` says where a training step is not.
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    return torch.device(name)


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """TF32 for what a GPU multiplies in float32: for training steps, where autocast to bf16 leaves some."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv) if device.type == "cuda" else ()
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "tf32"
    try:
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a GPU copies it while the CPU goes on, from memory that is locked for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def has_room(tensor: Tensor, device: torch.device) -> bool:
    """Whether a tensor leaves half of a GPU's free memory to the training; a CPU has it already."""
    return device.type != "cuda" or tensor.nbytes < torch.cuda.mem_get_info(device)[0] / 2


def tune_cpu() -> None:
    """Set what makes training on this machine's CPU faster, and changes no result that matters."""
    keep_freed_memory()
    torch.set_flush_denormal(True)  # Adam's averages of small gradients decay into numbers that a CPU is slow with


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse large blocks; False where the C library is another one.

    glibc maps each large block anew and unmaps it when it is freed, so a training step on a CPU spends a third of
    its time on page faults: a step of the spectrogram branch took 0.8 s without this call and 0.5 s with it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
