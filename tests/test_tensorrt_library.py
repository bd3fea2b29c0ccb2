from __future__ import annotations

import subprocess
import sys

import pytest

from ser_batch.engines.tensorrt_library import LIBRARIES, RTX, load, make_log, version

needs_rtx = pytest.mark.skipif(not RTX.installed(), reason="TensorRT for RTX is not installed")


def test_native_is_preferred() -> None:
    assert list(LIBRARIES) == ["trt", "trt-rtx"]


@needs_rtx
def test_asking_whether_it_is_installed_does_not_import_it() -> None:
    script = (
        "import sys; from ser_batch.engines.tensorrt_library import RTX; from ser_batch.engines import tensorrt;"
        "assert RTX.installed(); tensorrt.unavailable(); print(any(n.startswith('tensorrt_rtx') for n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@needs_rtx
def test_the_log_keeps_errors_and_nothing_else() -> None:
    trt = load(RTX)
    log = make_log(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine" * 20) is None
    assert any("magicTag" in line for line in log.errors)
    assert not any("Loaded engine size" in line for line in log.errors)
    assert version(trt).count(".") == 3
