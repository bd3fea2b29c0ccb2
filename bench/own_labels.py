"""What a head is worth on corpora that the bundle never saw: beside its own answer, and always the same label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import ser_batch
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError
from ser_batch.evaluation.evaluate import Question
from ser_batch.evaluation.statistics import percent
from ser_batch.files import write_atomically, writing
from ser_batch.heads.head import FittedHead, fit_head
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.run import run

LABELS = "clips.csv"
"""Of each corpus: columns path, label and, where known, speaker."""
_REGION = re.compile(r"(<!-- generated: own_labels; [^>]*-->).*?(<!-- end of own_labels -->)", re.DOTALL)


def fit_corpora(folders: Sequence[Path], bundle: Bundle, scored: Path) -> dict[str, FittedHead]:
    """Corpus -> the head that was fitted to it.

    Args:
        folders: of recordings, each with its `LABELS`.
        scored: folder of the predictions; those that are there, of the same bundle, are gone on with.

    Raises:
        SerError: a corpus cannot be scored, or its labels do not do.
    """
    scored.mkdir(parents=True, exist_ok=True)
    merged = {"calm": "neutral"} if "calm" in bundle.labels and "neutral" in bundle.labels else {}
    found = {}
    for folder in folders:
        out = scored / f"{folder.resolve().name}.parquet"
        run(RunConfig((str(folder),), out, bundle=bundle.root, embeddings="float16", resume=out.exists()))
        question = Question(str(folder / LABELS), label_map=merged)
        found[folder.resolve().name] = fit_head(out, bundle, question)
    return found


def table(found: dict[str, FittedHead], bundle: Bundle) -> str:
    """The figures in Markdown: UA in percent, with 95 % intervals."""
    rows = [
        f"Bundle `{bundle.id}`, ser-batch {ser_batch.__version__}.",
        "",
        "| corpus | recordings | labels | speakers | always the same label | the bundle's own answer | **head** |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for corpus, fitted in found.items():
        own = "–" if fitted.default is None else percent(fitted.default.ua, fitted.default.interval, digits=1)
        head = percent(fitted.evaluation.ua, fitted.evaluation.ua_interval, digits=1)
        counts = f"{fitted.evaluation.clips:,} | {len(fitted.labels)} | {fitted.groups or 'not known'}"
        rows.append(f"| {corpus} | {counts} | {100 / len(fitted.labels):.1f} | {own} | **{head}** |")
    return "\n".join(rows)


def renew(page: Path, text: str) -> None:
    """Put `text` into the page's region "own_labels".

    Raises:
        InputError: the page cannot be read, or has no such region.
        OutputError: it cannot be written.
    """
    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page} cannot be read", got=error.strerror) from error
    if not _REGION.search(before):
        raise InputError(f"{page} has no region", expected="<!-- generated: own_labels; … --> … <!-- end of … -->")
    with writing(page):
        write_atomically(page, _REGION.sub(lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", before))
