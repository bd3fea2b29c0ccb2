"""Two models on the same labelled clips, with figures known by hand or drawn clip by clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ser_batch
from ser_batch.cli import main
from ser_batch.evaluation.comparison import compare
from ser_batch.evaluation.metrics import unweighted_average_recall
from ser_batch.evaluation.statistics import bootstrap_interval, mcnemar
from support.predictions import softmax, write_predictions

LABELS = ("neutral", "calm", "happy", "sad")
FILES = [f"a/{row:02}.wav" for row in range(60)]
TRUTH = [LABELS[row % 4] for row in range(60)]


def said(seed: int, strength: float) -> np.ndarray:
    """(60, 4) probabilities, right as often as `strength` says."""
    noise = np.random.default_rng(seed).normal(size=(60, 4))
    return softmax(noise + strength * np.eye(4)[np.arange(60) % 4])


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    Path("truth.csv").write_text("path,label\n" + "".join(f"{f},{t}\n" for f, t in zip(FILES, TRUTH, strict=True)))
    write_predictions(Path("first.parquet"), LABELS, FILES, said(0, 1.0))
    write_predictions(Path("second.parquet"), LABELS, FILES, said(1, 2.0))
    return "first.parquet", "second.parquet"


def figures(*arguments: str) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--labels", "truth.csv", "--json", "out.json", "--overwrite"]) == 0
    found = json.loads(Path("out.json").read_text())["comparison"]
    assert isinstance(found, dict)
    return found


def test_figures_are_those_of_clips_drawn_one_by_one() -> None:
    truth = np.repeat([0, 1, 3], [10, 20, 30])
    predicted = [
        np.where(np.random.default_rng(seed).random(60) < share, truth, 2) for seed, share in ((0, 0.5), (1, 0.8))
    ]
    right = [each == truth for each in predicted]
    accuracy, ua, test = compare(truth, right[0], right[1])
    assert (accuracy.first, accuracy.second) == (right[0].mean(), right[1].mean())
    assert ua.first == pytest.approx(unweighted_average_recall(truth, predicted[0], 4))
    assert ua.difference == pytest.approx(unweighted_average_recall(truth, predicted[1], 4) - ua.first)
    assert test == mcnemar(right[0], right[1])
    slow = bootstrap_interval(
        lambda t, a, b: unweighted_average_recall(t, b, 4) - unweighted_average_recall(t, a, 4), truth, *predicted
    )
    assert ua.interval == pytest.approx(slow, abs=0.03)


def test_each_model_has_the_figures_of_its_own_evaluation(tables: tuple[str, str]) -> None:
    for options in ([], ["--map", "calm=neutral"], ["--among", "happy,sad"], ["--map", "calm="]):
        found = figures(*tables, *options)
        for place, name in (("first", tables[0]), ("second", tables[1])):
            main(["evaluate", name, "--labels", "truth.csv", "--json", "own.json", "--overwrite", *options])
            own = json.loads(Path("own.json").read_text())
            assert own["comparison"] is None
            assert found["accuracy"][place] == pytest.approx(own["models"]["fused"]["accuracy"])
            assert found["ua"][place] == pytest.approx(own["models"]["fused"]["ua"])


def test_answers_of_another_tool(tables: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Under base names, in words of its own, one label unknown here, one clip absent and one without an answer."""
    words = {"neutral": "neu", "calm": "boredom", "happy": "Happiness", "sad": "sad"}
    answers = [words[truth] for truth in TRUTH]
    answers[0] = ""
    lines = [f"{Path(file).stem}.flac,{answer}" for file, answer in zip(FILES[:-1], answers, strict=False)]
    Path("tool.csv").write_text("file_name,prediction\n" + "\n".join(lines) + "\n")
    found = figures("first.parquet", "tool.csv")
    assert (found["clips"], found["unanswered"]) == (58, 2)
    assert found["accuracy"]["second"] == (58 - 15) / 58  # every calm clip is called boredom
    text = capsys.readouterr().out
    assert "first.parquet (first) and tool.csv (second) on the 58 clips that both answer" in text
    assert "2 clips have no answer in the second" in text and "exact McNemar p = " in text


def test_probabilities_of_another_tool(tables: tuple[str, str]) -> None:
    """They stand in either place; of labels that mean the same the probabilities are added."""
    lines = [
        f"{file},0.4,0.3,0.3" if truth == "happy" else f"{file},0.3,0.3,0.4"
        for file, truth in zip(FILES, TRUTH, strict=True)
    ]
    Path("tool.csv").write_text("path,p_hap,p_joy,p_sad\n" + "\n".join(lines) + "\n")
    assert figures("first.parquet", "tool.csv")["accuracy"]["second"] == 0.25  # happy, always
    ours = figures("tool.csv", "second.parquet", "--map", "joy=hap,happy=hap")
    assert ours["accuracy"]["first"] == 0.5 and ours["clips"] == 30  # neutral and calm are no labels of the tool


def test_from_python(tables: tuple[str, str]) -> None:
    found = ser_batch.evaluate(*tables, labels="truth.csv", among=["happy", "sad"])
    assert found.comparison is not None and found.comparison.clips == 30
    assert found.comparison.ua.difference == pytest.approx(found.comparison.ua.second - found.models["fused"].ua)


def test_speakers_are_drawn_whole_where_there_are_five(
    tables: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six speakers the second model knows three, whose clips it gets right, and the first none."""
    lines = [f"{file},{truth},s{row // 10}" for row, (file, truth) in enumerate(zip(FILES, TRUTH, strict=True))]
    Path("truth.csv").write_text("path,label,speaker\n" + "\n".join(lines) + "\n")
    answers = [truth if row < 30 else "nothing" for row, truth in enumerate(TRUTH)]
    Path("good.csv").write_text(
        "path,prediction\n" + "".join(f"{f},{a}\n" for f, a in zip(FILES, answers, strict=True))
    )
    write_predictions(Path("first.parquet"), LABELS, FILES, np.eye(4)[(np.arange(60) + 1) % 4])
    found = [figures("first.parquet", "good.csv", *by)["accuracy"]["interval"] for by in ([], ["--by", "speaker"])]
    assert found[0] == pytest.approx([0.37, 0.63], abs=0.03)
    assert found[1] == pytest.approx([1 / 6, 5 / 6], abs=1e-9)  # whole speakers: sixths
    text = capsys.readouterr().out
    assert "bootstrap over clips:" in text and "bootstrap over speaker:" in text
    assert "UA of fused with a bootstrap over the 6 values of speaker: 0.00 [0.0, 0.0]" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,prediction\nother.wav,sad\n", "answers none of the 60 clips"),
        ("path,prediction\na/00.wav,sad\na/00.wav,calm\n", "holds a/00.wav 2 times"),
        ("path,score\na/00.wav,0.5\n", "columns p_<label> or one of answers"),
    ],
)
def test_refused(text: str, message: str, tables: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("tool.csv").write_text(text)
    assert main(["evaluate", "first.parquet", "tool.csv", "--labels", "truth.csv"]) == 2
    assert message in capsys.readouterr().err
