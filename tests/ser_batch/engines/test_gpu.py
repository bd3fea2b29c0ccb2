"""What only a GPU can show: both GPU backends give what numpy gives. Skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.tensorrt import build_engines, choose_library
from ser_batch.bundle.bundle import Bundle, default_root, load_bundle
from ser_batch.engines import available_backends, open_engine
from ser_batch.engines.cuda import no_gpu, open_cuda_device
from ser_batch.engines.protocol import Engine
from ser_batch.errors import ExportError
from support.toy import make_toy_bundle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(no_gpu() is not None, reason=f"no GPU: {no_gpu()}")]
TOLERANCE = 1e-4


def opened(bundle: Bundle, backend: str, out: Path) -> Engine:
    if (reason := available_backends()[backend]) is not None:
        pytest.skip(reason)
    if backend == "trt":
        device = open_cuda_device()
        gpus = [device.compute_capability] if choose_library("auto").ahead_of_time else []
        device.close()
        try:
            bundle = build_engines(bundle, precision="fp32", batches=(1, 4), gpus=gpus, out=out).bundle
        except ExportError as error:
            pytest.skip(str(error))  # TensorRT for RTX on a GPU that it does not build for
    return open_engine(bundle, backend, precision="fp32")


@pytest.mark.parametrize("backend", ["trt", "onnxruntime-cuda"])
@pytest.mark.parametrize("model", ["toy", "default"])
def test_it_gives_the_reference_in_any_batch(tmp_path: Path, backend: str, model: str) -> None:
    bundle = make_toy_bundle(tmp_path / "toy") if model == "toy" else load_bundle(default_root())
    engine, reference = opened(bundle, backend, tmp_path / "built"), bundle.reference()
    try:
        for count in (1, 2, 5, 6, 11):
            waveform = np.resize(reference.waveform, (count, reference.waveform.shape[1]))
            for name, rows in engine.run(waveform).items():
                expected = np.resize(reference.branches[name], rows.shape)
                np.testing.assert_allclose(rows, expected, atol=TOLERANCE, err_msg=f"{name}, {count} clips")
    finally:
        engine.close()
