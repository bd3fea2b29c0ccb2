"""TensorRT as a peer: engines built on the machine that is measured, for its GPU."""

from __future__ import annotations

from export.tensorrt import build_engines, choose_library
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import Engine, open_engine
from ser_batch.engines.cuda import open_cuda_device

PROFILES = (1, 8, 64)
"""Batch sizes of the engines, which cut larger batches."""


def build_here(bundle: Bundle) -> Engine:
    """Engines in fp32 for the first GPU, added to `bundle` and opened; native TensorRT, else the one for RTX.

    Raises:
        SerError: there is no GPU or no library, or the library does not build for this GPU, as RTX's for an H200.
    """
    device = open_cuda_device()
    capability = device.compute_capability
    device.close()
    gpus = [capability] if choose_library("auto").ahead_of_time else []
    built = build_engines(bundle, precision="fp32", batches=PROFILES, gpus=gpus, replace=True)
    return open_engine(built.bundle, "trt", precision="fp32")
