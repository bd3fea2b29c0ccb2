"""The reproduction, from committed results to pages: generated regions of docs/reproduction.md, and a page of its own.

A region lies between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; what is outside is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from training.files import write_text
from training.reproduction.assumptions import assumptions_table
from training.reproduction.claims import claims_table
from training.reproduction.figures import confusion_figure, curves_figure, fusion_figure, reliability_figure
from training.reproduction.protocols import by_seed
from training.reproduction.provenance import TITLE, settings
from training.reproduction.results import RESULTS, Experiment, load
from training.reproduction.tables import ablation_table, protocol_table, select, table_iii, table_iv, table_v

PAGE = Path(__file__).parents[2] / "docs" / "reproduction.md"
REGION = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
Region = Callable[[Sequence[Experiment]], str]
REGIONS: dict[str, Region] = {
    "claims": claims_table,
    "table-iii": table_iii,
    "table-iv": table_iv,
    "table-v": table_v,
    "protocol-paper": lambda experiments: protocol_table(experiments, "paper"),
    "protocol-emobox": lambda experiments: protocol_table(experiments, "emobox"),
    "protocol-sentence": lambda experiments: protocol_table(experiments, "sentence"),
    "ablation": ablation_table,
    "settings": settings,
    "assumptions": lambda _: assumptions_table(),
}


def renew(page: Path = PAGE, results: Path = RESULTS) -> bool:
    """Fill every generated region of a page from committed results; whether it changed."""
    before = _text(page)
    after = filled(before, load(results))
    if after != before:
        write_text(page, after)
    return after != before


def is_current(page: Path = PAGE, results: Path = RESULTS) -> bool:
    """Whether the page is what `renew` would leave."""
    text = _text(page)
    return filled(text, load(results)) == text


def _text(page: Path) -> str:
    if not page.is_file():
        raise TrainingError(f"there is no page {page}", expected="one with generated regions, as docs/reproduction.md")
    return page.read_text()


def filled(text: str, experiments: Sequence[Experiment]) -> str:
    """A page's text with its regions generated anew; TrainingError for a region nobody generates, or an open one."""
    unknown = sorted(set(re.findall(r"<!-- generated: ([\w-]+) -->", text)) - set(REGIONS))
    if unknown:
        raise TrainingError(f"no such generated region: {unknown[0]}", expected=", ".join(REGIONS))
    if len(REGION.findall(text)) != text.count("<!-- generated: "):
        raise TrainingError("a generated region is not closed", expected="<!-- end of NAME -->")
    return REGION.sub(lambda match: f"{match[1]}{REGIONS[match['name']](experiments)}\n{match[3]}", text)


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


def write_page(folder: Path, results: Path, figures: Sequence[str]) -> Path:
    """One page of everything measured, paper beside measured, with the figures of `folder`/figures."""
    titles = {
        "claims": "The paper's claims",
        "table-iii": "Table III",
        "table-iv": "Table IV: unfrozen layers",
        "table-v": "Table V: fusion",
        "protocol-paper": "The paper's split",
        "protocol-emobox": "EmoBox's six speaker-independent folds",
        "protocol-sentence": "Sentence-open",
        "ablation": "Ablations",
        "settings": TITLE,
        "assumptions": "Assumptions",
    }
    experiments = load(results)
    parts = ["# Reproduction", "Per cent; differences are measured − paper, in points."]
    for region, title in titles.items():
        parts += [f"## {title}", REGIONS[region](experiments)]
    parts += ["## Figures", *(f"![{name}](figures/{name}.png)" for name in figures)]
    page = folder / "reproduction.md"
    write_text(page, "\n\n".join(parts) + "\n")
    return page
