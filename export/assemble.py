"""A trained run → a bundle: every branch exported and compared, the fusion, reference clips, where it all came from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.model_card import licence_note, model_card, read_evaluation, read_robustness
from export.onnx import OPSET, Exported, export_branch, reference_of
from ser_batch.bundle import Bundle, write_bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.trust import KEY, parse_trust, read_trust
from ser_batch.errors import ExportError, OutputError, TrainingError
from ser_batch.machine import git_commit, package_version
from training.config import load_config
from training.runs import TRUST, Run

Progress = Callable[[Exported], None]

VERSIONED = ("ser-batch", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
BULKY = ("labels", "classes", "reliability")
"""Parts of an evaluation that the confusion matrix or the labels already say, or that fill pages."""


@dataclass(frozen=True)
class Assembled:
    """The bundle, and the exports it holds."""

    bundle: Bundle
    exports: tuple[Exported, ...]


def assemble(
    run: Run,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    evaluations: Sequence[Path] = (),
    robustness: Path | None = None,
    trust: Path | None = None,
    progress: Progress | None = None,
) -> Assembled:
    """Export `run` as a bundle at `out`.

    Args:
        name: of the bundle; the run's recipe if None.
        licence: of the weights; None takes the corpus's, where it is known.
        evaluations: what `ser-batch evaluate --json` wrote of other speech, for the model card.
        robustness: what `ser-train robustness --out` wrote of an earlier export, for the model card.
        trust: JSON of the manifest's `metrics.trust`: see `ser_batch.bundle.trust`; None: what `ser-train loco` left
            in the run's folder, where it was run.
        progress: called after each branch.

    Raises:
        InputError: an evaluation cannot be read, or is one of another model.
        ExportError: no licence is known, a figure is missing, or a graph is not equal to its branch.
        OutputError: `out` exists, or cannot be written.
    """
    _check(run, out, overwrite)
    note, test = licence_note(run.provenance, licence), test_figures(run)
    stated = _stated(run, trust)
    card = card_of(
        run,
        note,
        other_speech=[read_evaluation(path, run.labels, tuple(run.branches)) for path in evaluations],
        robustness=None if robustness is None else read_robustness(robustness, run.labels, tuple(run.branches)),
        trust=trust,
    )
    with tempfile.TemporaryDirectory() as folder:
        exports = _export_branches(run, Path(folder), progress)
        bundle = write_bundle(
            out,
            name=name or run.config.recipe,
            labels=run.labels,
            clip=run.clip,
            branches=tuple(export.branch for export in exports),
            fusion=run.fusion,
            reference=reference_of(exports, run.fusion, run.clip),
            files={export.path.name: export.path for export in exports},
            provenance={**run.provenance, "labels": list(run.labels), "export": export_environment()},
            metrics={**_summary(run, test), **stated},
            licence=note,
            model_card=card,
            overwrite=overwrite,
        )
    return Assembled(bundle, tuple(exports))


def card_of(run: Run, licence: str, trust: Path | None = None, **measured: Any) -> str:
    """The model card of a run under this licence note; `measured` goes to `export.model_card.model_card`.

    Args:
        trust: as `assemble` takes it.

    Raises:
        ExportError: the run was not tested.
    """
    return model_card(
        test_figures(run),
        run.provenance,
        labels=run.labels,
        licence=licence,
        command=training_command(run),
        unheard=unheard_figures(run),
        trust=parse_trust(_stated(run, trust).get(KEY, {}), KEY),
        **measured,
    )


def _stated(run: Run, trust: Path | None) -> dict[str, Any]:
    """The manifest's `metrics.trust`: what the file says, and, unless that does, what bandwidth was trained on."""
    if trust is None and (run.folder / TRUST).is_file():
        trust = run.folder / TRUST
    measured = run.provenance.get("bandwidth_hz")
    found = ({"bandwidth_hz": measured} if measured else {}) | ({} if trust is None else read_trust(trust))
    return {KEY: found} if found else {}


def _export_branches(run: Run, folder: Path, progress: Progress | None) -> list[Exported]:
    exports = []
    for name, branch in run.branches.items():
        path = folder / f"{name}.onnx"
        exports.append(export_branch(branch, path, name=name, labels=run.labels, clip=run.clip))
        if progress is not None:
            progress(exports[-1])
    return exports


def _check(run: Run, out: Path, overwrite: bool) -> None:
    """Refuse before any work what would be refused after it."""
    if os.path.lexists(out) and not overwrite:
        raise OutputError(f"{out} exists already", remedy="Choose another --out, or replace it: --overwrite.")
    if tuple(run.branches) != run.fusion.branches:
        raise ExportError(
            "the run's fusion takes its branches in another order",
            got=list(run.fusion.branches),
            expected=list(run.branches),
        )


def test_figures(run: Run) -> dict[str, Any]:
    """Output (each branch, then "fused") → its figures on the test clips; of several corpora, on those of the first.

    Raises:
        ExportError: the run was not tested.
    """
    outputs, found = (*run.branches, FUSED), run.metrics.get("test", {})
    missing = [output for output in outputs if output not in found]
    if missing:
        raise ExportError(f"run {run.folder} has no test figures of {', '.join(missing)}", got=sorted(found))
    return {output: next(iter(found[output].get("corpora", {}).values()), found[output]) for output in outputs}


def unheard_figures(run: Run) -> dict[str, dict[str, Any]]:
    """Corpus that the run was only tested on → output → its figures; none of a run on one corpus."""
    found, trained = run.metrics.get("test", {}), run.provenance.get("corpora", {})
    outputs = [output for output in (*run.branches, FUSED) if "corpora" in found.get(output, {})]
    corpora = [name for name in found[FUSED]["corpora"] if name not in trained] if outputs else []
    return {name: {output: found[output]["corpora"][name] for output in outputs} for name in corpora}


def _summary(run: Run, test: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the run's quality: test figures only, for validation clips chose the weights."""
    figures = {
        output: {key: value for key, value in found.items() if key not in BULKY} for output, found in test.items()
    }
    unheard = {
        name: {
            output: {key: found[key] for key in ("ua", "ua_interval", "ece", "clips")} for output, found in of.items()
        }
        for name, of in unheard_figures(run).items()
    }
    summary = {"protocol": run.provenance["protocol"], "split": run.provenance["split"]["name"], "test": figures}
    return summary | ({"unheard": unheard} if unheard else {})


def training_command(run: Run) -> str:
    """What trains `run` again: its recipe by name where that gives the same configuration, else its own file."""
    config = run.config
    chosen = {"seed": config.seed, "protocol": config.protocol, "fold": config.fold}
    try:
        named = load_config(config.recipe, **chosen) == config
    except TrainingError:
        named = False
    recipe = config.recipe if named else f"{run.folder.name}/config.json"
    options = " ".join(f"--{key} {value}" for key, value in chosen.items()) if named else ""
    corpora = run.provenance.get("corpora", {})
    several = " ".join(["--corpora CORPORA.toml", *(f"--train-on {name}" for name in corpora)])
    data = several if corpora else f"--data path/to/{run.provenance['data']}"
    return f"ser-train run {recipe} {data} --out runs/{config.recipe} {options}".rstrip()


def export_environment() -> dict[str, Any]:
    """Versions of what made the graphs, the opset and the git commit."""
    packages = {package: package_version(package) for package in VERSIONED}
    return {"opset": OPSET, "exporter": "torch.onnx, dynamo", "packages": packages, "git": git_commit()}
