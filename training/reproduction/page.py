"""The reproduction, from results to pages: generated regions of docs/reproduction.md, and a page of its own.

A region lies between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; what is outside is written by hand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from ser_batch.files import write_atomically
from ser_batch.text import markdown_table
from training import config
from training.reproduction.figures import confusion_figure, curves_figure, fusion_figure, reliability_figure
from training.reproduction.paper import claims_table
from training.reproduction.protocols import by_seed
from training.reproduction.results import Experiment, load, select
from training.reproduction.tables import (
    TITLE,
    ablation_table,
    loco_table,
    protocol_table,
    settings,
    table_iii,
    table_iv,
    table_v,
)
from training.robustness.report import ROBUSTNESS, Report, markdown, read_all

ASSUMED = ("ancestor", "ours")
"""Origins of a value that the paper does not give, as the fields of the configuration name them."""
REGION = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)


def config_fields() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every field of every class of the configuration, by its dotted name."""
    for name, kind in vars(config).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == config.__name__:
            yield from ((f"{name}.{field.name}", field) for field in dataclasses.fields(kind))


def assumptions_table(fields: Iterable[tuple[str, dataclasses.Field[Any]]]) -> str:
    """What the paper leaves open and the configuration fills in, as a Markdown table."""
    rows = []
    for name, field in fields:
        origins = [origin for origin in ASSUMED if origin in field.metadata]
        if origins:
            texts = [field.metadata[origin] for origin in origins]
            if "paper" in field.metadata:
                texts.insert(0, f"{field.metadata['paper']}: {field.metadata['text']}")
            rows.append((f"`{name}`", f"`{_default(field)}`", " and ".join(origins), " ".join(texts)))
    return markdown_table(["field of training/config.py", "value", "from", "what it is"], rows)


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        value = field.default_factory() if field.default_factory is not dataclasses.MISSING else "(required)"
        return str(value)
    return f"{type(value).__name__}(…)" if dataclasses.is_dataclass(value) else repr(value)


Region = Callable[[Sequence[Experiment]], str]
REGIONS: dict[str, Region] = {
    "claims": claims_table,
    "table-iii": table_iii,
    "table-iv": table_iv,
    "table-v": table_v,
    "protocol-paper": lambda experiments: protocol_table(experiments, "paper"),
    "protocol-emobox": lambda experiments: protocol_table(experiments, "emobox"),
    "protocol-sentence": lambda experiments: protocol_table(experiments, "sentence"),
    "loco": loco_table,
    "ablation": ablation_table,
    "settings": settings,
    "assumptions": lambda _: assumptions_table(config_fields()),
}
"""What is made of experiments; `ROBUSTNESS` is made of its own reports."""
PAGE = {
    "claims": "The paper's claims",
    "table-iii": "Table III",
    "table-iv": "Table IV: unfrozen layers",
    "table-v": "Table V: fusion",
    "protocol-paper": "The paper's split",
    "protocol-emobox": "EmoBox's six speaker-independent folds",
    "protocol-sentence": "Sentence-open",
    "loco": "Corpora never heard",
    "ablation": "Ablations",
    "settings": TITLE,
    "assumptions": "Assumptions",
}
"""Region → its title on a page of its own."""


def renew(page: Path, results: Path) -> bool:
    """Fill every generated region of a page from a folder of results; returns whether it changed.

    A page that is not there is made, with every region.

    Raises TrainingError for a page without a region, and for a new one without results.
    """
    experiments, reports = load(results), read_all(results)
    if not page.exists() and not experiments:
        raise TrainingError(f"{results} holds no results", expected="JSON of ser-train protocol, say")
    before = _text(page) if page.exists() else new_page()
    if "<!-- generated: " not in before:
        raise TrainingError(f"{page} has no generated region", remedy="Name a page that is not there: it is made.")
    after = filled(before, experiments, reports)
    if after != before:
        write_atomically(page, after)
    return after != before


def is_current(page: Path, results: Path) -> bool:
    """Whether the page is what `renew` would leave."""
    text = _text(page)
    return filled(text, load(results), read_all(results)) == text


def _text(page: Path) -> str:
    if not page.is_file():
        raise TrainingError(f"there is no page {page}", expected="one with generated regions, as docs/reproduction.md")
    return page.read_text()


def filled(text: str, experiments: Sequence[Experiment], reports: Sequence[Report] = ()) -> str:
    """A page's text with its regions generated anew; TrainingError for a region nobody generates, or an open one."""
    known = {name: partial(region, experiments) for name, region in REGIONS.items()}
    known[ROBUSTNESS] = lambda: "\n\n".join(map(markdown, reports)) or "Nothing was measured."
    unknown = sorted(set(re.findall(r"<!-- generated: ([\w-]+) -->", text)) - set(known))
    if unknown:
        raise TrainingError(f"no such generated region: {unknown[0]}", expected=", ".join(known))
    if len(REGION.findall(text)) != text.count("<!-- generated: "):
        raise TrainingError("a generated region is not closed", expected="<!-- end of NAME -->")
    return REGION.sub(lambda match: f"{match[1]}{known[match['name']]()}\n{match[3]}", text)


def draw(experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """Every figure that the experiments hold, as PNG and SVG in `folder`; returns the figures' names."""
    drawn = []

    def take(draw: Callable[..., None], kind: str, experiment: Experiment, title: str, content: Any) -> None:
        name = f"{kind}-{experiment.backbone}-{experiment.recipe}"
        draw(content, folder, name, f"{title}: {experiment.backbone}, recipe {experiment.recipe}")
        drawn.append(name)

    for experiment in select(experiments, "protocol", "paper"):
        run = next(iter(by_seed(experiment.results["runs"].values()).values()))[0]
        fused, seed = run["models"]["fused"], run["seed"]
        confusion = partial(confusion_figure, labels=run["labels"])
        take(confusion, "fig2", experiment, f"Fused, seed {seed}", fused["confusion"])
        take(curves_figure, "fig3", experiment, f"Training, seed {seed}", run["stages"])
        take(reliability_figure, "reliability", experiment, f"Fused, seed {seed}", fused)
    for experiment in select(experiments, "unfreezing", "paper"):
        curves = {f"{run['layers']} unfrozen": run["stage"] for run in experiment.results["runs"].values()}
        take(curves_figure, "fig3-unfreezing", experiment, "Training", curves)
    for experiment in select(experiments, "fusion", "paper"):
        take(fusion_figure, "fig4", experiment, "Table V", experiment.results["rows"])
    return drawn


def new_page() -> str:
    """A page of every region that experiments fill, still empty."""
    parts = ["# Reproduction", "Per cent; differences are measured − paper, in points."]
    for region, title in PAGE.items():
        parts += [f"## {title}", f"<!-- generated: {region} -->\n<!-- end of {region} -->"]
    return "\n\n".join(parts) + "\n"


def write_page(folder: Path, results: Path, figures: Sequence[str]) -> Path:
    """One page of everything measured, paper beside measured, with the figures of `folder`/figures."""
    shown = "\n\n".join(["## Figures", *(f"![{name}](figures/{name}.png)" for name in figures)])
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "reproduction.md"
    write_atomically(page, f"{filled(new_page(), load(results))}\n{shown}\n")
    return page
