"""`ser-train robustness`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from ser_batch.text import printable
from training.options import PATH, PROTOCOLS, corpus_of, corpus_options

NOT_KEPT = 1


@click.command(
    epilog=f"\b\nExit codes:\n  0    measured; with --check, every bound is kept\n  {NOT_KEPT}    --check: one is not"
)
@click.argument("bundle", required=False, type=PATH)
@corpus_options
@click.option("--split", type=PATH, help="A run's folder or split.json; only the recordings of --part are scored.")
@click.option("--protocol", type=PROTOCOLS, help="Instead of --split: the first split of this protocol.")
@click.option(
    "--part",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="Of --split or --protocol.",
)
@click.option("--map", "meanings", default="", help="What labels mean, such as anger=angry,exc=happy.")
@click.option("--street", type=PATH, help="Recording of a street, or folder of some.  [default: synthesised]")
@click.option("--backend", default="onnxruntime", show_default=True, help="Runtime.")
@click.option("--out", type=PATH, help="Write the figures here as JSON, too: the model card and the docs read it.")
@click.option("--check", is_flag=True, help=f"Exit {NOT_KEPT} if a bound is not kept.")
def robustness(bundle: Path | None, out: Path | None, check: bool, backend: str, **given: Any) -> int:
    """Score BUNDLE (default: the embedded one) on labelled recordings as users have them.

    As they are; 20 and 40 dB quieter, 12 dB louder, with an offset; at 16 kHz, through a telephone, Opus and MP3; in
    white noise, babble and traffic at 20 dB SNR; in a room. Prints a Markdown table, and needs no torch.
    """
    from ser_batch.bundle import load_bundle
    from ser_batch.evaluation.label_map import LabelMap, parse_map
    from training.robustness.measure import Question, measure, targets_of
    from training.robustness.report import Report, markdown, measured_by, write

    started, opened, corpus = time.perf_counter(), load_bundle(bundle), corpus_of(given)
    part, rows = _rows(corpus, given["split"], given["protocol"], given["part"])
    targets = targets_of(corpus, rows, opened.labels, LabelMap(opened.labels, *parse_map(given["meanings"])))
    question = Question(corpus, rows, targets, _streets(given["street"]))
    with click.progressbar(length=len(rows), label=f"{len(rows)} recordings", file=sys.stderr) as bar:
        found = tuple(measure(opened, question, backend, bar.update))
    report = Report(
        bundle=opened.id,
        backend=f"{backend} fp32",
        corpus=corpus.describe(),
        part=part,
        clips=len(rows),
        labels=opened.labels,
        noises=question.noises(),
        rows=found,
        measured=measured_by(_command(bundle, given), time.perf_counter() - started),
    )
    if out is not None:
        write(report, out)
    click.echo(markdown(report))
    return NOT_KEPT if check and report.not_kept else 0


def _rows(corpus: Any, split: Path | None, protocol: str | None, part: str) -> tuple[str, tuple[int, ...]]:
    """What part of the corpus it is, and the indices of its examples."""
    from ser_batch.evaluation.truth import match, read_part
    from training.data.splits import splits_of

    if split and protocol:
        raise click.UsageError("Give either --split or --protocol.")
    if protocol:
        chosen = splits_of(protocol, corpus)[0]
        return f"{part} of {chosen.name}", getattr(chosen, part)
    if not split:
        return "all", tuple(range(len(corpus)))
    name, files = read_part(split / "split.json" if split.is_dir() else split, part)
    matching = match([example.file for example in corpus.examples], files)
    if matching.missing or matching.ambiguous:
        lost = matching.missing or [corpus.examples[i].file for i in sorted(matching.ambiguous)]
        raise click.UsageError(
            f"{len(lost)} recordings of {split} are not in --data, or more than once: {printable(lost[0])}."
        )
    return f"{part} of {name}", tuple(i for i, found in enumerate(matching.names) if found is not None)


def _streets(given: Path | None) -> tuple[Path, ...]:
    from ser_batch.recordings.find import find_recordings

    return tuple(Path(recording.path) for recording in find_recordings([str(given)])) if given else ()


def _command(bundle: Path | None, given: dict[str, Any]) -> str:
    """The command, less what only this machine's folders say."""
    words = ["ser-train", "robustness", *([bundle.name] if bundle else [])]
    for option in ("data", "labels", "split", "protocol", "part", "map", "street"):
        value = given["meanings" if option == "map" else option]
        if value:
            words += [f"--{option}", value.name if isinstance(value, Path) and value.is_absolute() else str(value)]
    return shlex.join(words)
