"""A slot: the memory of one piece of a batch on its way through the GPU, all made once.

One upload feeds every branch, each branch computes on a stream of its own, and its few probabilities come back on
that stream. With two slots in turn, one piece is copied while another is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ser_batch.clips import Waveform
from ser_batch.engines.batching import Piece
from ser_batch.engines.compiled_branch import CompiledBranch
from ser_batch.engines.device import Device, Handle, Rows

_FLOAT = np.dtype(np.float32).itemsize


class Slot:
    """Buffers for the largest profile, and for each branch and profile what computes from them.

    Args:
        samples: of a clip.
        upload_stream: shared by all slots: copies queue up behind each other in any case.

    Raises:
        EngineError: the GPU has no memory left, or refuses an engine.
    """

    def __init__(self, branches: Sequence[CompiledBranch], samples: int, device: Device, upload_stream: Handle) -> None:
        self._device, self._branches, self._upload_stream = device, branches, upload_stream
        self._sizes = branches[0].profiles
        largest = self._sizes[-1]
        self._waveform = device.page_locked((largest, samples))
        self._on_device = device.allocate(largest * samples * _FLOAT)
        self._uploaded = device.event()
        self._done = {branch.name: device.event() for branch in branches}
        self._rows = {branch.name: device.page_locked((largest, branch.classes)) for branch in branches}
        self.graphs = 0
        """How many of its steps are CUDA graphs; the others are put on their stream call by call."""
        self._steps = {branch.name: self._prepare(branch) for branch in branches}

    def submit(self, waveform: Waveform, piece: Piece) -> None:
        """Start a piece of `waveform`; what was started before must have been collected."""
        size, clips = self._sizes[piece.profile], piece.stop - piece.start
        device, staged = self._device, self._waveform[:size]
        staged[:clips] = waveform[piece.start : piece.stop]
        # Silence, not what the last piece left there: what is computed for nothing should at least be the same.
        staged[clips:] = 0
        device.upload(staged, self._on_device, self._upload_stream)
        device.record(self._uploaded, self._upload_stream)
        for branch in self._branches:
            device.wait(branch.stream, self._uploaded)
            self._steps[branch.name][piece.profile]()
            device.record(self._done[branch.name], branch.stream)

    def collect(self, piece: Piece, results: dict[str, Rows]) -> None:
        """Wait for the piece and put its rows where they belong, padding left out."""
        for name, rows in self._rows.items():
            self._device.synchronize(self._done[name])
            results[name][piece.start : piece.stop] = rows[: piece.stop - piece.start]

    def _prepare(self, branch: CompiledBranch) -> list[Callable[[], None]]:
        """What to call for each profile."""
        output = self._device.allocate(self._sizes[-1] * branch.classes * _FLOAT)
        return [self._step(branch, profile, output) for profile in range(len(self._sizes))]

    def _step(self, branch: CompiledBranch, profile: int, output: int) -> Callable[[], None]:
        device, rows = self._device, self._rows[branch.name][: self._sizes[profile]]
        context = branch.context(profile, self._on_device, output)

        def compute() -> None:
            branch.enqueue(context)
            device.download(output, rows, branch.stream)

        # Once before it is captured: the first run allocates, and compiles kernels.
        compute()
        device.synchronize()
        if not branch.capturable(context):
            return compute
        graph = device.capture(branch.stream, compute)
        self.graphs += 1
        return lambda: device.launch(graph, branch.stream)
