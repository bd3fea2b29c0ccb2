"""What a precision must hold to pass, stated before anything is measured.

On the reference clips, which are few and synthetic, |Δp| from torch shows arithmetic that is wrong. How often a label
changes shows on labelled speech alone, against onnxruntime in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Bounds of one precision, each inclusive."""

    max_difference: float
    """Largest |Δp| of any output on the reference clips, and in fp32 on labelled speech too."""
    flip_rate: float
    """Share of labelled clips whose fused label is another one; in fp32 of every output."""


GATES: Mapping[str, Gate] = {
    "fp32": Gate(1e-4, 0.0),
    "fp16": Gate(5e-2, 0.005),
    "bf16": Gate(5e-2, 0.005),
    "int8": Gate(2e-1, 0.02),
}
"""Sound fp32 runtimes were measured at 1e-7 to 3e-5, and bf16 at up to 2e-2 with the front-ends in fp32."""
EXACT = "fp32"
"""The precision that must equal what was trained."""
