"""Measured results as JSON: one file per experiment, and a summary made from all of them.

results/<experiment>-<backbone>-<recipe>[-<protocol>].json
    experiment, backbone, recipe, protocol   what it is
    changed        configuration fields that differ from the paper's → [paper, here]
    measured       machine, versions, git commit, command, seconds, date
    results        the figures, as the experiment's own module describes them
results/summary.json
    backbone → recipe → protocol → model (spectrogram, context, fused) → metric → {mean, sd, n}
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ser_batch.errors import TrainingError
from ser_batch.files import write_atomically
from ser_batch.strict_json import decode
from training.config import RunConfig, to_dict
from training.files import locked, read_json
from training.runs import environment

RESULTS = Path("results")
"""Folder of the results unless another one is named: in the working directory."""
SUMMARY = "summary.json"
VARIANTS = "variants"
"""Key of an ablation's results: what each of its variants changes."""
METRICS = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "ua", "ece", "ece_scaled")
"""Figures that are averaged over runs."""
Kind = Literal["protocol", "unfreezing", "fusion", "ablation", "spectrogram-ablation", "loco"]


@dataclass(frozen=True)
class Experiment:
    """One measured experiment."""

    experiment: Kind
    backbone: str
    recipe: str
    protocol: str
    changed: dict[str, list[Any]]
    """Dotted configuration field → [the paper's value, the value here]."""
    measured: dict[str, Any]
    results: dict[str, Any]

    @property
    def file(self) -> str:
        """Name of its file among the results."""
        return "-".join([self.experiment, self.backbone, self.recipe, self.protocol]) + ".json"


def describe(kind: Kind, config: RunConfig, results: dict[str, Any], command: str, seconds: float) -> Experiment:
    """An experiment just measured with `config`; `results` name its seeds and folds."""
    measured = {**environment(), "command": command, "seconds": round(seconds, 1)}
    measured["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    changed = changes(config)
    return Experiment(kind, backbone_name(config), config.recipe, config.protocol, changed, measured, results)


def backbone_name(config: RunConfig) -> str:
    """The name under which a backbone's results are reported: its checkpoint's, or that it has none.

    "facebook/wav2vec2-base" → "wav2vec2-base"; ".../whisper-base-encoder" → "whisper-base"; scratch → "scratch".
    """
    name = Path(config.context.backbone).name.removesuffix("-encoder")
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name)


def changes(config: RunConfig) -> dict[str, list[Any]]:
    """Every field that differs from the paper's configuration, less recipe, seed, protocol and fold."""
    same = replace(config, recipe="paper", seed=0, protocol="paper", fold=0)
    found = differences(RunConfig(), same)
    if "context.backbone" in found:  # a folder says where a checkpoint lies here, its name says what it is
        found["context.backbone"][1] = backbone_name(config)
    return found


def differences(first: RunConfig, second: RunConfig) -> dict[str, list[Any]]:
    """Dotted field → [its value in the first configuration, in the second] where they differ, as JSON types."""
    a, b = _flat(to_dict(first)), _flat(to_dict(second))
    found = {key: [a.get(key), b.get(key)] for key in sorted(a | b) if a.get(key) != b.get(key)}
    return json.loads(json.dumps(found))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def save(experiment: Experiment, folder: Path) -> Path:
    """Write one experiment and renew the summary, each file whole or not at all.

    Runs and depths that the file holds of the very same configuration and corpus are kept beside the new ones, and
    so are an ablation's variants, where none of a name has other settings; any other experiment is replaced.
    """
    path = folder / experiment.file
    with locked(folder):
        if path.is_file():
            experiment = _merged(_read(path), experiment)
        content = {key: getattr(experiment, key) for key in ("experiment", "backbone", "recipe", "protocol")}
        content |= {"changed": experiment.changed, "measured": _rounded(experiment.measured)}
        # Settings as they are: only figures are rounded.
        content["results"] = {k: v if k == VARIANTS else _rounded(v) for k, v in experiment.results.items()}
        write_atomically(path, _dump(content))
        write_atomically(folder / SUMMARY, _dump(_rounded(summarise(load(folder)))))
    return path


def _merged(old: Experiment, new: Experiment) -> Experiment:
    before, after = old.results, new.results
    if "runs" not in after or (old.changed, before.get("corpus")) != (new.changed, after.get("corpus")):
        return new
    merged = {"runs": dict(sorted((before["runs"] | after["runs"]).items()))}
    if VARIANTS in after:
        known = before.get(VARIANTS, {}) | after[VARIANTS]
        if any(known[name] != settings for name, settings in before.get(VARIANTS, {}).items()):
            return new
        merged[VARIANTS] = known
    return replace(new, results=after | merged)


def load(folder: Path) -> list[Experiment]:
    """Every experiment of a folder, by file name; TrainingError for no folder, and for a file that is no result."""
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}", expected="the JSON of experiments")
    return [_read(path) for path in sorted(folder.glob("*.json")) if path.name != SUMMARY]


def _read(path: Path) -> Experiment:
    experiment = decode(Experiment, read_json(path), str(path), TrainingError)
    if experiment.file != path.name:
        raise TrainingError(f"{path} is misnamed", expected=experiment.file)
    return experiment


def select(experiments: Iterable[Experiment], kind: Kind, protocol: str) -> list[Experiment]:
    """The experiments of one kind under one protocol."""
    return [e for e in experiments if e.experiment == kind and e.protocol == protocol]


def spread(values: Iterable[float]) -> dict[str, float | int | None]:
    """Mean, sample standard deviation (None of one value) and count."""
    values = list(values)
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd, "n": len(values)}


def summarise(experiments: Iterable[Experiment]) -> dict[str, Any]:
    """The summary of all protocol experiments: mean and spread over runs, a run being one seed of one split."""
    summary: dict[str, Any] = {}
    for experiment in experiments:
        if experiment.experiment != "protocol":
            continue
        runs = list(experiment.results["runs"].values())
        recipe = summary.setdefault(experiment.backbone, {}).setdefault(experiment.recipe, {})
        recipe[experiment.protocol] = {
            model: {metric: spread(run["models"][model][metric] for run in runs) for metric in METRICS}
            for model in ("spectrogram", "context", "fused")
        }
    return summary


def _dump(content: Any) -> str:
    """JSON, sorted nowhere, and a list of plain values on one line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    flat = re.compile(r"\[\s*([^\[\]{}]*?)\s*\]")
    return flat.sub(lambda match: "[" + re.sub(r",\s+", ", ", match[1]) + "]", text) + "\n"


def _rounded(value: Any) -> Any:
    """Figures with six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
