from __future__ import annotations

import subprocess
import sys

import pytest

from ser_batch.engines.tensorrt.library import LIBRARIES, RTX, load, make_log, version
from support import fake_tensorrt

needs_rtx = pytest.mark.skipif(not RTX.installed(), reason="TensorRT for RTX is not installed")


def test_native_is_preferred() -> None:
    assert list(LIBRARIES) == ["trt", "trt-rtx"]


@needs_rtx
def test_asking_whether_it_is_installed_does_not_import_it() -> None:
    script = (
        "import sys; from ser_batch.engines.tensorrt.library import RTX; from ser_batch.engines.tensorrt import engine;"
        "assert RTX.installed(); engine.unavailable(); print(any(n.startswith('tensorrt_rtx') for n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@needs_rtx
@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fake_tensorrt._Context, "IExecutionContext"),
        (fake_tensorrt._Engine, "ICudaEngine"),
        (fake_tensorrt._Config, "IBuilderConfig"),
        (fake_tensorrt._Builder, "Builder"),
        (fake_tensorrt._Profile, "IOptimizationProfile"),
        (fake_tensorrt._Network, "INetworkDefinition"),
        (fake_tensorrt._Parser, "OnnxParser"),
        (fake_tensorrt._Runtime, "Runtime"),
    ],
)
def test_the_fake_that_other_tests_use_has_nothing_that_the_library_lacks(fake: type, real: str) -> None:
    names = {name for name in vars(fake) if not name.startswith("_")}
    assert names <= set(dir(getattr(load(RTX), real)))


@needs_rtx
def test_the_library_has_every_constant_that_is_used() -> None:
    trt = load(RTX)
    for owner, name in (
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("BuilderFlag", "TF32"),
        ("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
        ("ExecutionContextAllocationStrategy", "USER_MANAGED"),
        ("DynamicShapesKernelSpecializationStrategy", "EAGER"),
        ("DataType", "FLOAT"),
        ("IExecutionContext", "is_stream_capturable"),
        ("ICudaEngine", "create_runtime_config"),
        ("IRuntimeConfig", "set_execution_context_allocation_strategy"),
        ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
    ):
        assert hasattr(getattr(trt, owner), name), f"{owner}.{name}"


@needs_rtx
def test_the_log_keeps_errors_and_nothing_else() -> None:
    trt = load(RTX)
    log = make_log(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine" * 20) is None
    assert any("magicTag" in line for line in log.errors)
    assert not any("Loaded engine size" in line for line in log.errors)
    assert version(trt).count(".") == 3
