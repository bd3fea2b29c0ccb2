from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from bench.peers.compare import OPTIMUM, compare_peers, exported_graphs
from bench.peers.models import Model, random_branches
from bench.peers.torch_engine import TorchEngine
from bench.peers.transformers_engine import (
    OptimumEngine,
    OptimumGraph,
    TransformersEngine,
    check_python,
    classification_model,
    export_by_optimum,
)
from bench.timing import check_equal
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule
from ser_batch.errors import EngineError

ROOT = Path(__file__).parents[3]
STAND_IN = """
def onnx_export_from_model(model, out, task, do_validation):
    import torch

    names = {"input_names": ["input_values"], "output_names": ["logits"]}
    axes = {"input_values": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(model, (torch.zeros(2, 48_000),), out / "model.onnx", dynamic_axes=axes, dynamo=False, **names)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with a stand-in for optimum's exporter."""
    site = tmp_path_factory.mktemp("site")
    exporter = site / "optimum" / "exporters" / "onnx.py"
    exporter.parent.mkdir(parents=True)
    exporter.write_text(STAND_IN)
    # This environment's torchaudio may need the project's own repair before transformers can be imported by a script.
    repair = "from training.models import repair_torchaudio; repair_torchaudio()"
    (site / "sitecustomize.py").write_text(f"import sys\nif '-c' not in sys.orig_argv:\n    {repair}\n")
    for name in ("optimum", "optimum_onnx"):
        metadata = site / f"{name}-0.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.0\n")
    return site


@pytest.fixture(scope="module")
def optimum_python(site: Path) -> Path:
    """A Python with optimum: the one that SER_BATCH_OPTIMUM names, else this one with the stand-in."""
    if given := os.environ.get("SER_BATCH_OPTIMUM"):
        return Path(given)
    python = site / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}:{ROOT}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def exported_here(site: Path, branch: torch.nn.Module, folder: Path) -> OptimumGraph:
    """What the stand-in exports, in this process: torch is imported already."""

    def run(command: Sequence[str | Path]) -> str:
        told = io.StringIO()
        with redirect_stdout(told), pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(site)
            patch.setattr(sys, "argv", [*map(str, command[1:])])
            runpy.run_path(str(command[1]), run_name="__main__")
        return told.getvalue().strip()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.peers.transformers_engine._run", run)
        return export_by_optimum(Path(sys.executable), branch, folder)


def test_transformers_pipeline_computes_the_same_function():
    _, branches = random_branches("small", seed=1)
    engines = {
        "torch": TorchEngine({"wav2vec2": branches["wav2vec2"]}),
        "pipeline": TransformersEngine("wav2vec2", branches["wav2vec2"], sample_rate=48_000),
    }
    differences = check_equal(engines, "wav2vec2", synthetic_clips(ClipRule())[:3])
    assert differences["pipeline"] < 1e-5
    with pytest.raises(EngineError, match=r"wav2vec 2\.0 branch"):
        classification_model(branches["spectrogram"])


@pytest.mark.slow
def test_optimums_graph_computes_the_same_function_from_48_khz_on(small_model: Model, optimum_python, tmp_path):
    model = small_model
    check_python(optimum_python)
    graph = export_by_optimum(optimum_python, model.branches["wav2vec2"], tmp_path / "optimum")
    engines = {
        "torch": TorchEngine(model.branches),
        "optimum": OptimumEngine("wav2vec2", graph, model.branches["wav2vec2"], sample_rate=48_000, threads=1),
    }
    clips = synthetic_clips(ClipRule())[:3]
    assert check_equal(engines, "wav2vec2", clips)["optimum"] < 1e-5
    # A quiet clip is z-normed, too.
    quiet = (clips[1:2] * 1e-3).astype(np.float32)
    assert check_equal(engines, "wav2vec2", quiet)["optimum"] < 1e-5


@pytest.mark.filterwarnings("ignore")  # of torch's older exporter, as optimum uses it
def test_optimum_takes_its_turns_beside_the_others(small_model: Model, site, tmp_path, monkeypatch):
    model, graph = small_model, exported_here(site, small_model.branches["wav2vec2"], tmp_path / "optimum")
    monkeypatch.setattr(torch, "compile", lambda branch, **_: branch)  # that is tried in test_torch_engine.py
    clips = synthetic_clips(ClipRule())[:2]
    found, absent = compare_peers(model, ("onnxruntime:fp32",), clips, (1,), rounds=1, optimum=graph)
    assert OPTIMUM in {candidate.label for candidate in found} and OPTIMUM not in absent
    own, theirs = exported_graphs(model, "wav2vec2", graph)
    assert own.nodes < theirs.nodes and "ser-batch" in own.maker and theirs.maker.startswith("optimum-onnx 0.")


def test_a_python_without_optimum_is_told_how_to_get_it(tmp_path):
    with pytest.raises(EngineError, match=r"optimum fails in .*No module named.*ENV/bin/pip install"):
        check_python(Path(sys.executable))
    with pytest.raises(EngineError, match="cannot be run"):
        check_python(tmp_path / "absent")


def test_a_branch_without_an_equal_in_transformers_is_refused(optimum_python, tmp_path):
    _, branches = random_branches("small")
    with pytest.raises(EngineError, match=r"wav2vec 2\.0 branch"):
        export_by_optimum(optimum_python, branches["spectrogram"], tmp_path / "export")
