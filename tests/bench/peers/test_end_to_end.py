from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

pytest.importorskip("torch")

from bench import results
from bench.archive import read_clips
from bench.cli import main
from bench.peers import compare as peers
from bench.peers import end_to_end
from bench.peers.end_to_end import EndToEnd, measure_end_to_end
from bench.peers.models import Model, random_branches
from bench.results import compare, warnings_of
from bench.tables import tables
from ser_batch.errors import EngineError
from ser_batch.recordings.find import find_recordings

TORCH, TRANSFORMERS, PIPELINE = "torch eager fp32", "transformers pipeline fp32", "onnxruntime fp32"


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five noises of 2 s at 16 kHz, and one broken file."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(3)
    for number in range(5):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, 32_000), 16_000)
    (folder / "2-broken.wav").write_bytes(b"RIFF")
    return folder


def measure(
    model: Model, audio: Path, backends: tuple[str, ...] = ("onnxruntime:fp32",), **more: Any
) -> tuple[list[EndToEnd], dict[str, str]]:
    clips, recordings = read_clips(find_recordings([audio]), model.bundle.manifest.clip, 9)
    options = {"workers": 1, "batch": 2, "repeats": 1, "threads": 1, **more}
    return measure_end_to_end(model, backends, recordings, clips, **options)


def relabelled(real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, whose table then has another label for the first file."""

    def call(recordings: Any, scorer: Any, out: Path, **options: Any) -> None:
        real(recordings, scorer, out, **options)
        table = pq.read_table(out)
        labels = table["label"].to_pylist()
        labels[0] = next(label for label in scorer.labels if label != labels[0])
        pq.write_table(table.set_column(table.column_names.index("label"), "label", [labels]), out)

    return call


@pytest.mark.usefixtures("models_before")
def test_every_engine_labels_the_same_files_alike(audio, tmp_path, capsys):
    arguments = ["end-to-end", str(audio), "--size", "small", "--backend", "onnxruntime:fp32", "--workers", "1"]
    arguments += ["--batch-size", "2", "--repeats", "2", "--threads", "1", "--json", str(tmp_path / "e.json")]
    assert main(arguments) == 0
    result = results.read(tmp_path / "e.json")
    found = result["candidates"]
    around = {TORCH: "plain loop", TRANSFORMERS: "plain loop", PIPELINE: "the pipeline"}
    assert [way["label"] for way in found] == [f"{engine}, {what}" for engine, what in around.items()]
    for way in found:
        assert (way["files"], way["batch"], way["seconds"]["n"]) == (5, 2, 2)
        assert (way["differing"], way["unlabelled"]) == (0, 0)
        assert set(way["speedup"]) == {TORCH, TRANSFORMERS}
        assert way["max_difference"] < 1e-4
    assert found[0]["speedup"][TORCH] == found[1]["speedup"][TRANSFORMERS] == 1
    (table,) = tables(result)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "From files to a table of labels" in capsys.readouterr().out
    assert [ratio.ratio for ratio in compare(result, result).ratios] == [1.0] * 3
    # Random weights give nearly the same probabilities to every file.
    assert sum("all files get one label" in line for line in warnings_of(result)) == 1


@pytest.mark.usefixtures("models_before")
def test_a_trained_run_lends_its_context_branch(audio, toy_run, tmp_path):
    arguments = ["end-to-end", str(audio), "--run", str(toy_run), "--backend", "onnxruntime:fp32", "--workers", "1"]
    assert main([*arguments, "--files", "2", "--repeats", "1", "--json", str(tmp_path / "e.json")]) == 0
    result = results.read(tmp_path / "e.json")
    assert result["model"].startswith("toy-")
    assert [way["files"] for way in result["candidates"]] == [2, 2, 2]


def test_engines_take_turns_ratios_are_of_rounds_and_warm_up_does_not_count(small_model, audio, monkeypatch):
    # A clock of its own: torch's loop takes 8 s, transformers' 6 s and the pipeline 2 s, and in warm-up 100 s more.
    now, calls = [0.0], []

    def passing(real: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
        def call(recordings: Any, scorer: Any, *arguments: Any, **options: Any) -> None:
            calls.append(scorer.engine.name)
            now[0] += seconds[scorer.engine.name] + (100 if len(calls) <= 3 else 0)
            real(recordings, scorer, *arguments, **options)

        return call

    loops = {"torch eager": 8.0, "transformers pipeline": 6.0}
    monkeypatch.setattr(end_to_end, "plain_loop", passing(end_to_end.plain_loop, loops))
    monkeypatch.setattr(end_to_end, "run_pipeline", passing(end_to_end.run_pipeline, {"onnxruntime": 2.0}))
    found, _ = measure(small_model, audio, repeats=2, clock=lambda: now[0])
    first, second, third = "torch eager", "transformers pipeline", "onnxruntime"
    assert calls == [first, second, third, second, third, first, third, first, second]
    assert [way.seconds.raw for way in found] == [(8, 8), (6, 6), (2, 2)]
    assert [way.files_per_second for way in found] == [5 / 8, 5 / 6, 5 / 2]
    assert found[2].speedup == {TORCH: 4, TRANSFORMERS: 3}


def test_another_label_is_counted_and_in_float32_an_error(small_model, audio, monkeypatch):
    monkeypatch.setattr(end_to_end, "run_pipeline", relabelled(end_to_end.run_pipeline))
    with pytest.raises(EngineError, match=f"{PIPELINE} does not label as {TORCH} does; got 1 of 5 files"):
        measure(small_model, audio)

    class Short(end_to_end.Scorer):
        def __init__(self, bundle: Any, engine: Any) -> None:
            super().__init__(bundle, engine)
            if engine.name == "onnxruntime":
                engine.precision = "bf16"

    monkeypatch.setattr(end_to_end, "Scorer", Short)
    found, _ = measure(small_model, audio)
    assert [way.differing for way in found] == [0, 0, 1]


def test_a_float32_engine_that_computes_something_else_is_an_error(small_model, audio):
    _, branches = random_branches("small", seed=9, only_context=True)
    with pytest.raises(EngineError, match="does not compute what the others do"):
        measure(Model(branches, small_model.bundle), audio)


def test_a_peer_that_cannot_be_made_is_left_out_with_its_reason(small_model, audio, monkeypatch):
    def refuse(*_: Any) -> None:
        raise EngineError("the pipeline has no such model")

    monkeypatch.setattr(peers, "_transformers", refuse)
    found, missing = measure(small_model, audio)
    assert missing == {TRANSFORMERS: "the pipeline has no such model"}
    assert [set(way.speedup) for way in found] == [{TORCH}] * 2
    (table,) = tables(results.document("end_to_end", {}, candidates=found, model="toy"))
    assert all(len(row) == len(table.columns) for row in table.rows)
