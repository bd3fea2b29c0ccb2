"""The GPUs an engine can be built for: named generations and compute capabilities.

Source: https://developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from ser_batch.errors import ExportError

GENERATIONS = {
    "turing": ("7.5",),
    "ampere": ("8.0", "8.6"),
    "ada": ("8.9",),
    "hopper": ("9.0",),
    "blackwell": ("12.0", "12.1"),
}
"""Generation → compute capabilities; of Blackwell those of its graphics cards, not of its data centre cards."""
DEFAULT = ("ampere", "ada", "blackwell")
"""Turing has no fp32 matrix products in TensorRT for RTX, and the front-ends of the branches are made of them."""
_NONE = ("NONE", "CURRENT")


@dataclass(frozen=True)
class Target:
    """What one engine is to run on."""

    name: str
    """For the folder of the engines: "ampere-ada"."""
    capabilities: tuple[str, ...]


def parse_target(gpus: Sequence[str], trt: ModuleType) -> Target:
    """The target that covers `gpus`, generations ("ada") or compute capabilities ("8.9"); none: `DEFAULT`.

    Args:
        trt: TensorRT for RTX, which knows what it can compile for.

    Raises:
        ExportError: no such generation or capability, or one it does not compile for.
    """
    known = {cap: name for name, caps in GENERATIONS.items() for cap in caps}
    capabilities: list[str] = []
    for gpu in (names := tuple(dict.fromkeys(gpu.lower() for gpu in gpus)) or DEFAULT):
        found = GENERATIONS.get(gpu, (gpu,) if gpu in known else ())
        if not found:
            raise ExportError(
                "there is no such GPU generation or compute capability",
                got=gpu,
                expected=", ".join([*GENERATIONS, *known]),
            )
        capabilities += [capability for capability in found if capability not in capabilities]
    supported = supported_capabilities(trt)
    refused = [capability for capability in capabilities if capability not in supported]
    if refused:
        raise ExportError(
            f"TensorRT for RTX {trt.__version__} does not build for compute capability {', '.join(refused)}",
            got=", ".join(names),
            expected=", ".join(supported),
            remedy="On such a GPU build with native TensorRT (--runtime trt), or run --backend onnxruntime-cuda.",
        )
    return Target("-".join(name.replace(".", "") if name in known else name for name in names), tuple(capabilities))


def supported_capabilities(trt: ModuleType) -> tuple[str, ...]:
    """What `trt` can compile for ahead of time, ascending: its enumeration has a member SM89 for 8.9."""
    members = [name.removeprefix("SM") for name in trt.ComputeCapability.__members__ if name not in _NONE]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(members, key=int))


def enumerator(capability: str, trt: ModuleType) -> object:
    """The member of `trt`'s enumeration for a capability that it supports."""
    return getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
