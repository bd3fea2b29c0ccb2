"""`ser-batch adapt` on tables whose right answer is known: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ser_batch.adaptation.adapt import Adaptation
from ser_batch.adaptation.table import adapt_table, format_adapted
from ser_batch.arrow import strings
from ser_batch.cli import main
from ser_batch.evaluation.evaluate import Question, evaluate_predictions
from ser_batch.evaluation.predictions import UNADAPTED, read_predictions
from support.predictions import softmax, write_predictions

LABELS = ("neutral", "happy", "angry")
WRONG = np.array([-1.5, 2.5, 0.0])
"""What the model of these tests adds to the logits: it says happy too often."""


def archive(path: Path, counts: tuple[int, ...], *, windows: int = 1, seed: int = 0) -> np.ndarray:
    """Write predictions of `counts` recordings of each label, with an error row and a silent one; give the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(3), counts)).repeat(windows)
    logits = 1.5 * (rng.normal(size=(len(truth), 3)) + 1.5 * np.eye(3)[truth]) + WRONG
    scored = len(truth)
    names = [f"a/{row // windows:05}.wav" for row in range(scored)]
    handed = {
        "speaker": strings([f"s{row // windows % 4}" for row in range(scored)] + [None, None]),
        "given_label": strings([LABELS[i] for i in truth] + [None, None]),
    }
    write_predictions(
        path,
        LABELS,
        [*names, "a/broken.wav", "a/silent.wav"],
        np.vstack([softmax(logits), np.full((2, 3), np.nan)]),
        statuses=["ok"] * scored + ["error", "silent"],
        errors=[None] * scored + ["cannot be decoded", None],
        handed=handed,
        branch="context",
    )
    return truth


def few(path: Path, truth: np.ndarray, count: int) -> str:
    path.write_text("path,label\n" + "\n".join(f"a/{row:05}.wav,{LABELS[truth[row]]}" for row in range(count)))
    return str(path)


def ua(path: Path) -> dict[str, float]:
    served = evaluate_predictions(path, Question(column="label"))
    return {name: found.ua for name, found in served.models.items()}


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    archive(tmp_path / "preds.parquet", (100, 100, 100))
    return tmp_path / "preds.parquet"


def test_a_csv_is_written_beside_its_parquet_file(predictions, tmp_path, capsys):
    out = tmp_path / "adapted.csv"
    assert main(["adapt", str(predictions), "--shares", "equal", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 303 and ua(out) == ua(tmp_path / "adapted.csv.parquet")
    assert main(["evaluate", str(tmp_path / "typo.parquet"), "--labels", str(predictions)]) == 2
    assert "typo.parquet does not exist" in capsys.readouterr().err


def test_equal_shares_put_a_biased_model_right(predictions, tmp_path, capsys):
    out = tmp_path / "adapted.parquet"
    assert main(["adapt", str(predictions), "--shares", "equal", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"next: ser-batch evaluate {out} --labels FILE" in said
    assert "300 scored, of 302" in said and "as if all labels were equally common" in said
    found = ua(out)
    assert found["fused"] > found[UNADAPTED] + 0.1 and found[UNADAPTED] == ua(predictions)["fused"]
    table = read_predictions(out)
    assert np.allclose(table.models["fused"][table.ok].mean(axis=0), 1 / 3, atol=1e-6)


def test_everything_else_is_as_it_was(predictions, tmp_path):
    out = tmp_path / "adapted.parquet"
    adapt_table(predictions, out, Adaptation(shares="neutral=0.5"))
    before, after = pq.read_table(predictions), pq.read_table(out)
    answer = ["label", "score", *(f"p_{label}" for label in LABELS)]
    for name in before.column_names:
        kept = f"{UNADAPTED}_{name}" if name in answer else name
        assert after[kept].to_pylist() == before[name].to_pylist(), name
    assert after["label"].to_pylist()[-2:] == [None, None] == after["p_happy"].to_pylist()[-2:]
    assert after.column_names[-2:] == ["speaker", "given_label"]
    metadata = {key.decode(): value.decode() for key, value in after.schema.metadata.items()}
    said = json.loads(metadata["ser_batch.adaptation"])
    assert metadata["ser_batch.bundle_id"] == "toy-1" and said["shares"] == [0.5, 0.25, 0.25]
    probabilities = np.stack([before[f"p_{label}"].to_numpy()[:-2] for label in LABELS], axis=1)
    again = np.log(probabilities) / said["temperature"] + said["bias"]
    again = np.exp(again) / np.exp(again).sum(axis=1, keepdims=True)
    assert np.allclose(again[:, 0], after["p_neutral"].to_numpy()[:-2], atol=1e-5)


def test_stated_shares_decide_on_either(tmp_path):
    source, out = tmp_path / "preds.parquet", tmp_path / "adapted.parquet"
    truth = archive(source, (240, 40, 40))
    asked = Adaptation(shares="neutral=0.75,happy=0.125,angry=0.125", decide="stated")
    adapted = adapt_table(source, out, asked)
    assert np.allclose(read_predictions(out).models["fused"][:-2].mean(axis=0), [0.75, 0.125, 0.125], atol=1e-6)
    accuracy = evaluate_predictions(out, Question(column="label")).models["fused"].accuracy
    assert abs(adapted.said_after[0] - np.mean(truth == 0)) < 0.1
    on_equal = adapt_table(source, out, Adaptation(shares=asked.shares), overwrite=True)
    assert on_equal.said_after[0] < adapted.said_after[0]
    served = evaluate_predictions(out, Question(column="label")).models
    assert served["fused"].accuracy < accuracy and served["fused"].ua > served[UNADAPTED].ua + 0.05


def test_groups_have_their_own_bias_and_small_ones_the_archives(predictions, tmp_path, capsys):
    out = tmp_path / "adapted.parquet"
    arguments = ["adapt", str(predictions), "--shares", "equal", "--out", str(out), "--by", "Speaker"]
    assert main([*arguments, "--min-rows", "75"]) == 0
    assert "4 have a bias of their own" in capsys.readouterr().out
    table = read_predictions(out)
    for speaker in range(4):
        here = [name == f"s{speaker}" for name in table.others["speaker"].to_pylist()]
        assert np.allclose(table.models["fused"][here].mean(axis=0), 1 / 3, atol=1e-6)
    by_speaker = table.models["fused"]
    assert main([*arguments, "--min-rows", "76", "--overwrite"]) == 0
    assert "0 have a bias of their own; 4 are too small" in capsys.readouterr().out
    adapt_table(predictions, tmp_path / "whole.parquet", Adaptation(shares="equal"))
    whole = read_predictions(tmp_path / "whole.parquet").models["fused"][:-2]
    assert np.array_equal(read_predictions(out).models["fused"][:-2], whole)
    assert not np.array_equal(by_speaker[:-2], whole)


def test_few_labels(predictions, tmp_path, capsys):
    truth = archive(predictions, (100, 100, 100))
    out = tmp_path / "adapted.parquet"
    labels = few(tmp_path / "few.csv", truth, 60)
    assert main(["adapt", str(predictions), "--labels", labels, "--out", str(out)]) == 0
    assert "60 rows: a temperature and a bias are used" in capsys.readouterr().out
    assert ua(out)["fused"] > ua(predictions)["fused"] + 0.05
    assert main(["adapt", str(predictions), "--labels", labels, "--shares", "labels", "--out", str(out)]) == 2
    assert "exists already. Choose another --out, or replace it: --overwrite." in capsys.readouterr().err
    assert (
        main(
            ["adapt", str(predictions), "--labels", labels, "--shares", "labels", "--out", str(tmp_path / "2.parquet")]
        )
        == 0
    )


def test_labels_that_teach_nothing_change_nothing(tmp_path, capsys):
    source, out = tmp_path / "preds.parquet", tmp_path / "adapted.parquet"
    truth = archive(source, (100, 100, 100))
    adapt_table(source, tmp_path / "right.parquet", Adaptation(shares="equal"))
    right = pq.read_table(tmp_path / "right.parquet")
    names = [name for name in right.column_names if not name.startswith(UNADAPTED)]
    metadata = {k: v for k, v in right.schema.metadata.items() if k != b"ser_batch.adaptation"}
    pq.write_table(right.select(names).replace_schema_metadata(metadata), source)
    adapted = adapt_table(source, out, Adaptation(labels=few(tmp_path / "few.csv", truth, 60)))
    assert adapted.fitted.correction.kept == "nothing" and adapted.changed == 0
    assert "nothing of them is used" in format_adapted(adapted, "out")
    for label in LABELS:
        assert np.allclose(pq.read_table(out)[f"p_{label}"][:300], pq.read_table(source)[f"p_{label}"][:300], atol=1e-6)


def test_windows_of_a_recording_have_its_label(tmp_path):
    source, out = tmp_path / "preds.parquet", tmp_path / "adapted.parquet"
    truth = archive(source, (30, 30, 30), windows=3)
    adapted = adapt_table(source, out, Adaptation(labels=few(tmp_path / "few.csv", truth[::3], 25)))
    assert adapted.fitted.correction.rows == 75 and adapted.rows == 272


def test_labels_in_a_column_of_the_predictions(predictions, tmp_path):
    adapted = adapt_table(predictions, tmp_path / "adapted.parquet", Adaptation(label_column="label"))
    assert adapted.fitted.correction.rows == 300 and adapted.fitted.correction.kept == "temperature and bias"


def test_a_folder_of_parts_is_one_table(predictions, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    table = pq.read_table(predictions)
    pq.write_table(table.slice(0, 170), folder / "part-000000.parquet")
    pq.write_table(table.slice(170), folder / "part-000001.parquet")
    (folder / "_SUCCESS").touch()
    for source, name in ((predictions, "file"), (folder, "folder")):
        adapt_table(source, tmp_path / f"{name}.parquet", Adaptation(shares="neutral=0.6"))
    assert pq.read_table(tmp_path / "file.parquet").equals(pq.read_table(tmp_path / "folder.parquet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing says how to adapt"),
        (["--by", "speaker", "--labels", "few.csv"], "--by needs shares"),
        (["--decide", "stated", "--labels", "few.csv"], "--decide stated needs shares"),
        (["--shares", "equal", "--by", "room"], "has no column 'room'"),
        (["--label-column", "label", "--speaker", "room"], "has no column 'room'"),
        (["--shares", "equal", "--labels", "absent.csv"], "absent.csv"),
        (["--shares", "equal", "--map", "happy=angry"], "keeps apart; got happy=angry. Say which label"),
        (["--shares", "labels"], "none are given"),
    ],
)
def test_refused(predictions, tmp_path, capsys, arguments, message):
    assert main(["adapt", str(predictions), "--out", str(tmp_path / "out.parquet"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["preds.parquet"]


def test_the_models_own_table_is_never_lost(predictions, tmp_path, capsys):
    before = predictions.read_bytes()
    for out in (str(predictions), str(tmp_path)):
        assert main(["adapt", str(predictions), "--shares", "equal", "--out", out, "--overwrite"]) == 2
    assert predictions.read_bytes() == before
    out = tmp_path / "adapted.parquet"
    adapt_table(predictions, out, Adaptation(shares="equal"))
    assert main(["adapt", str(out), "--shares", "equal", "--out", str(tmp_path / "twice.parquet")]) == 2
    assert "is adapted already" in capsys.readouterr().err


def test_among_alone_answers_as_evaluate_measures(predictions, tmp_path, capsys):
    out = tmp_path / "adapted.parquet"
    assert main(["adapt", str(predictions), "--among", "Neutral,anger", "--out", str(out)]) == 0
    assert "never     happy: no answer, with probability 0" in capsys.readouterr().out
    table = pq.read_table(out)
    assert set(table["label"].to_pylist()) == {"neutral", "angry", None} and set(table["p_happy"].to_pylist()[:-2]) == {
        0
    }
    said = json.loads(table.schema.metadata[b"ser_batch.adaptation"])
    assert said["asked"]["among"] == "Neutral,anger" and said["bias"] == [0, None, 0] and said["shares"] is None
    question = Question(column="label", only=["neutral", "angry"])
    adapted, model = (evaluate_predictions(path, question).models["fused"] for path in (out, predictions))
    assert adapted.confusion == model.confusion and adapted.ece == pytest.approx(model.ece, abs=1e-6)


def test_among_with_shares_is_a_share_of_zero_for_the_others(predictions, tmp_path, capsys):
    out, same = tmp_path / "adapted.parquet", tmp_path / "same.parquet"
    arguments = ["adapt", str(predictions), "--among", "neutral,angry", "--out", str(out)]
    assert main([*arguments, "--shares", "neutral=0.7"]) == 0
    adapt_table(predictions, same, Adaptation(shares="neutral=0.7,happy=0"))
    assert pq.read_table(out).equals(pq.read_table(same))
    assert main([*arguments, "--shares", "happy=0.2", "--overwrite"]) == 2
    assert "gives a share to a label that --among leaves out; got happy=0.2" in capsys.readouterr().err


def test_among_refuses_what_evaluate_refuses_and_labelled_rows_of_other_labels(predictions, tmp_path, capsys):
    arguments = ["adapt", str(predictions), "--out", str(tmp_path / "adapted.parquet"), "--among"]
    assert main([*arguments, "neutral,bored"]) == 2
    assert "no label 'bored' to choose among" in capsys.readouterr().err
    assert main([*arguments, "neutral"]) == 2
    assert "takes two or more" in capsys.readouterr().err
    assert main([*arguments, "neutral,happy", "--label-column", "label"]) == 2
    assert "that --shares or --among says does not occur; got 100 rows" in capsys.readouterr().err
