from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.model_card import licence_note, model_card, read_evaluation, read_robustness
from ser_batch.errors import InputError
from ser_batch.evaluation.metrics import evaluate
from training.robustness.measure import Output, Row
from training.robustness.report import Report, write

LABELS = ("calm", "angry")


def figures(correct: int, clips: int = 40) -> dict[str, Any]:
    truth = np.arange(clips) % 2
    predicted = np.where(np.arange(clips) < correct, truth, 1 - truth)
    return evaluate(truth, np.eye(2)[predicted] * 0.8 + 0.1, LABELS).to_dict()


def card(other_speech: Sequence[dict[str, Any]] = (), robustness: Report | None = None, **changes: Any) -> str:
    context = {"backbone": "scratch", "name": "wav2vec2"}
    provenance: dict[str, Any] = {
        "recipe": "compact",
        "seed": 7,
        "data": "ravdess",
        "protocol": "paper",
        "split": {"name": "paper-seed7", "train": 111, "validation": 22, "test": 40},
        "config": {"clip": {"samples": 144_000, "sample_rate": 48_000}, "context": context},
        "environment": {"python": "3.12.1", "processor": "", "packages": {"torch": "9.9", "soxr": None}, "git": None},
    }
    test = {"wav2vec2": figures(21), "spectrogram": figures(27), "fused": figures(33)}
    return model_card(
        test,
        {**provenance, **changes},
        labels=LABELS,
        licence="the note",
        command="ser-train run compact",
        other_speech=other_speech,
        robustness=robustness,
    )


def evaluation(**changes: Any) -> dict[str, Any]:
    """What `ser-batch evaluate --json` writes, as far as it is read here."""
    origin = {"bundle_id": "compact-0123", "backend": "openvino", "precision": "fp32"}
    origin |= {"labels": json.dumps(LABELS), "branches": json.dumps(["wav2vec2", "spectrogram"])}
    models = {"fused": figures(25), "wav2vec2": figures(24), "spectrogram": figures(23)}
    return {"truth": "other.csv, answers among calm", "provenance": origin | changes, "models": models}


def test_every_figure_is_the_run_s() -> None:
    rows = dict(re.findall(r"^\| \**(wav2vec2|spectrogram|fused)\** \| (.*) \|$", card(), re.MULTILINE))
    for output, correct in (("wav2vec2", 21), ("spectrogram", 27), ("fused", 33)):
        measured = figures(correct)
        assert rows[output].split(" | ") == [
            f"{100 * correct / 40:.1f} %",
            f"{100 * measured['accuracy_interval'][0]:.1f} – {100 * measured['accuracy_interval'][1]:.1f} %",
            f"{correct} of 40",
            f"{100 * measured['ua']:.1f} %",
            f"{100 * measured['macro']['f1']:.1f} %",
            f"{measured['ece']:.3f}",
        ]
    assert "| calm | 20 |" in card()


def test_it_says_that_validation_clips_were_trained_on() -> None:
    config = {"clip": {"samples": 144_000, "sample_rate": 48_000}, "context": {"backbone": "scratch", "name": "w"}}
    assert "trained on them too" in card(config=config | {"refit": True})
    assert "trained on them too" not in card(config=config | {"refit": False})
    assert "trained on them too" not in card()


def test_it_says_data_split_recipe_command_and_licence() -> None:
    text = card()
    for part in ("111 train, 22 validation, 40 test", "`paper-seed7`", "24 professional actors", "the note"):
        assert part in text
    assert "    ser-train run compact\n" in text
    assert "Python 3.12.1, torch 9.9 on an unnamed processor; code at commit unknown" in text


def test_it_says_its_limits_in_plain_words() -> None:
    limits = card().partition("## Limits")[2]
    for part in (
        "24 actors",
        "North American English",
        "shares actors",
        "new speakers",
        "spontaneous",
        "decisions about",
    ):
        assert part in limits


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("scratch", "**not** pretrained"),
        ("hub/model", "pretrained `hub/model`, whose own licence applies"),
        ("/home/me/encoder", "pretrained `encoder`, whose own"),
        ("../shared/encoder", "`encoder`"),
    ],
)
def test_it_says_whether_the_context_branch_was_pretrained(backbone: str, said: str) -> None:
    config = {
        "clip": {"samples": 144_000, "sample_rate": 48_000},
        "context": {"backbone": backbone, "name": "context"},
    }
    assert said in card(config=config)


def test_what_holds_for_ravdess_only_is_not_said_of_another_corpus() -> None:
    text = card(data="mine", protocol="given")
    assert "Corpus `mine`." in text and "RAVDESS" not in text and "actors" not in text


def test_other_speech_has_a_section_of_its_own() -> None:
    assert "## Other speech" not in card()
    text = card([evaluation()])
    section = text.partition("## Other speech")[2].partition("\n## ")[0]
    assert "other.csv, answers among calm" in section and "`compact-0123`" in section and "openvino fp32" in section
    fused = next(line for line in section.splitlines() if line.startswith("| **fused**"))
    low, high = figures(25)["ua_interval"]
    assert "| 40 | 62.5 % |" in fused and fused.endswith(f"| 62.5 % | {100 * low:.1f} – {100 * high:.1f} % |")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as an evaluation"),
        ("[]", "cannot be read as an evaluation"),
        (json.dumps({"models": {}}), "cannot be read as an evaluation"),
        (json.dumps({**evaluation(), "models": ["fused"]}), "cannot be read as an evaluation"),
        (
            json.dumps({**evaluation(), "models": {"fused": {"clips": 1}}}),
            "cannot be read.*ua_interval",
        ),
        (json.dumps(evaluation(labels='["calm", "sad"]')), "another model"),
        (json.dumps(evaluation(branches='["hubert", "spectrogram"]')), "another model"),
    ],
)
def test_evaluations_of_anything_else_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation()))
    assert read_evaluation(path, LABELS, ["wav2vec2", "spectrogram"]) == json.loads(path.read_text())
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_evaluation(path, LABELS, ["wav2vec2", "spectrogram"])
    with pytest.raises(InputError, match="cannot be read"):
        read_evaluation(tmp_path / "none.json", LABELS, ["wav2vec2", "spectrogram"])


def test_licence_note_prefers_what_is_given_then_the_run_s_own() -> None:
    assert licence_note({"data": "ravdess", "licence": "its own"}, "given") == "given"
    assert licence_note({"data": "ravdess", "licence": "its own"}) == "its own"
    assert "RAVDESS" in licence_note({"data": "ravdess"})


def test_the_licence_of_an_encoder_in_the_bundle_follows() -> None:
    whisper = {"config": {"context": {"backbone": "openai/whisper-base"}}}
    assert licence_note(whisper, "given").startswith("given The context branch holds weights of Whisper base")
    assert "MIT licence: Copyright (c) 2022 OpenAI" in licence_note(whisper | {"data": "ravdess"})
    assert licence_note({"config": {"context": {"backbone": "other/encoder"}}}, "given") == "given"


def test_what_is_left_under_degradations_is_in_the_card(tmp_path: Path) -> None:
    outputs = {name: Output(0.5, 0.5, 1, 0, 0.25) for name in ("fused", "wav2vec2", "spectrogram")}
    rows = tuple(Row(name, outputs, ()) for name in ("as it is", "8 kHz"))
    measured = {"command": "ser-train robustness", "date": "2020-01-01", "git": None}
    corpus = {"name": "toy", "recordings": 2, "sha256": ""}
    report = Report("toy-0", "onnxruntime fp32", corpus, "all", 2, LABELS, {"street": "synthesised"}, rows, measured)
    write(report, tmp_path / "report.json")
    found = read_robustness(tmp_path / "report.json", LABELS, ("wav2vec2", "spectrogram"))
    assert "| 8 kHz | 50.0 | +0.0 |" in card(robustness=found) and "8 kHz" not in card()
    for labels, branches in ((("calm", "sad"), ("wav2vec2", "spectrogram")), (LABELS, ("wav2vec2",))):
        with pytest.raises(InputError, match="another model"):
            read_robustness(tmp_path / "report.json", labels, branches)
