"""Tables III, IV and V and the protocols as Markdown, the paper's figure beside the measured one.

All figures are per cent; a difference is measured − paper, in points. Where no result
measures a figure, the page says so, with the command that would measure it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ser_batch.machine import short_commit
from ser_batch.text import markdown_table
from training.reproduction.paper import EMOBOX, TABLE_III, TABLE_IV, TABLE_V, TO_COMMITTED, Scores, caps
from training.reproduction.protocols import averaged, by_seed, calibration, pooled, pooled_mcnemar, pooled_speakers
from training.reproduction.results import Experiment, Kind, select, spread
from training.reproduction.studies import WHOLE

COLUMNS = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
HEADINGS = ("accuracy", "macro-P", "macro-R", "macro-F1")
MODELS = ("spectrogram", "context", "fused")
TITLE = "Settings of the recipes"
"""Of the section that `settings` fills; the notes link to it."""
COMMANDS: dict[Kind, str] = {
    "protocol": f"ser-train protocol {{protocol}} --recipe paper --data RAVDESS --out RUNS {TO_COMMITTED}",
    "unfreezing": f"ser-train unfreeze --recipe paper --layers 1,3,5,9 --data RAVDESS --out RUNS {TO_COMMITTED}",
    "fusion": f"ser-train fusion RUN {TO_COMMITTED}",
    "loco": f"ser-train loco RUN --corpora training/configs/corpora/default.toml {TO_COMMITTED}",
    "ablation": f"ser-train ablate --recipe RECIPE --data RAVDESS --out RUNS {TO_COMMITTED}",
    "spectrogram-ablation": "ser-train ablate --branch spectrogram --recipe RECIPE --data RAVDESS --out RUNS "
    + TO_COMMITTED,
}


def table_iii(experiments: Sequence[Experiment]) -> str:
    """Published methods, then every measured fusion under the paper's protocol, with its difference to the paper's."""
    rows = [[name, "published", *_cells(scores), ""] for name, scores in TABLE_III.items()]
    paper, found = TABLE_III["the paper"], select(experiments, "protocol", "paper")
    for experiment in found:
        means = averaged(experiment.results["runs"].values(), "fused")
        cells = [_mean(means[column]) for column in COLUMNS]
        difference = _points(means["accuracy"]["mean"], paper.accuracy)
        rows.append([f"ours: {title(experiment)}", f"{means['accuracy']['n']} seed(s)", *cells, difference])
    published = markdown_table(["method", "source", *HEADINGS, "accuracy − the paper's"], rows)
    return "\n\n".join([published, *_missing(found, "protocol", "paper"), *notes(found, experiments)])


def table_iv(experiments: Sequence[Experiment]) -> str:
    """Unfreezing depths: the paper's wav2vec 2.0 base, twelve layers, beside every measured backbone."""
    found, parts = select(experiments, "unfreezing", "paper"), []
    for experiment in found:
        runs = {run["layers"]: run for run in experiment.results["runs"].values()}
        rows = []
        for k in sorted(set(TABLE_IV) | set(runs)):
            figures = runs[k]["figures"] if k in runs else None
            here = [_percent(figures[c]) for c in COLUMNS] if figures else ["–"] * 4
            interval = _interval(figures["accuracy_interval"]) if figures else "–"
            epochs = f"{runs[k]['stage']['epochs']}" if k in runs else "–"
            paper = _cells(TABLE_IV[k]) if k in TABLE_IV else ["–"] * 4
            both = figures and k in TABLE_IV
            difference = _points(figures["accuracy"], TABLE_IV[k].accuracy) if both else ""
            rows.append([str(k), *paper, *here, interval, difference, epochs])
        headings = ["unfrozen", *(f"paper: {h}" for h in HEADINGS), *HEADINGS, "95 %", "accuracy − paper", "epochs"]
        caption = f"**{title(experiment)}**, {experiment.results['depth']} layers; the paper's has 12."
        parts += [caption, markdown_table(headings, rows)]
    if not found:
        parts.append(markdown_table(["unfrozen", *(f"paper: {h}" for h in HEADINGS)], _paper_rows(TABLE_IV)))
    return "\n\n".join([*parts, *_missing(found, "unfreezing", "paper"), *notes(found, experiments)])


def table_v(experiments: Sequence[Experiment]) -> str:
    """Fusion strategies, each by what it was fitted on, beside the paper's."""
    found, parts = select(experiments, "fusion", "paper"), []
    for experiment in found:
        parts += [f"**{title(experiment)}**, split {experiment.results['split']}.", _fusion_rows(experiment)]
        parts += [_unfitted(source) for source in experiment.results["missing"]]
    if not found:
        parts.append(markdown_table(["strategy", *(f"paper: {h}" for h in HEADINGS)], _paper_rows(TABLE_V)))
    return "\n\n".join([*parts, *_missing(found, "fusion", "paper"), *notes(found, experiments)])


def _unfitted(source: str) -> str:
    if source == "validation":
        return "Not possible here: fusions fitted on validation probabilities, for `refit` trains on those clips too."
    return f"Not measured here: fusions fitted on {source} probabilities (`ser-train out-of-fold RUN`)."


def _fusion_rows(experiment: Experiment) -> str:
    rows = []
    for row in experiment.results["rows"]:
        paper = TABLE_V.get(row["strategy"].partition(",")[0])
        versus = row.get("mcnemar")
        rows.append(
            [
                row["strategy"],
                row["fit_on"] or "–",
                *(_cells(paper) if paper else ["–"] * 4),
                *(_percent(row[column]) for column in COLUMNS),
                _interval(row["accuracy_interval"]),
                _points(row["accuracy"], paper.accuracy) if paper else "",
                _mcnemar([versus]) if versus else "",
                f"{100 * row['ece']:.1f} → {100 * row['ece_scaled']:.1f} (T {row['temperature']:.2f})",
            ]
        )
    paper_headings = [f"paper: {h}" for h in HEADINGS]
    headings = ["model", "fitted on", *paper_headings, *HEADINGS, "95 %", "accuracy − paper"]
    return markdown_table([*headings, "clips against context alone (McNemar)", "ECE, scaled"], rows)


def ablation_table(experiments: Sequence[Experiment]) -> str:
    """What a branch owes to each part of a recipe: accuracies, and differences from the whole, run by run."""
    found, parts = [e for e in experiments if e.experiment.endswith("ablation")], []
    for experiment in found:
        variants: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
        for run in experiment.results["runs"].values():
            variants.setdefault(run["variant"], {})[run["seed"], run["fold"]] = run
        whole, rows = variants.pop(WHOLE), []
        for name, runs in {WHOLE: whole, **variants}.items():
            known = [run["validation_accuracy"] for run in runs.values() if run["validation_accuracy"] is not None]
            test = spread(run["figures"]["accuracy"] for run in runs.values())
            gains = [run["figures"]["accuracy"] - whole[key]["figures"]["accuracy"] for key, run in runs.items()]
            difference = "" if runs is whole else _mean(spread(gains)).replace("-", "−")
            rows.append([name, _mean(spread(known)) if known else "–", _mean(test), difference, str(len(runs))])
        headings = ["variant", "validation accuracy", "test accuracy", "test − whole, paired", "runs"]
        branch = "context" if experiment.experiment == "ablation" else "spectrogram"
        caption = (
            f"**{title(experiment)}**, protocol {experiment.protocol}, {branch} branch alone; mean ± sd over runs."
        )
        parts += [caption, markdown_table(headings, rows)]
    if not found:
        return "Not measured yet: `" + COMMANDS["ablation"] + "` measures it."
    return "\n\n".join([*parts, *notes(found, experiments)])


def protocol_table(experiments: Sequence[Experiment], protocol: str) -> str:
    """Every measured model under one protocol: pooled over a seed's folds, and mean ± sd over runs."""
    found, rows = select(experiments, "protocol", protocol), []
    for experiment in found:
        runs = list(experiment.results["runs"].values())
        seeds = by_seed(runs)
        for model in MODELS:
            whole = [pooled(of_seed, model) for of_seed in seeds.values()]
            means = averaged(runs, model)
            first = whole[0]
            intervals = [_interval(first["ua_interval"]), _interval(first["accuracy_interval"])]
            figures = [_mean(spread(p[m] for p in whole)) for m in ("ua", "accuracy", "macro_f1")]
            versus = _mcnemar([run["mcnemar_fused_context"] for run in runs]) if model == "fused" else ""
            row = [title(experiment), model, *figures, *intervals, _mean(means["ua"]), _mean(means["accuracy"])]
            rows.append([*row, f"{len(seeds)} × {len(runs) // len(seeds)}", *_calibrations(runs, model), versus])
    if protocol == "emobox":
        rows += [[f"{name}, frozen (EmoBox)", "published", *map(_plain, s)] + [""] * 8 for name, s in EMOBOX.items()]
    headings = ["recipe", "model", "UA", "WA", "macro-F1", "UA 95 %, first seed", "WA 95 %, first seed"]
    headings += ["UA by run", "WA by run", "seeds × splits", "ECE → scaled (chance), by run", "… over a seed's splits"]
    headings.append("clips against context alone, all runs (McNemar)")
    parts = [markdown_table(headings, rows)] if rows else []
    parts += [*_against(found), *_speakers(found), *_shares(found)]
    return "\n\n".join([*parts, *_missing(found, "protocol", protocol), *notes(found, experiments)])


def loco_table(experiments: Sequence[Experiment]) -> str:
    """Unweighted average recall on corpora that a model never heard, one row per corpus."""
    found, parts = [e for e in experiments if e.experiment == "loco"], []
    for experiment in found:
        corpora, runs = experiment.results["corpora"], experiment.results["runs"]
        rows, left_out = [], [name for name in runs if name in experiment.results["heard"]]
        for name, models in runs.items():
            facts, fused = corpora[name], models["fused"]
            what = "left out" if name in left_out else "never trained on"
            rows.append(
                [
                    f"{name}, {what}",
                    f"{len(fused['labels'])}",
                    f"{fused['clips']} of {facts['speakers']}",
                    f"{facts['level']:.0f} dBFS, {facts['bandwidth'] / 1000:.1f} kHz",
                    *(_percent(models[model]["ua"]) for model in ("spectrogram", "context")),
                    f"**{_percent(fused['ua'])}** {_interval(fused['ua_interval'])} over {fused['over']}",
                    f"{fused['ece']:.2f}",
                ]
            )
        if left_out:
            means = [statistics.fmean(runs[name][m]["ua"] for name in left_out) for m in MODELS]
            rows.append([f"mean of those left out ({len(left_out)})", *[""] * 3, *map(_percent, means), ""])
        headings = ["corpus", "labels", "clips of speakers", "median level, bandwidth", "spectrogram", "context"]
        parts += [f"**{title(experiment)}**", markdown_table([*headings, "fused, 95 %", "ECE"], rows)]
        parts.append(_passing(experiment.results["threshold"]))
    return "\n\n".join(
        [
            *parts,
            *([] if found else [f"Not measured here; `{COMMANDS['loco']}` measures it."]),
            *notes(found, experiments),
        ]
    )


def _passing(found: dict[str, float] | None) -> str:
    """From which score on answers can be relied upon."""
    if found is None:
        return "No score is high enough for 70 % of the answers on these corpora to be right."
    precision, share = _percent(found["precision"]), _percent(found["share"])
    return (
        f"From a score of {found['score']:.2f} on, {precision} % of the answers, among all labels, are right; "
        f"{share} % of the clips reach it. Every corpus counts alike; single corpora differ."
    )


def _calibrations(runs: Sequence[dict[str, Any]], model: str) -> list[str]:
    """Expected calibration error as trained → with its temperature, and what is left of it to chance."""
    before, after = (calibration(runs, model, key) for key in ("reliability", "reliability_scaled"))
    return [
        f"{_percent(before[of])} → {_percent(after[of])} ({_percent(after[of + '_chance'])})" for of in ("run", "seed")
    ]


def _mcnemar(tests: Sequence[dict[str, Any]]) -> str:
    test = pooled_mcnemar(tests)
    return f"+{test['only_first']} −{test['only_second']}, p {test['p']:.2g}"


def _against(found: Iterable[Experiment]) -> list[str]:
    """What the fusion gains and loses against each branch and each simpler fusion, over all runs' test clips."""
    lines = []
    for experiment in found:
        runs = list(experiment.results["runs"].values())
        if all("mcnemar_fused" in run for run in runs):
            others = {name: [run["mcnemar_fused"][name] for run in runs] for name in runs[0]["mcnemar_fused"]}
            text = "; ".join(f"{name} {_mcnemar(tests)}" for name, tests in others.items())
            overlap = " Test clips of different seeds overlap, so p is too small." if len(by_seed(runs)) > 1 else ""
            line = f"{title(experiment)}: test clips that the fusion gains and loses, all runs: against {text}."
            lines.append(line + overlap)
    return lines


def _speakers(found: Iterable[Experiment]) -> list[str]:
    lines = []
    for experiment in found:
        rates = pooled_speakers(experiment.results["runs"].values(), "fused")
        if rates:
            text = ", ".join(f"{speaker} {100 * rate:.0f}" for speaker, rate in rates.items())
            lines.append(f"{title(experiment)}: accuracy of the fusion by speaker, %, the least first: {text}.")
    return lines


def _shares(found: Iterable[Experiment]) -> list[str]:
    lines = []
    for experiment in found:
        shares = [run["other_take_share"] for run in experiment.results["runs"].values()]
        share = "an unknown share" if None in shares else f"{_mean(spread(shares))} %"
        lines.append(f"{title(experiment)}: the other take of {share} of the test clips was in training.")
    return lines


def _missing(found: Sequence[Experiment], kind: Kind, protocol: str) -> list[str]:
    if any(e.backbone == "wav2vec2-base" and e.recipe == "paper" for e in found):
        return []
    command = COMMANDS[kind].format(protocol=protocol)
    return [f"Not measured here: wav2vec2-base with recipe paper; `{command}` measures it."]


def _paper_rows(published: dict[Any, Scores]) -> list[list[str]]:
    return [[str(key), *_cells(scores)] for key, scores in published.items()]


def _cells(scores: Scores) -> list[str]:
    return [_plain(value) for value in scores]


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _interval(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def _mean(found: dict[str, Any]) -> str:
    return _percent(found["mean"]) + ("" if found["sd"] is None else f" ± {_percent(found['sd'])}")


def _points(measured: float, paper: float) -> str:
    return f"{100 * measured - paper:+.2f}".replace("-", "−")


def title(experiment: Experiment) -> str:
    """Backbone and recipe, as results are named, and how short of the paper's epochs its figures were stopped."""
    capped = caps(experiment)
    return f"{experiment.backbone}, recipe {experiment.recipe}" + (f" ({capped})" if capped else "")


def notes(found: Iterable[Experiment], experiments: Sequence[Experiment]) -> list[str]:
    """One line per experiment: how, when and where it was measured, and where its settings differ from those listed."""
    listed = _references(experiments)
    anchor = TITLE.lower().replace(" ", "-")
    lines = []
    for e in found:
        other = _differences(listed[e.backbone, e.recipe].changed, e.changed)
        lines.append(
            f"- {title(e)}: `{e.measured['command']}`, {e.measured['seconds']:.0f} s, {e.measured['date']}, "
            f"commit {short_commit(e.measured['git'])}, {e.measured['processor']}. "
            f"[{TITLE}](#{anchor})" + (f", but for {'; '.join(other)}." if other else ".")
        )
    return ["\n".join(lines)] if lines else []


def settings(experiments: Sequence[Experiment]) -> str:
    """Every measured recipe's fields that are not the paper's."""
    parts = []
    for e in _references(experiments).values():
        rows = [[f"`{key}`", short(paper), short(here)] for key, (paper, here) in e.changed.items()]
        parts += [f"**{title(e)}**", markdown_table(["field", "paper", "here"], rows) if rows else "As the paper."]
    return "\n\n".join(parts) or "Nothing is measured yet."


def short(value: Any) -> str:
    """A setting's value in at most 40 characters."""
    text = "off" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _references(experiments: Sequence[Experiment]) -> dict[tuple[str, str], Experiment]:
    """Backbone and recipe → the experiment whose settings stand for it: its paper split, else its first."""
    found: dict[tuple[str, str], Experiment] = {}
    for e in sorted(experiments, key=lambda e: (e.experiment, e.protocol) != ("protocol", "paper")):
        found.setdefault((e.backbone, e.recipe), e)
    return dict(sorted(found.items()))


def _differences(listed: dict[str, list[Any]], here: dict[str, list[Any]]) -> list[str]:
    values = {key: here[key][1] if key in here else listed[key][0] for key in sorted({*listed, *here})}
    known = {key: listed[key][1] if key in listed else here[key][0] for key in values}
    return [f"`{key}` {short(values[key])}" for key in values if values[key] != known[key]]
