"""An evaluation of served predictions as plain text, the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Mapping

from ser_batch.bundle.fusion import FUSED
from ser_batch.evaluation.comparison import Comparison
from ser_batch.evaluation.evaluate import Coverage, ServedEvaluation
from ser_batch.evaluation.metrics import BINS, Evaluation
from ser_batch.evaluation.statistics import percent
from ser_batch.text import aligned, terminal_safe

GROUPS = 100
"""Groups that are printed; the JSON has all."""
PROVENANCE = ("bundle_id", "backend", "precision", "device", "version")


def format_evaluation(served: ServedEvaluation) -> str:
    """Head, one row of figures a model, one confusion matrix a model; percentages with 95 % intervals."""
    made_by = " ".join(served.provenance[key] for key in PROVENANCE if key in served.provenance)
    head = [
        ("predictions", served.predictions),
        ("made by", made_by or "unknown: the file has no provenance"),
        ("truth", served.truth),
        *coverage_lines(served.coverage),
        *note_lines(served),
        *([("read as", ", ".join(f"{a} → {b}" for a, b in served.read_as.items()))] if served.read_as else []),
    ]
    blocks = [
        "\n".join(f"{name:<12} {value}" for name, value in head),
        _figures(served.models),
        *(_matrix(name, evaluation) for name, evaluation in served.models.items()),
    ]
    if served.against_fused:
        blocks.append(_paired(served))
    if served.comparison:
        blocks.append(_compared(served.comparison, served.predictions))
    if served.groups:
        blocks.append(_grouped(served))
    return "\n".join(terminal_safe(line) for line in "\n\n".join(blocks).split("\n"))


def coverage_lines(coverage: Coverage) -> list[tuple[str, str]]:
    """How many rows were evaluated, and what became of the others; only the first line has a name."""
    left_out, unscored = _counts(coverage.left_out), _counts(coverage.unscored)
    said = [
        (coverage.outside_part, "rows are not in the part"),
        (coverage.without_truth, "rows have no known label"),
        (
            sum(coverage.left_out.values()),
            f"rows are left out: their labels are no answers ({left_out})",
        ),
        (coverage.failed, f"clips have no prediction and are in no figure (status {unscored})"),
        (coverage.nameless, "rows of the labels name no recording"),
        (coverage.missing, "recordings that should be here have no row, and are in no figure"),
        (coverage.ambiguous, "rows are left out: their base name stands for several recordings"),
        (coverage.by_base_name, "rows were matched by base name, not by path"),
    ]
    lines = [("clips", f"{coverage.evaluated} evaluated, of {coverage.rows} rows")]
    return lines + [("", f"{count} {text}") for count, text in said if count]


def note_lines(served: ServedEvaluation) -> list[tuple[str, str]]:
    """What to do where no clip has a label that the model may answer; only the first line has a name."""
    if not served.never_true:
        return []
    there = [scores.label for scores in served.models[FUSED].classes if scores.support]
    absent = ", ".join(served.never_true)
    return [
        ("note", f"no clip is labelled {absent}, so each such answer counts as wrong; if the corpus lacks them,"),
        ("", f"measure the answers among the others: --among {','.join(there)}"),
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _figures(models: dict[str, Evaluation]) -> str:
    head = ("", "accuracy, Wilson", "UA, bootstrap", "macro P", "macro R", "macro F1", f"ECE ({BINS} bins)")
    rows = [
        (
            name,
            percent(e.accuracy, e.accuracy_interval),
            percent(e.ua, e.ua_interval),
            *(f"{100 * score:.2f}" for score in (e.macro.precision, e.macro.recall, e.macro.f1)),
            f"{e.ece:.4f}",
        )
        for name, e in models.items()
    ]
    return aligned([head, *rows])


def _matrix(name: str, evaluation: Evaluation) -> str:
    head = ("truth \\ said", *evaluation.labels, "n", "P", "R", "F1")
    rows = [
        (
            scores.label,
            *map(str, counts),
            str(scores.support),
            *(f"{100 * score:.1f}" for score in (scores.precision, scores.recall, scores.f1)),
        )
        for counts, scores in zip(evaluation.confusion, evaluation.classes, strict=True)
    ]
    return f"{name}: {evaluation.correct} of {evaluation.clips} right\n" + aligned([head, *rows])


def _paired(served: ServedEvaluation) -> str:
    lines = [
        f"{FUSED} against {name}: {test.only_first} clips right only by {FUSED}, {test.only_second} only by {name}, "
        f"exact McNemar p = {test.p:.4g}"
        for name, test in served.against_fused.items()
    ]
    return "\n".join(lines)


def _compared(found: Comparison, first: str) -> str:
    """Both models on the clips that both answer, and their difference with its interval."""
    paired = (found.accuracy, found.ua)
    test = found.mcnemar
    rows = [
        ("", "accuracy", "UA"),
        ("first", *(f"{100 * figure.first:.2f}" for figure in paired)),
        ("second", *(f"{100 * figure.second:.2f}" for figure in paired)),
        ("second − first", *(percent(figure.difference, figure.interval) for figure in paired)),
    ]
    lines = [
        f"{first} (first) and {found.predictions} (second) on the {found.clips} clips that both answer; "
        f"95 % by a paired bootstrap over {found.over}:",
        aligned(rows),
        f"{test.only_first} clips right only by the first, {test.only_second} only by the second, "
        f"exact McNemar p = {test.p:.4g}",
    ]
    if found.unanswered:
        lines.append(f"{found.unanswered} clips have no answer in the second, and are in no figure of the comparison")
    return "\n".join(lines)


def _grouped(served: ServedEvaluation) -> str:
    """A row for each group: how the fusion fared there."""
    head = (f"{FUSED} by {served.by}", "clips", "accuracy, Wilson", "UA")
    rows = [
        (group.group, str(group.clips), percent(group.accuracy, group.accuracy_interval), f"{100 * group.ua:.2f}")
        for group in served.groups[:GROUPS]
    ]
    more = len(served.groups) - len(rows)
    lines = [aligned([head, *rows]), *([f"{more} more groups: --json has them"] if more else [])]
    if interval := served.ua_interval_over_groups:
        whole = percent(served.models[FUSED].ua, interval)
        lines.append(f"UA of {FUSED} with a bootstrap over the {len(served.groups)} values of {served.by}: {whole}")
    return "\n".join(lines)
