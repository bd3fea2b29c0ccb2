"""The context branch trained and measured by itself, for studies that change nothing but it."""

from __future__ import annotations

from typing import Any

from training import runs
from training.files import read_arrays, write_arrays
from training.material import Material
from training.predictions import figures, stage_figures
from training.stages import branch_probabilities, train_context

PREDICTIONS = "context_predictions.npz"


def measure_context(material: Material) -> dict[str, Any]:
    """The context branch's figures on test clips, its accuracy on validation clips, and what its training took.

    With `refit` there are no validation clips that it has not been trained on: their accuracy is None.
    """
    arrays = _predictions(material)
    truth, validation = (material.targets(part).numpy() for part in ("test", "validation"))
    held_out = None if material.config.refit else (validation, arrays["validation"])
    row = figures(truth, arrays["test"], material.corpus.labels, held_out)
    stage = stage_figures(material.folder)[material.config.context.name]
    right = float((held_out[1].argmax(axis=1) == validation).mean()) if held_out else None
    trained = int(arrays["trained_parameters"])
    return {"trained_parameters": trained, "stage": stage, "validation_accuracy": right, "figures": row}


def _predictions(material: Material) -> dict[str, Any]:
    """Part → probabilities (n, C) of the context branch, trained if it is not yet."""
    path, name = material.folder / PREDICTIONS, material.config.context.name
    if path.is_file():
        return read_arrays(path)
    branches = runs.build_branches(material.config, len(material.corpus.labels))
    context = {name: branches[name]}
    train_context(material, context)
    trained = sum(p.numel() for p in context[name].parameters() if p.requires_grad)
    arrays = {part: branch_probabilities(material, context, part)[name] for part in ("validation", "test")}
    write_arrays(path, {**arrays, "trained_parameters": trained})
    return read_arrays(path)
