"""A native TensorRT that is not there, on a fake GPU: its engines hold their graph, and ONNX Runtime does the sums.

`tests/ser_batch/engines/tensorrt/test_library.py` holds its names and arguments to those of the real bindings.
"""

from __future__ import annotations

import base64
import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from support.fake_gpu import FakeDevice


class Dims:
    """As in TensorRT, neither a tuple nor a list."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> int:
        return self._sizes[index]


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.addresses = engine, {}
        self.profile: int | None = None
        self.shape: tuple[int, ...] | None = None
        self.scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return index < len(self.engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        self.shape = shape
        return self.profile is not None and shape[0] == self.engine.profiles[self.profile]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in (tensor.name for tensor in self.engine.tensors)

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.trt.fails_to_execute:
            self.engine.log.log(self.engine.trt.ILogger.Severity.ERROR, "Cuda Runtime (an illegal memory access)")
            return False
        assert self.shape is not None and self.scratch is not None
        device, shape = self.engine.trt.device, self.shape
        assert device.size(self.scratch[0]) >= self.scratch[1] >= self.engine.device_memory_size_v2
        addresses = dict(self.addresses)

        def compute() -> None:
            waveform = device.view(addresses["waveform"], shape).copy()
            self.engine.trt.computed.append(waveform)
            outputs = self.engine.session.run(None, {"waveform": waveform})
            for tensor, rows in zip(self.engine.session.get_outputs(), outputs, strict=True):
                device.view(addresses[tensor.name], rows.shape)[:] = rows

        device.enqueue(stream, compute)
        return True


class _Engine:
    device_memory_size_v2 = 4096

    def __init__(self, trt: Any, plan: dict[str, Any], log: Any) -> None:
        self.trt, self.log = trt, log
        graph = base64.b64decode(plan["graph"])
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.profiles = plan["profiles"]
        self.num_optimization_profiles = len(self.profiles)
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index].name)

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims((-1, next(tensor.shape[1] for tensor in self.tensors if tensor.name == name)))

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT"

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Dims]:
        return [Dims((self.profiles[index], self.get_tensor_shape(name)[1]))] * 3

    def create_execution_context(self, strategy: str) -> _Context | None:
        assert strategy == "USER_MANAGED"
        return _Context(self)


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.graph = flags, b""

    def get_input(self, index: int) -> Any:
        dims = onnx.load_model_from_string(self.graph).graph.input[index].type.tensor_type.shape.dim
        return SimpleNamespace(name="waveform", shape=Dims((-1, dims[1].dim_value)))


class _Config:
    def __init__(self) -> None:
        self.flags, self.profiles, self.cache = {"TF32"}, [], None
        self.progress_monitor: Any = None

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile.shapes)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(content=content, serialize=lambda: content + b"measured;")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


class _Profile:
    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert name == "waveform"
        self.shapes = list(shapes)


class _Builder:
    def __init__(self, trt: Any, log: Any) -> None:
        if trt.refuses_builder:
            log.log(trt.ILogger.Severity.WARNING, trt.refuses_builder)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.trt, self.log = trt, log
        self.create_builder_config, self.create_optimization_profile = _Config, _Profile

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def build_serialized_network(self, network: _Network, config: _Config) -> Any:
        self.trt.built.append((network, config))
        if self.trt.refuses_build:
            self.log.log(self.trt.ILogger.Severity.ERROR, self.trt.refuses_build)
            return None
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        for step in range(2):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        sizes = [shapes[0][0] for shapes in config.profiles]
        return json.dumps({"graph": base64.b64encode(network.graph).decode(), "profiles": sizes}).encode()


class _Parser:
    def __init__(self, network: _Network, log: Any) -> None:
        self._network, self.num_errors = network, 0

    def parse(self, graph: bytes, path: str) -> bool:
        self._network.graph = graph
        return True


class _Runtime:
    def __init__(self, trt: Any, log: Any) -> None:
        if trt.refuses_runtime:
            log.log(trt.ILogger.Severity.WARNING, trt.refuses_runtime)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._trt, self._log = trt, log

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        try:
            return _Engine(self._trt, json.loads(plan), self._log)
        except ValueError:
            self._log.log(self._trt.ILogger.Severity.ERROR, "Serialization assertion failed: magicTag")
            return None


class _Interface:
    """What the bindings let a Python class derive from."""


class FakeTensorRt(ModuleType):
    """The module `tensorrt`, as much of it as is used, on a fake device."""

    def __init__(self, device: FakeDevice, version: str = "11.4.0.106") -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        self.device = device
        self.computed: list[np.ndarray] = []
        self.built: list[tuple[_Network, _Config]] = []
        self.fails_to_execute = False
        self.refuses_builder = self.refuses_build = self.refuses_runtime = ""
        severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)
        self.ILogger = type("ILogger", (_Interface,), {"Severity": severity})
        self.IProgressMonitor = type("IProgressMonitor", (_Interface,), {})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        self.DataType = SimpleNamespace(FLOAT="FLOAT")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
        self.OnnxParser = _Parser

    def Builder(self, log: Any) -> _Builder:  # noqa: N802
        return _Builder(self, log)

    def Runtime(self, log: Any) -> _Runtime:  # noqa: N802
        return _Runtime(self, log)
