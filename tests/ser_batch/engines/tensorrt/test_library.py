from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ser_batch.engines.tensorrt.library import LIBRARIES, RTX, load, make_log, version
from support import fake_tensorrt
from support.fake_gpu import FakeDevice
from support.tensorrt_interface import NATIVE, Bindings, Interface, read_interface, run_with
from support.tensorrt_interface import RTX as RTX_BINDINGS
from support.tensorrt_uses import find_uses

ROOT = Path(__file__).parents[4]
SOURCES = sorted([*ROOT.glob("export/tensorrt*.py"), *ROOT.glob("ser_batch/engines/tensorrt/*.py")])
RTX_ONLY = {
    # Asked for with hasattr.
    ("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
    ("IExecutionContext", "is_stream_capturable"),
    ("", "DynamicShapesKernelSpecializationStrategy"),
    # Used where that strategy is.
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
    # Used where GPUs are named, which native TensorRT refuses first.
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""What native TensorRT lacks."""

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


@pytest.fixture(scope="module", params=[NATIVE, RTX_BINDINGS], ids=lambda bindings: bindings.module)
def bindings(request: pytest.FixtureRequest) -> Bindings:
    return request.param


@pytest.fixture(scope="module")
def interface(bindings: Bindings, tmp_path_factory: pytest.TempPathFactory) -> Interface:
    return read_interface(bindings, tmp_path_factory.mktemp("stubs"))


def test_the_real_bindings_have_everything_that_the_code_uses(bindings: Bindings, interface: Interface) -> None:
    uses = find_uses(SOURCES, interface)
    assert {("ParserError", "node_name"), ("ITimingCache", "serialize"), ("", "__version__")} <= set(uses.names)
    missing = {name: places for name, places in uses.names.items() if not interface.has(*name)}
    assert set(missing) == (RTX_ONLY if bindings is NATIVE else set()), missing
    assert not uses.unknown, "a type that the walk does not find hides uses"
    assert [name for name in uses.stored - set(missing) if interface.kind(*name) != "settable"] == []
    for method, counts in uses.calls.items():
        takes = interface.arguments(*method)
        assert all(any(low <= count <= high for low, high in takes) for count in counts), (method, counts, takes)


def test_nothing_is_asked_for_that_is_in_every_library(bindings: Bindings, interface: Interface) -> None:
    assert find_uses(SOURCES, interface).asked <= RTX_ONLY


def test_a_use_of_what_is_not_there_is_found(interface: Interface, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "def build(trt, path):\n    parse(trt.Builder(trt.Log()).create_network(), path)\n\n\n"
        "def parse(network, hidden: Any):\n    network.get_input(0, 1).shapes\n"
    )
    uses = find_uses([tmp_path / "wrong.py"], interface)
    assert {name for name in uses.names if not interface.has(*name)} == {("", "Log"), ("ITensor", "shapes")}
    assert uses.calls["INetworkDefinition", "get_input"] == {2}
    assert interface.arguments("INetworkDefinition", "get_input") == [(1, 1)]
    assert uses.unknown == {"wrong.py:parse(hidden)"}


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
def test_the_fake_that_other_tests_use_has_nothing_that_the_library_lacks(
    interface: Interface, fake: type, real: str
) -> None:
    for name, member in vars(fake).items():
        if name.startswith("_"):
            continue
        assert interface.has(real, name), name
        if callable(member):
            parameters = inspect.signature(member).parameters.values()
            variable = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
            takes = {most for _, most in interface.arguments(real, name)}
            assert variable or len(parameters) - 1 in takes, (name, takes)


def test_the_fake_has_no_class_and_no_enumerator_that_the_library_lacks(interface: Interface) -> None:
    for owner, member in vars(fake_tensorrt.FakeTensorRt(FakeDevice())).items():
        if owner[0].isupper():
            assert interface.has("", owner), owner
            names = vars(member) if isinstance(member, SimpleNamespace) else {}
            assert [name for name in names if not interface.has(owner, name)] == [], owner


def test_native_tensorrt_without_a_driver_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    # The stubs create nothing, as the real library does then.
    if importlib.util.find_spec(NATIVE.libraries):
        pytest.skip("native TensorRT is installed")
    script = (
        "import importlib, sys; from pathlib import Path; from ser_batch.errors import ExportError\n"
        "from export.tensorrt_builder import Request, build_engine\n"
        "try:\n    build_engine(importlib.import_module(sys.argv[1]), Request('toy', Path('toy.onnx'), (1,), None))\n"
        "except ExportError as error:\n    print(error)"
    )
    said = run_with(NATIVE, tmp_path, script)
    assert said.startswith("there is no usable NVIDIA driver for building branch toy; got pybind11::init(): factory")


@needs_rtx
def test_the_log_keeps_errors_and_nothing_else() -> None:
    trt = load(RTX)
    log = make_log(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine" * 20) is None
    assert any("magicTag" in line for line in log.errors)
    assert not any("Loaded engine size" in line for line in log.errors)
    assert version(trt).count(".") == 3
