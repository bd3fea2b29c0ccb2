"""The engines that are measured, and what each costs in accuracy.

"openvino" means every precision that OpenVINO has here, "openvino:bf16" that one. An engine holds the whole bundle or
one of its branches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines import Engine, available_backends, open_engine, precisions
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import BundleError, EngineError, InputError
from ser_batch.verification.auto import current_speech


def check_backends(asked: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The backends to measure, each "name:precision", and why others are left out; none given means all that can run.

    Raises:
        EngineError: one that was asked for is unknown or cannot run here, or none can.
    """
    reasons = available_backends()
    known = [backend for backend, reason in reasons.items() if reason is None]
    chosen: list[str] = []
    absent = {} if asked else {backend: reason for backend, reason in reasons.items() if reason is not None}
    for wanted in asked or known:
        backend, _, precision = wanted.partition(":")
        if backend not in reasons:
            raise EngineError(f"there is no backend {backend!r}", expected=", ".join(reasons))
        if reasons[backend] is not None:
            raise EngineError(f"backend {backend} cannot run here: {reasons[backend]}")
        here = precisions(backend)
        if precision and precision not in here:
            raise EngineError(f"backend {backend} has no precision {precision!r}", expected=" or ".join(here))
        if precision and here[precision] is not None:
            raise EngineError(f"backend {backend} cannot run in {precision} here: {here[precision]}")
        for one, reason in here.items():
            if reason is None and precision in ("", one):
                chosen.append(f"{backend}:{one}")
            elif reason is not None:
                absent[f"{backend}:{one}"] = reason
    if not chosen:
        raise EngineError("no backend can run here", got="; ".join(f"{k}: {v}" for k, v in reasons.items()))
    return tuple(dict.fromkeys(chosen)), absent


def check_bundle(
    bundle: Bundle, asked: Sequence[str], threads: int | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """`check_backends`, less those that `bundle` has no graphs or engines for; each is opened once to find out.

    Raises:
        BundleError: a precision that was asked for has no graphs.
        EngineError: as `check_backends`, a precision that was asked for cannot be opened, or none of a backend can.
    """
    chosen, absent = check_backends(asked)
    able = []
    for backend in chosen:
        try:
            open_backend(bundle, backend, threads).close()
        except (BundleError, EngineError) as error:
            # What is installed and cannot run here is no reason not to measure the others, unless it was asked for.
            if backend in asked:
                raise
            absent[backend] = str(error)
        else:
            able.append(backend)
    if not able:
        raise EngineError("no backend can run this bundle here", got="; ".join(f"{k}: {v}" for k, v in absent.items()))
    for name in dict.fromkeys(wanted.partition(":")[0] for wanted in asked):
        if not any(each.startswith(f"{name}:") for each in able):
            got = "; ".join(f"{k}: {v}" for k, v in absent.items() if k.startswith(f"{name}:"))
            raise EngineError(f"{name} cannot run this bundle here", got=got)
    return tuple(able), absent


def open_backend(bundle: Bundle, backend: str, threads: int | None = None, batch: int = 1) -> Engine:
    """Open "name" or "name:precision" for batches of `batch` clips; EngineError as `open_engine`."""
    name, _, precision = backend.partition(":")
    return open_engine(bundle, name, threads, precision or None, batch)


def check_batch(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """EngineError for a batch that an engine of a fixed profile (`max_batch`) cannot take."""
    largest = getattr(engine, "max_batch", None)
    if largest is not None and max(batch_sizes) > largest:
        raise EngineError(
            f"{engine.name} was built for batches of at most {largest}",
            got=max(batch_sizes),
            remedy="Ask for smaller batches, or build an engine whose profile holds them.",
        )


def identity(bundle: Bundle, engine: Engine) -> dict[str, str]:
    """The fields that identify the bundle and the engine of a measurement."""
    return {"bundle": bundle.id, "backend": engine.name, "precision": engine.precision, "device": engine.device}


def branch_view(bundle: Bundle, target: str) -> Bundle:
    """`bundle` as an engine needs it to load `target` alone; its fusion no longer fits, so no scorer takes it.

    Raises:
        InputError: the bundle has no such branch.
    """
    if target == FUSED:
        return bundle
    chosen = tuple(branch for branch in bundle.manifest.branches if branch.name == target)
    if not chosen:
        raise InputError(f"{bundle.id} has no branch {target!r}", expected=" or ".join(targets_of(bundle)))
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, branches=chosen))


def targets_of(bundle: Bundle) -> tuple[str, ...]:
    """What can be timed of a bundle: each of its branches alone, then "fused"."""
    return (*(branch.name for branch in bundle.manifest.branches), FUSED)


@dataclass(frozen=True)
class Agreement:
    """Fused probabilities of an engine against what torch gave on the bundle's reference clips."""

    clips: int
    max_difference: float
    """Largest |Δp|."""
    flips: int
    """Clips that get another label."""


def agreement(bundle: Bundle, backends: Sequence[str], threads: int | None = None) -> dict[str, Agreement]:
    """Map "<engine> <precision>" to its agreement with the reference, for each backend."""
    reference = bundle.reference()
    found = {}
    for backend in backends:
        engine = open_backend(bundle, backend, threads)
        try:
            fused = Scorer(bundle, engine).score(reference.waveform).fused
        finally:
            engine.close()
        flips = int((fused.argmax(axis=1) != reference.fused.argmax(axis=1)).sum())
        difference = float(np.abs(fused - reference.fused).max())
        found[f"{engine.name} {engine.precision}"] = Agreement(len(fused), difference, flips)
    return found


@dataclass(frozen=True)
class Accuracy:
    """The fused output of one runtime in one precision on labelled speech."""

    corpus: str
    clips: int
    accuracy: float
    flips: int
    """Clips that get another label than in onnxruntime fp32."""


def speech_accuracy(bundle: Bundle) -> dict[str, Accuracy]:
    """Map "<engine> <precision>" to its accuracy on labelled speech, as the bundle's own certificate has it.

    It is empty for a bundle that `ser-batch verify` was not given labelled speech for. Entries about graphs that the
    bundle no longer holds are left out.

    Raises:
        InputError: the certificate is damaged.
    """
    return {
        f"{entry.backend} {entry.precision}": Accuracy(speech.corpus, speech.clips, output.accuracy, output.flips)
        for entry, speech in current_speech(bundle)
        for output in speech.outputs
        if output.output == FUSED
    }
