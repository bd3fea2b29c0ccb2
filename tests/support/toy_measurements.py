"""Results of `bench` as documents, made up rather than measured."""

from __future__ import annotations

from typing import Any

from bench import environment, results
from bench.backends import Agreement
from bench.latency import CLOSED, Measurement
from bench.peak import Peak
from bench.timing import Candidate, Series


def measurement(batch: int, seconds: float, bundle: str = "toy-000000000000") -> Measurement:
    """`batch` clips in so many seconds, three times."""
    total = Series.of([seconds] * 3)
    return Measurement(
        bundle=bundle,
        backend="onnxruntime",
        precision="fp32",
        device="cpu",
        target="fused",
        batch=batch,
        mode=CLOSED,
        warmup=3,
        stages={"total": total, "compute": total},
        clips_per_second=batch / seconds,
        real_time_factor=3 * batch / seconds,
        flops_per_clip=2_000_000_000,
        peak_share=0.5,
        peak_rss=2**20,
        device_memory=None,
        warnings=["unstable: <b>"],
    )


def latency_result(*measurements: Measurement) -> results.Document:
    """What `bench latency` would write of `measurements`, in the environment of now."""
    peaks = [Peak("numpy", "fp32", "cpu", 8, 1e9)]
    content = {"agreement": {"onnxruntime fp32": Agreement(6, 1e-6, 0)}, "absent": {"warp": "not installed"}}
    return results.document("latency", environment.describe(), measurements=list(measurements), peaks=peaks, **content)


def peers_result(*engines: tuple[str, float], **more: Any) -> results.Document:
    """What `bench peers` would write at base size: engine, clips/s at batch 8; at batch 1 the opposite order."""
    found = [Candidate(n, "cpu", "wav2vec2", 8, Series.of([1.0]), r, r / 4, 1e-4, 2, []) for n, r in engines]
    found += [Candidate(n, "cpu", "wav2vec2", 1, Series.of([1.0]), 1000 - r, 1.0, 0.0, 2, []) for n, r in engines]
    absent = {"trt": "no driver", "openvino:int8": f"bundle {len(engines)} has no int8 graph; expected /home/x"}
    content = {"candidates": found, "peaks": [], "absent": absent, "model": "random-base-0123", "target": "wav2vec2"}
    content |= more
    return results.document("peers", environment.describe(), **content)
