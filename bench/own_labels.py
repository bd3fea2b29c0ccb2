"""What a head is worth on corpora: beside the bundle's own answer, the same adapted, and always the same label."""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ser_batch
from bench.adaptation import true_shares
from ser_batch.adaptation.adapt import Adaptation
from ser_batch.adaptation.table import adapt_table
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError
from ser_batch.evaluation.evaluate import Question
from ser_batch.evaluation.label_map import LabelMap
from ser_batch.evaluation.statistics import percent
from ser_batch.files import write_atomically, writing
from ser_batch.heads.head import FittedHead, Share, fit_head, own_answer
from ser_batch.heads.rows import read_rows
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.run import run

_log = logging.getLogger(__name__)
LABELS = "clips.csv"
"""Of each corpus: columns path, label and, where known, speaker."""
COLUMNS = (
    *("corpus", "recordings", "labels", "speakers"),
    *("always the same label", "the bundle's own answer", "adapted", "**head**"),
)
ADAPTED = """\
`adapted` is the bundle's own answer after `ser-batch adapt`, told the true shares of the corpus' labels and that no
other occurs, decided as if the labels were equally common, with one bias for all speakers: "true shares" in
[archive.md](archive.md#measured)."""
"""What the column means, on the page."""
_REGION = re.compile(r"(<!-- generated: own_labels; [^>]*-->).*?(<!-- end of own_labels -->)", re.DOTALL)


class Answers(NamedTuple):
    """What is known of one corpus."""

    fitted: FittedHead
    """The head, and the bundle's own answer."""
    adapted: Share | None
    """The bundle's own answer, adapted by the true shares of the labels; None: they mean nothing to it."""


def measure_corpora(folders: Sequence[Path], bundle: Bundle, scored: Path) -> dict[str, Answers]:
    """Corpus -> the head that was fitted to it, beside what the bundle says by itself.

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
        _log.info(f"{folder}: scoring, then fitting a head")
        out = scored / f"{folder.resolve().name}.parquet"
        run(RunConfig((str(folder),), out, bundle=bundle.root, embeddings="float16", resume=out.exists()))
        question = Question(str(folder / LABELS), label_map=merged)
        fitted = fit_head(out, bundle, question)
        found[folder.resolve().name] = Answers(fitted, _adapted(out, bundle, question, fitted))
    return found


def _adapted(predictions: Path, bundle: Bundle, question: Question, fitted: FittedHead) -> Share | None:
    """Of the same rows as the head's: the method "true shares" of `bench.adaptation`."""
    meaning, counts = LabelMap(bundle.labels, {}), Counter[str]()
    for label, rows in zip(fitted.labels, fitted.counts, strict=True):
        if (meant := meaning(label)) is not None:
            counts[meant] += rows
    if len(counts) < 2:
        return None
    with tempfile.TemporaryDirectory() as folder:
        adapted = Path(folder) / "adapted.parquet"
        adapt_table(predictions, adapted, Adaptation(true_shares(counts, bundle.labels)))
        return own_answer(read_rows(adapted, bundle, question))


def table(found: dict[str, Answers], bundle: Bundle) -> str:
    """The figures in Markdown: UA in percent, with 95 % intervals."""
    rows = [
        f"Bundle `{bundle.id}`, ser-batch {ser_batch.__version__}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|---{'|---:' * (len(COLUMNS) - 1)}|",
    ]
    for corpus, (fitted, adapted) in found.items():
        head = percent(fitted.evaluation.ua, fitted.evaluation.ua_interval, digits=1)
        counts = f"{fitted.evaluation.clips:,} | {len(fitted.labels)} | {fitted.groups or 'not known'}"
        own = f"{_percent(fitted.default)} | {_percent(adapted)}"
        rows.append(f"| {corpus} | {counts} | {100 / len(fitted.labels):.1f} | {own} | **{head}** |")
    return "\n".join([*rows, "", ADAPTED])


def _percent(share: Share | None) -> str:
    return "–" if share is None else percent(share.ua, share.interval, digits=1)


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
