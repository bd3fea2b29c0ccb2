"""One branch's TensorRT engine on a GPU: deserialised, checked, and ready to be put on a stream.

TensorRT's advice for CUDA graphs is a context for each graph, all of them sharing one scratch memory
(https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ser_batch.bundle.manifest import Branch
from ser_batch.engines.cuda import Device, Handle
from ser_batch.engines.tensorrt.library import NO_DRIVER, make_log
from ser_batch.errors import EngineError

_NO_MEMORY = ("out of memory", "outofmemory")


class CompiledBranch:
    """The engine of one branch, deserialised.

    Args:
        plan: the engine's file, which the caller has checked against the bundle's sha256: it is code.
        profiles: batch sizes of its optimisation profiles.
        columns: second dimension of its input and of each of its outputs.

    Raises:
        EngineError: the runtime refuses it, or it has other tensors or profiles.
    """

    def __init__(
        self,
        trt: ModuleType,
        branch: Branch,
        plan: bytes,
        profiles: Sequence[int],
        columns: Mapping[str, int],
        device: Device,
    ) -> None:
        self.name, self.profiles = branch.name, tuple(profiles)
        self.outputs = {name: size for name, size in columns.items() if name != branch.input}
        """Output -> its second dimension."""
        self.stream: Handle = device.stream()
        self._trt, self._branch, self._device = trt, branch, device
        self._log = make_log(trt)
        try:
            # An attribute, because an engine does not outlive its runtime.
            self._runtime = trt.Runtime(self._log)
        except (RuntimeError, TypeError) as error:
            self._log.errors.append(str(error))
            raise self._refused("cannot be loaded") from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._refused("cannot be loaded")
        _check(trt, self._engine, branch, self.profiles, columns)
        # One for all contexts, enough for any profile: they run on one stream, so never side by side.
        self._scratch_size = max(int(self._engine.device_memory_size_v2), 1)
        self._scratch = device.allocate(self._scratch_size)

    def context(self, profile: int, waveform: int, outputs: Mapping[str, int]) -> Any:
        """A context for a batch of `profiles[profile]` clips from one address of the GPU to one for each output."""
        context = self._create_context()
        if context is None:
            raise self._refused("gives no context")
        batch = self.profiles[profile]
        samples = self._engine.get_tensor_shape(self._branch.input)[1]
        done = (
            context.set_optimization_profile_async(profile, self.stream)
            and context.set_input_shape(self._branch.input, (batch, samples))
            and context.set_tensor_address(self._branch.input, waveform)
            and all(context.set_tensor_address(name, address) for name, address in outputs.items())
        )
        if not done:
            raise self._refused(f"does not take a batch of {batch}")
        context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def enqueue(self, context: Any) -> None:
        """Put one batch on the branch's stream."""
        if not context.execute_async_v3(self.stream):
            raise self._refused("failed")

    def capturable(self, context: Any) -> bool:
        """Whether a graph can hold it; native TensorRT does not say, and can for graphs without host control flow."""
        return bool(context.is_stream_capturable(self.stream)) if hasattr(context, "is_stream_capturable") else True

    def close(self) -> None:
        """Release the engine; its memory is the device's."""
        self._engine = self._runtime = None

    def _create_context(self) -> Any:
        trt = self._trt
        own_memory = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return self._engine.create_execution_context(own_memory)
        # TensorRT for RTX compiles a shape's kernels when it first runs; a graph must not hold the provisional ones.
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(own_memory)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return self._engine.create_execution_context(config)

    def _refused(self, what: str) -> EngineError:
        lines = [" ".join(line.split()) for line in self._log.errors]
        text, remedy = " ".join(lines).lower(), "Build it again: ser-export trt --replace."
        if any(sign in text for sign in NO_DRIVER):
            remedy = "Install an NVIDIA driver that is new enough for it, or run another --backend."
        elif any(sign in text for sign in _NO_MEMORY):
            remedy = "Free the GPU's memory, or build engines of smaller batch sizes: ser-export trt --batch."
        return EngineError(f"the engine of branch {self.name} {what}", got=lines[0] if lines else None, remedy=remedy)


def _check(trt: ModuleType, engine: Any, branch: Branch, profiles: tuple[int, ...], columns: Mapping[str, int]) -> None:
    """Check an engine's tensors and profiles against what its sidecar and the bundle state."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    float32 = trt.DataType.FLOAT
    found = {name: (tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name) == float32) for name in names}
    expected = {name: ((-1, size), True) for name, size in columns.items()}
    if found != expected:
        raise EngineError(f"the engine of branch {branch.name} has other tensors", got=found, expected=expected)
    batches = tuple(
        engine.get_tensor_profile_shape(branch.input, index)[2][0] for index in range(engine.num_optimization_profiles)
    )
    if batches != profiles:
        raise EngineError(f"the engine of branch {branch.name} has other profiles", got=batches, expected=profiles)
