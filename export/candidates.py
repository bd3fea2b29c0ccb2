"""Everything that can stand beside a bundle's stored probabilities here: torch, each runtime, emulated precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import available_backends, backend_version, open_engine, precisions
from ser_batch.engines.protocol import Engine
from ser_batch.errors import SerError

if TYPE_CHECKING:
    from training.runs import Run

EMULATED = ("fp16", "bf16")
FROM_FP32 = frozenset({("openvino", "bf16")})
"""What a runtime makes of the fp32 graph by itself."""


@dataclass(frozen=True)
class Candidate:
    """One runtime in one precision, not yet opened."""

    backend: str
    """"onnxruntime", or what is no backend of a run: "torch", "emulated"."""
    precision: str
    version: str
    open: Callable[[], Engine]
    graphs: Mapping[str, str] = field(default_factory=dict)
    """File of the bundle → sha256, of each graph of lower precision that it reads."""

    @property
    def key(self) -> tuple[str, str]:
        """Backend and precision."""
        return self.backend, self.precision


@dataclass
class Candidates:
    """What can be compared, and what cannot."""

    found: list[Candidate] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Runtime, or runtime and precision → why it cannot be compared here."""
    failures: list[str] = field(default_factory=list)
    """Runtimes that were asked for and are not there."""


def candidates(
    bundle: Bundle, backends: Sequence[str] | None = None, threads: int | None = None, run: Run | None = None
) -> Candidates:
    """List what `bundle` can be compared in.

    Args:
        backends: runtimes, each of which must be there; None: every one installed, and emulations of the precisions
            that the bundle has graphs in.
        threads: CPU threads of a runtime; None leaves the choice to it.
        run: the trained run, for torch.
    """
    listed, reasons = Candidates(), available_backends()
    if run is not None:
        listed.found.append(_torch(run))
    chosen = [name for name, reason in reasons.items() if reason is None] if backends is None else backends
    listed.absent.update({name: why for name, why in reasons.items() if why is not None and name not in chosen})
    for backend in dict.fromkeys(chosen):
        try:
            supported = precisions(backend)
        except SerError as error:
            listed.failures.append(f"{backend}: {error}")
            continue
        for precision, reason in supported.items():
            if reason is not None:
                listed.absent[f"{backend} {precision}"] = reason
            else:
                listed.found.append(_runtime(bundle, backend, precision, threads))
    if backends is None and "onnxruntime" in chosen:
        listed.found += [_emulation(bundle, p, threads) for p in EMULATED if has_graphs(bundle, p)]
    return listed


def has_graphs(bundle: Bundle, precision: str) -> bool:
    """Whether the bundle holds every branch's graph in a lower precision."""
    return len(derived_graphs(bundle, precision)) == len(bundle.manifest.branches)


def derived_graphs(bundle: Bundle, precision: str) -> dict[str, str]:
    """File → sha256 of the branches' graphs in a lower precision, as far as the bundle holds them."""
    members = [f"precisions/{precision}/{branch.name}.onnx" for branch in bundle.manifest.branches]
    return {member: bundle.manifest.files[member] for member in members if member in bundle.manifest.files}


def _runtime(bundle: Bundle, backend: str, precision: str, threads: int | None) -> Candidate:
    return Candidate(
        backend,
        precision,
        backend_version(backend),
        open=lambda: open_engine(bundle, backend, threads, precision),
        graphs={} if (backend, precision) in FROM_FP32 else derived_graphs(bundle, precision),
    )


def _emulation(bundle: Bundle, precision: str, threads: int | None) -> Candidate:
    def open_emulated() -> Engine:
        # Imported here: it needs onnx, which verifying in a runtime does not.
        from export.emulation import EmulatedEngine

        return EmulatedEngine(bundle, precision, threads)

    graphs = derived_graphs(bundle, precision)
    return Candidate("emulated", precision, backend_version("onnxruntime"), open_emulated, graphs)


def _torch(run: Run) -> Candidate:
    def open_torch() -> Engine:
        from export.torch_engine import TorchEngine

        return TorchEngine(run)

    return Candidate("torch", "fp32", version("torch"), open_torch)
