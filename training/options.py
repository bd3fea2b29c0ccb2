"""What the commands of `ser-train` share: options, the runtime that they make, and what they print while training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from ser_batch.evaluation.statistics import Interval, percent

if TYPE_CHECKING:
    from training.data.corpus import Corpus
    from training.runtime import Runtime

PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
PROTOCOLS = click.Choice(["paper", "emobox", "sentence", "speakers", "given"])
Command = TypeVar("Command", bound=Callable[..., Any])


class Numbers(click.ParamType):
    """Whole numbers such as "0,1,2" or "0-4"."""

    name = "numbers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers in the order given; a usage error for anything else."""
        if isinstance(value, list):
            return value
        found = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            last = last if dash else first
            if not first.isdecimal() or not last.isdecimal() or int(first) > int(last):
                self.fail(f"{value!r} is not a list of numbers such as 0,1,2 or 0-4", param, ctx)
            found += range(int(first), int(last) + 1)
        return found


NUMBERS = Numbers()
results_option = click.option(
    "--results", type=FOLDER, default="results", show_default=True, help="Folder of the results, as JSON."
)


def corpus_options(command: Command | None = None, *, required: bool = True) -> Any:
    """The options that name a corpus; see `corpus_of`."""
    if command is None:
        return lambda command: corpus_options(command, required=required)
    table = "a .csv or .parquet table with one row per recording"
    data = click.option("--data", required=required, type=PATH, help=f"Folder of the RAVDESS speech clips, or {table}.")
    labels = click.option("--labels", help="Order of a table's classes, such as a,b,c.  [default: sorted]")
    return data(labels(command))


def runtime_options(command: Command) -> Command:
    """The options that say what to train with; see `runtime_of`."""
    device = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
    compiled = click.option("--compile", is_flag=True, help="torch.compile the branches; pays off in long stages.")
    cache = click.option("--cache", type=FOLDER, help="Folder of features that several runs share.")
    return device(compiled(cache(command)))


def corpus_of(given: dict[str, Any]) -> Corpus:
    """The corpus that `corpus_options` name."""
    from training.data.table import load_corpus

    labels = tuple(label.strip() for label in given["labels"].split(",")) if given["labels"] else None
    return load_corpus(given["data"], labels)


def runtime_of(given: dict[str, Any]) -> Runtime:
    """The runtime that `runtime_options` describe, which prints every epoch."""
    from training.runtime import Runtime, find_device, tune_cpu

    tune_cpu()
    return Runtime(find_device(given["device"]), given["compile"], print_epoch, given["cache"])


def print_epoch(stage: str, row: dict[str, float]) -> None:
    """One epoch's figures on one line of standard error."""
    figures = f"loss {row['train_loss']:.3f}  "
    held_out = [name for name in ("loss", "accuracy", "macro_f1", "cosine") if name in row]
    if held_out:
        figures += "validation: " + ", ".join(f"{name.replace('_f', '-F')} {row[name]:.3f}" for name in held_out) + "  "
    figures += f"{row['seconds']:.1f} s"
    Console(stderr=True, highlight=False).print(f"{stage:12} epoch {row['epoch']:3.0f}  {figures}", soft_wrap=True)


def print_result(test: dict[str, dict[str, Any]], split: str) -> None:
    """The test figures of each branch and of the fusion as a table on standard output, with 95 % intervals.

    Args:
        split: its name.
    """
    if any("corpora" in scores for scores in test.values()):
        names = list(next(iter(test.values()))["corpora"])
        table = Table("model", *names, "mean", title="test, UA")
        for model, scores in test.items():
            figures = [*(scores["corpora"][name]["ua"] for name in names), scores["ua"]]
            table.add_row(model, *(f"{100 * value:.1f}" for value in figures))
        Console().print(table)
        return
    clips = next(iter(test.values()))["clips"]
    table = Table(
        "model", "accuracy", "UA", "macro-P", "macro-F1", title=f"test: {clips} clips of split {split}, 95 % intervals"
    )
    for model, scores in test.items():
        shares = (percent(scores[name], Interval(*scores[f"{name}_interval"])) for name in ("accuracy", "ua"))
        table.add_row(model, *shares, *(f"{100 * scores['macro'][name]:.2f}" for name in ("precision", "f1")))
    Console().print(table)


def print_diagnostics(run: Path, result: dict[str, Any] | None) -> None:
    """A few sentences on standard error per branch trained: whether all of it trained, and what each part is worth.

    Of a finished run also whether the fusion is worse than a branch alone.
    """
    from training.config import load_config
    from training.diagnostics import of_the_fusion, read_all, summary

    said = [f"{name}: {summary(found)}" for name, found in read_all(run).items()]
    if result and "validation" in result:
        said.append(of_the_fusion(result["validation"], load_config(run / "config.json").fusion.solver) or "")
    for line in filter(None, said):
        Console(stderr=True, highlight=False).print(line, soft_wrap=True)
