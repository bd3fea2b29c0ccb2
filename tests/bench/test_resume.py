from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import results, resume
from bench.cli import main
from bench.processes import Finished
from bench.results import compare, warnings_of
from bench.resume import ADDED, NOTHING, WHOLE, measure_resume
from bench.tables import tables
from ser_batch.errors import InputError
from ser_batch.recordings.find import find_recordings


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.flac"):
        soundfile.write(folder / name, rng.uniform(-0.3, 0.3, 8_000), 8_000)
    return folder


@pytest.fixture
def flags(monkeypatch) -> list[tuple[str, ...]]:
    """The flags of processes that take 2 s and 3 ms a file, 1 s a file where it is to be scored; none is started."""
    known: set[str] = set()
    flags: list[tuple[str, ...]] = []

    def run_archive(folder, bundle, backend, *given):
        flags.append(given)
        names = {f"{folder}/{path.name}" for path in (folder / "audio").iterdir()}
        new = names - known
        known.update(names)
        end = f'{{"event": "end", "rows": {len(names)}, "reused": {len(names) - len(new)}}}'
        return Finished(2 + 0.003 * len(names) + len(new), 5, f'{{"event": "progress"}}\n{end}\nfailed: a.wav: why')

    monkeypatch.setattr(resume, "run_archive", run_archive)
    return flags


def check(result: results.Document, said: str) -> None:
    """The result of twenty files: its steps, its table, its warnings and what it compares to itself."""
    steps = result["steps"]
    assert [(s["step"], s["files"], s["scored"], s["reused"], s["seconds"]["n"]) for s in steps] == [
        *((WHOLE, 1, 1, 0, 1), (NOTHING, 1, 0, 1, 1), (ADDED, 2, 1, 1, 1)),
        *((WHOLE, 20, 20, 0, 1), (NOTHING, 20, 0, 20, 1), (ADDED, 21, 1, 20, 1)),
    ]
    floor, nothing = steps[1]["seconds"]["median"], steps[4]["seconds"]["median"]
    assert steps[4]["looking"] == pytest.approx((nothing - floor) / 19 * 1000, abs=1e-6)
    assert all(s["looking"] is None for s in steps if s is not steps[4])
    (table,) = tables(result)
    assert all(len(row) == len(table.columns) for row in table.rows) and NOTHING in said
    assert any(f"{WHOLE}, 20 files: one timing only" in line for line in warnings_of(result))
    assert [ratio.ratio for ratio in compare(result, result).ratios] == [1.0] * 6


def measured(toy_bundle, audio, out: Path) -> results.Document:
    arguments = ["resume", str(audio), "--bundle", str(toy_bundle.root), "--files", "20", "--repeats", "1"]
    assert main([*arguments, "--json", str(out)]) == 0
    return results.read(out)


@pytest.mark.slow  # six whole processes
def test_resuming_scores_nothing_again_and_what_is_new_once(toy_bundle, audio, tmp_path, capsys):
    result = measured(toy_bundle, audio, tmp_path / "r.json")
    check(result, capsys.readouterr().out)
    assert all(s["peak_rss"] > 1e7 and s["bundle"] == toy_bundle.id for s in result["steps"])


@pytest.mark.usefixtures("flags")
def test_the_command_measures_every_step(toy_bundle, audio, tmp_path, capsys):
    check(measured(toy_bundle, audio, tmp_path / "r.json"), capsys.readouterr().out)


def test_checking_an_archive_is_the_time_beyond_one_file(toy_bundle, audio, flags):
    """The check of a file takes 3 ms."""
    found = list(measure_resume(find_recordings([audio]), [300, 100, 300], toy_bundle, "onnxruntime", repeats=2))
    assert [step.seconds.n for step in found] == [1, 2, 1] * 3
    assert [step.files for step in found if step.step == NOTHING] == [1, 100, 300]
    assert [step.looking for step in found if step.looking is not None] == pytest.approx([3, 3])
    assert [step.files for step in found if step.step == ADDED] == [2, 101, 303]
    assert flags == [("--json",), *[("--json", "--resume")] * 3] * 3


def test_a_count_below_one_is_refused_before_anything_runs(toy_bundle, audio, monkeypatch):
    monkeypatch.setattr(resume, "run_archive", None)
    for counts, repeats in (([5, 0], 1), ([5], 0), ([], 1)):
        with pytest.raises(InputError, match="at least 1"):
            next(measure_resume(find_recordings([audio]), counts, toy_bundle, "onnxruntime", repeats))
