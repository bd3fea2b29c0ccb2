"""A check that code gives a GPU its work without waiting for it, on a machine without one."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")
"""Operators of ATen whose value, or whose result's shape, only the device knows."""


class NoValues(TorchDispatchMode):
    """Fails where one of `WAITING` is called."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator, unless it waits."""
        assert function.overloadpacket.__name__ not in WAITING, function
        return function(*args, **(kwargs or {}))
