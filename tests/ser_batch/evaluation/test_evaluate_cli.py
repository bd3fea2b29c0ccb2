"""`ser-batch evaluate` on small tables whose figures are known by hand, and after a real run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.cli import main
from ser_batch.evaluation.metrics import evaluate
from support.recordings import write
from support.toy import LABELS

Table = dict[str, Any]


def clip(actor: int, emotion: str, take: int = 1) -> str:
    return f"Actor_{actor:02}/03-01-{LABELS.index(emotion) + 1:02}-01-01-{take:02}-{actor:02}.wav"


FILES = [clip(1, "sad"), clip(1, "happy"), clip(2, "sad"), clip(2, "calm"), "other.wav", clip(3, "calm")]
SAID = ["sad", "sad", "sad", "calm", "angry", None]  # the last one could not be read
BRANCH = ["happy", "happy", "calm", "calm", "angry", None]


def rows(said: list[str | None], winner: float = 0.65) -> np.ndarray:
    """(N, 8) probabilities with `winner` for what was said, NaN for what was not."""
    table = np.full((len(said), 8), (1 - winner) / 7)
    for row, label in zip(table, said, strict=True):
        row[:] = np.nan if label is None else row
        if label is not None:
            row[LABELS.index(label)] = winner
    return table


def columns(prefix: str, table: np.ndarray) -> Table:
    values = {f"{prefix}p_{label}": table[:, i].astype(np.float32) for i, label in enumerate(LABELS)}
    return {name: pa.array(column, from_pandas=True) for name, column in values.items()}


@pytest.fixture
def table() -> Table:
    return {
        "file": FILES,
        "label": SAID,
        **columns("", rows(SAID)),
        **columns("wav2vec2_", rows(BRANCH)),
        "status": ["ok"] * 5 + ["error"],
    }


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Table], Path]:
    def saved(columns: Table, metadata: dict[str, str] | None = None) -> Path:
        path = tmp_path / "preds.parquet"
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
        return path

    return saved


def figures(predictions: Path, *options: object) -> dict[str, Any]:
    out = predictions.with_suffix(".json")
    assert main(["evaluate", str(predictions), *map(str, options), "--json", str(out), "--overwrite"]) == 0
    return json.loads(out.read_text())


def test_ravdess_figures_by_hand(table: Table, save: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(save(table), "--labels", "ravdess")
    assert found["coverage"] == {
        "rows": 6, "outside_part": 0, "without_truth": 1, "left_out": {}, "failed": 1, "unscored": {"error": 1},
        "evaluated": 4, "missing": 0, "nameless": 0, "by_base_name": 0, "ambiguous": 0,
    }  # fmt: skip
    fused, branch = found["models"]["fused"], found["models"]["wav2vec2"]
    assert list(found["models"]) == ["fused", "wav2vec2"]
    assert (fused["correct"], fused["accuracy"], branch["accuracy"]) == (3, 0.75, 0.5)
    assert fused["ua"] == pytest.approx((1 + 1 + 0) / 3)  # sad 2 of 2, calm 1 of 1, happy 0 of 1
    assert fused["macro"]["precision"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert fused["ece"] == pytest.approx(0.75 - 0.65, abs=1e-6)
    assert fused["confusion"][LABELS.index("happy")][LABELS.index("sad")] == 1
    assert found["against_fused"]["wav2vec2"] == {"only_first": 2, "only_second": 1, "p": 1.0}

    printed = capsys.readouterr().out
    assert "4 evaluated, of 6 rows" in printed
    assert (
        "1 rows have no known label" in printed
        and "1 clips have no prediction and are in no figure (status error 1)" in printed
    )
    assert "75.00 [30.1, 95.4]" in printed  # Wilson of 3 / 4
    assert "fused: 3 of 4 right" in printed and "wav2vec2: 2 of 4 right" in printed


def test_labels_from_a_table_and_base_names(table: Table, save: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "path,label\n" + f"{FILES[0]},sad\nelsewhere/other.wav,angry\nabsent.wav,calm\n"
    )
    found = figures(save(table), "--labels", tmp_path / "truth.csv")
    assert found["coverage"] == {
        "rows": 6, "outside_part": 0, "without_truth": 4, "left_out": {}, "failed": 0, "unscored": {},
        "evaluated": 2, "missing": 1, "nameless": 0, "by_base_name": 1, "ambiguous": 0,
    }  # fmt: skip
    assert found["models"]["fused"]["accuracy"] == 1.0


def test_one_part_of_a_split(table: Table, save: Callable[..., Path], tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    test = [FILES[1], FILES[2], FILES[5], clip(9, "angry")]
    split.write_text(json.dumps({"name": "paper-seed0", "train": [FILES[0]], "validation": [FILES[3]], "test": test}))
    found = figures(save(table), "--labels", "ravdess", "--split", split)
    coverage = found["coverage"]
    assert (coverage["evaluated"], coverage["outside_part"], coverage["failed"], coverage["missing"]) == (2, 3, 1, 1)
    assert found["models"]["fused"]["accuracy"] == 0.5 and "test of paper-seed0" in found["truth"]
    train = figures(save(table), "--labels", "ravdess", "--split", split, "--part", "train")
    assert (train["coverage"]["evaluated"], train["models"]["fused"]["accuracy"]) == (1, 1.0)


def test_every_row_is_accounted_for(table: Table, save: Callable[..., Path], tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": FILES[:3], "test": FILES[3:]}))
    for part in ("train", "test"):
        coverage = figures(save(table), "--labels", "ravdess", "--split", split, "--part", part)["coverage"]
        counted = ("outside_part", "without_truth", "failed", "evaluated")
        assert sum(coverage[name] for name in counted) == coverage["rows"]


def test_labels_come_from_the_metadata_where_they_are(table: Table, save: Callable[..., Path]) -> None:
    order = list(reversed(LABELS))
    path = save(table, {"ser_batch.labels": json.dumps(order), "ser_batch.bundle_id": "toy-1"})
    found = figures(path, "--labels", "ravdess")
    assert found["models"]["fused"]["labels"] == order and found["models"]["fused"]["accuracy"] == 0.75
    assert found["provenance"]["bundle_id"] == "toy-1"


@pytest.mark.parametrize(
    ("edit", "options", "message"),
    [
        ({}, ["--labels", "absent.csv"], "absent.csv"),
        ({"file": [f"x{i}.wav" for i in range(6)]}, ["--labels", "ravdess"], "no clip of"),
        ({"status": ["error"] * 6}, ["--labels", "ravdess"], "5 of them with a truth but not scored (error 5)"),
        ({"file": [FILES[0]] * 6}, ["--labels", "ravdess"], "6 times"),
        ({"label": ["calm", *SAID[1:]]}, ["--labels", "ravdess"], "largest probability; got calm; expected sad"),
        ({"p_sad": None}, ["--labels", "ravdess"], "largest probability"),
        ({"wav2vec2_p_sad": None}, ["--labels", "ravdess"], "'wav2vec2_p_sad'"),
        ({"p_sad": [None, *[0.5] * 5]}, ["--labels", "ravdess"], "no finite probabilities"),
        ({"file": None}, ["--labels", "ravdess"], "no column 'file'"),
        ({}, ["--labels", "ravdess", "--part", "test"], "--split"),
        ({}, ["--labels", "ravdess", "--json", "no/such/folder.json"], "cannot be written"),
        ({}, [], "Say where the labels are: --labels"),
        ({}, ["--labels", "ravdess", "--map", "angst"], "'angst'; expected FROM=TO"),
        ({}, ["--labels", "ravdess", "--map", "sad=blue"], "'sad' to 'blue', which the model does not know"),
        ({}, ["--labels", "ravdess", "--map", "sad=happy,sad=calm"], "two meanings"),
        ({}, ["--labels", "ravdess", "--by", "speaker"], "have a column 'speaker' to group by"),
        ({}, ["--labels", "msp"], "do not say the label"),
        ({}, ["--label-column", "speaker"], "no column 'speaker'"),
        ({}, ["--label-column", "label"], "no column 'given_label'"),
        ({}, ["--labels", "{table}"], "its labels are what a model said"),
        ({}, ["--labels", "{table}", "--label-column", "label"], "its labels are what a model said"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    edit: Table,
    options: list[str],
    message: str,
    table: Table,
    save: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    edited = {name: value for name, value in (table | edit).items() if value is not None}
    path = save(edited)
    assert main(["evaluate", str(path), *(option.format(table=path) for option in options)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out


def test_labels_outside_the_set_are_left_out_and_counted_by_name(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text(f"path,label\n{FILES[0]},sad\nother.wav,bored\n{FILES[3]},\n,sad\n{FILES[5]},calm\n")
    found = figures(save(table), "--labels", truth)
    assert found["coverage"] | {"by_base_name": 0} == {
        "rows": 6, "outside_part": 0, "without_truth": 3, "left_out": {"bored": 1}, "failed": 1,
        "unscored": {"error": 1}, "evaluated": 1, "missing": 0, "nameless": 1, "by_base_name": 0, "ambiguous": 0,
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "1 rows are left out: their labels are no answers (bored 1)" in printed
    assert "1 rows of the labels name no recording" in printed
    truth.write_text(f"path,label\n{FILES[0]},bored\nother.wav,bored\n")
    assert main(["evaluate", str(save(table)), "--labels", str(truth)]) == 2
    said = capsys.readouterr().err
    assert "2 of them with a label that is no answer ('bored' 2)" in said and "--map" in said


def test_labels_in_other_words_and_several_to_one(table: Table, save: Callable[..., Path], tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    labels = ["Sadness", " HAPPINESS", "exc", "Calm ", "ang", "calm"]
    truth.write_text("Path,Emotion\n" + "".join(f"{f},{label}\n" for f, label in zip(FILES, labels, strict=True)))
    found = figures(save(table), "--labels", truth)
    assert (found["coverage"]["left_out"], found["coverage"]["evaluated"]) == ({"exc": 1}, 4)
    assert found["read_as"] == {"Sadness": "sad", "HAPPINESS": "happy", "Calm": "calm", "ang": "angry"}
    for said in ("exc=happy", "exc=joy", "iemocap"):
        found = figures(save(table), "--labels", truth, "--map", said)
        assert (found["coverage"]["left_out"], found["coverage"]["evaluated"]) == ({}, 5)
        assert found["models"]["fused"]["confusion"][2][3] == 2  # both were said to be sad
    left = figures(save(table), "--labels", truth, "--map", "exc=happy,ang=,Happiness=surprise")
    assert left["coverage"]["left_out"] == {"ang": 1}
    assert [row[3] for row in left["models"]["fused"]["confusion"]] == [0, 0, 1, 1, 0, 0, 0, 1]


def test_labels_of_the_model_can_be_merged(table: Table, save: Callable[..., Path], tmp_path: Path) -> None:
    """Calm counts as neutral: as a label of the corpus, and as an answer."""
    truth = tmp_path / "truth.csv"
    truth.write_text(f"path,label\n{FILES[2]},sad\n{FILES[3]},neutral\nother.wav,calm\n")
    found = figures(save(table), "--labels", truth, "--map", "calm=neutral")
    fused = found["models"]["fused"]
    assert fused["labels"] == [label for label in LABELS if label != "calm"]
    assert (fused["clips"], fused["correct"]) == (3, 2)  # other.wav was said to be angry
    assert fused["confusion"][0][:5] == [1, 0, 0, 1, 0]
    assert "calm counted as neutral" in found["truth"]


def test_labels_that_a_table_of_recordings_brought(table: Table, save: Callable[..., Path]) -> None:
    brought = {"given_label": ["sad", "sad", None, "calm", "angry", "sad"], "mood": ["sad"] * 6}
    sizes = {"source_size": [1] * 6, "source_mtime_ns": [1] * 6}
    path = save(table | sizes | brought)
    found = figures(path, "--label-column", "label")
    assert (found["models"]["fused"]["correct"], found["coverage"]["without_truth"]) == (4, 1)
    assert figures(path, "--label-column", "given_label")["models"] == found["models"]
    assert figures(path, "--label-column", "Mood")["models"]["fused"]["correct"] == 3
    assert figures(path, "--labels", path, "--label-column", "mood")["models"]["fused"]["correct"] == 3


def test_figures_by_group(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.csv"
    lines = [f"{f},{label},{who}\n" for f, label, who in zip(FILES, SAID, ("a", "a", "b", "b", "", "b"), strict=True)]
    truth.write_text("path,label,Speaker\n" + "".join(lines).replace("None", "calm").replace(",sad,a", ",happy,a", 1))
    expected = [("a", 2, 1, 0.5), ("b", 2, 2, 1.0), ("none", 1, 1, 1.0)]
    found = figures(save(table), "--labels", truth, "--by", "speaker")
    assert [(g["group"], g["clips"], g["correct"], g["accuracy"]) for g in found["groups"]] == expected
    assert found["groups"][0]["ua"] == 0.5 and found["groups"][0]["accuracy_interval"] == pytest.approx(
        [0.0945, 0.9055], abs=1e-4
    )
    assert "fused by speaker" in capsys.readouterr().out
    sizes = {"source_size": [1] * 6, "source_mtime_ns": [1] * 6}
    again = figures(
        save(table | sizes | {"speaker": ["x", "x", "x", "y", None, "y"]}), "--labels", truth, "--by", "speaker"
    )
    assert [(g["group"], g["clips"]) for g in again["groups"]] == [("none", 1), ("x", 3), ("y", 1)]


def test_status_of_rows_without_a_prediction(
    table: Table, save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    edited = table | {"status": ["ok", "silent", "short", "ok", "ok", "error"]}
    found = figures(save(edited), "--labels", "ravdess")
    assert (found["coverage"]["failed"], found["coverage"]["unscored"]) == (3, {"silent": 1, "short": 1, "error": 1})
    assert "(status silent 1, short 1, error 1)" in capsys.readouterr().out


def test_predictions_in_other_formats(table: Table, save: Callable[..., Path]) -> None:
    expected = figures(save(table), "--labels", "ravdess")
    frame = pq.read_table(save(table)).to_pandas()
    path = save(table).with_suffix(".csv")
    frame.to_csv(path, index=False)
    found = figures(path, "--labels", "ravdess")
    assert found["models"]["fused"]["confusion"] == expected["models"]["fused"]["confusion"]
    assert found["coverage"] == expected["coverage"]


@pytest.mark.parametrize("out", ["preds.parquet", "parts/"])
def test_segments_are_matched_by_id(toy_bundle: Bundle, tmp_path: Path, out: str) -> None:
    write(tmp_path / "call.wav", 9.0, rate=16_000)
    (tmp_path / "list.csv").write_text(
        "path,id,start,end,label,speaker\ncall.wav,u1,0,3,angry,A\ncall.wav,u2,3,6,sad,B\ncall.wav,,6,9,sad,B\n"
    )
    given = ["--out", f"{tmp_path}/{out}", "--bundle", str(toy_bundle.root), "--quiet"]
    assert main(["run", str(tmp_path / "list.csv"), *given]) == 0
    predictions = tmp_path / out
    found = figures(predictions, "--labels", tmp_path / "list.csv", "--by", "speaker")
    assert (found["coverage"]["evaluated"], found["coverage"]["missing"]) == (3, 0)
    assert [group["clips"] for group in found["groups"]] == [1, 2]
    brought = figures(predictions, "--label-column", "label", "--by", "Speaker")
    assert (brought["models"], brought["groups"]) == (found["models"], found["groups"])
    (tmp_path / "ids.csv").write_text("id,label\nu1,angry\nu2,sad\n")
    assert figures(predictions, "--labels", tmp_path / "ids.csv")["coverage"]["evaluated"] == 2
    (tmp_path / "whole.csv").write_text("path,label\ncall.wav,sad\n")  # the label of a file is that of its segments
    assert figures(predictions, "--labels", tmp_path / "whole.csv")["coverage"]["evaluated"] == 3


def test_segments_of_another_tool_that_lie_apart_from_their_audio(toy_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "audio" / "deep").mkdir(parents=True)
    write(tmp_path / "audio" / "deep" / "call.wav", 6.0, rate=16_000)
    notes, audio = tmp_path / "call.vtt", ("--root", str(tmp_path / "audio"))
    notes.write_text("WEBVTT\n\n00:00.000 --> 00:03.000\nangry\n\n00:03.000 --> 00:06.000\nsad\n")
    given = ["--out", f"{tmp_path}/preds.parquet", "--bundle", str(toy_bundle.root), "--quiet"]
    assert main(["run", str(notes), *audio, *given]) == 0
    found = figures(tmp_path / "preds.parquet", "--labels", notes, "--label-column", "text", *audio)
    assert (found["coverage"]["evaluated"], found["coverage"]["missing"]) == (2, 0)
    without = ["evaluate", f"{tmp_path}/preds.parquet", "--label-column", "given_text", *audio]
    assert main(without) == 2


def test_windows_and_unfinished_parts_are_refused(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"source_size": [1] * 6, "source_mtime_ns": [1] * 6}
    path = save(table | sizes | {"id": ["u1"] * 6})
    assert main(["evaluate", str(path), "--labels", "ravdess"]) == 2
    assert "--aggregate" in capsys.readouterr().err
    (tmp_path / "parts").mkdir()
    assert main(["evaluate", str(tmp_path / "parts"), "--labels", "ravdess"]) == 2
    assert "holds no predictions" in capsys.readouterr().err
    (tmp_path / "parts" / "part-000000.parquet").write_bytes(path.read_bytes())
    assert main(["evaluate", str(tmp_path / "parts"), "--labels", "ravdess"]) == 2
    assert "unfinished" in capsys.readouterr().err


def test_columns_that_look_like_a_branch_are_none(table: Table, save: Callable[..., Path]) -> None:
    brought = {"source_size": [1] * 6, "source_mtime_ns": [1] * 6, "old_p_neutral": ["high"] * 6, "p_x": [1] * 6}
    found = figures(save(table | brought), "--labels", "ravdess")
    assert list(found["models"]) == ["fused", "wav2vec2"] and len(found["models"]["fused"]["labels"]) == 8


def test_an_existing_json_is_kept_unless_told_otherwise(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text("mine")
    options = ["--labels", "ravdess", "--json", str(tmp_path / "mine.json")]
    assert main(["evaluate", str(save(table)), *options]) == 2
    assert "--overwrite" in capsys.readouterr().err and (tmp_path / "mine.json").read_text() == "mine"


def test_no_parquet_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.parquet").write_text("no")
    for name in ("x.parquet", "absent.parquet"):
        assert main(["evaluate", str(tmp_path / name), "--labels", "ravdess"]) == 2
        assert name in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(save(table, {"ser_batch.bundle_id": "\x1b[2J"})), "--labels", "ravdess"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_real_run_gives_the_figures_of_its_own_probabilities(toy_bundle: Bundle, tmp_path: Path) -> None:
    names = [clip(actor, emotion) for actor in (1, 2) for emotion in LABELS]
    for index, name in enumerate(names):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "audio" / name, 0.5 + 0.2 * index)
    (tmp_path / "audio" / clip(3, "sad")).parent.mkdir()
    (tmp_path / "audio" / clip(3, "sad")).write_bytes(b"no audio")
    predictions = tmp_path / "preds.parquet"
    options = ["--out", str(predictions), "--bundle", str(toy_bundle.root), "--quiet"]
    assert main(["run", str(tmp_path / "audio"), *options]) == 3
    found = figures(predictions, "--labels", "ravdess")
    assert list(found["models"]) == ["fused", *(branch.name for branch in toy_bundle.manifest.branches)]
    assert (found["coverage"]["evaluated"], found["coverage"]["failed"]) == (16, 1)
    assert found["provenance"]["bundle_id"] == toy_bundle.id

    served = pq.read_table(predictions).filter(pc.equal(pq.read_table(predictions)["status"], "ok"))
    stored = np.stack([served[f"p_{label}"].to_numpy() for label in LABELS], axis=1)
    truth = np.array([int(Path(file).name[6:8]) - 1 for file in served["file"].to_pylist()])
    assert found["models"]["fused"] == evaluate(truth, stored.astype(np.float64), LABELS).to_dict()


def test_labels_that_never_occur_are_noted_with_the_remedy(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("path,label\n" + "".join(f"{FILES[i]},{label}\n" for i, label in enumerate(["sad", "happy"])))
    arguments = ["evaluate", str(save(table)), "--labels", str(truth)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert said.count("no clip is labelled neutral, calm, angry, fearful, disgust, surprised") == 1
    assert "--among happy,sad\n" in said
    assert main([*arguments, "--among", "happy,sad"]) == 0 and "note" not in capsys.readouterr().out
    truth.write_text(f"path,label\n{FILES[0]},sad\n")  # one label is none to choose among
    assert main(arguments) == 0 and "note" not in capsys.readouterr().out


def test_among_some_labels_the_likeliest_of_them_is_the_answer(
    table: Table, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of sad and happy alone: three clips, of which the second is said to be sad and is happy."""
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "path,label\n" + "".join(f"{FILES[i]},{label}\n" for i, label in enumerate(["sad", "happy", "sad"]))
    )
    out = tmp_path / "figures.json"
    arguments = ["evaluate", str(save(table)), "--labels", str(truth), "--json", str(out)]
    assert main([*arguments, "--among", "happy, sad"]) == 0
    found = json.loads(out.read_text())
    assert found["models"]["fused"]["confusion"] == [[0, 1], [0, 2]]  # in the model's order: happy, sad
    assert found["models"]["wav2vec2"]["correct"] == 1 + 0  # the third's "calm" leaves a tie, which the first wins
    assert "answers among happy, sad" in found["truth"]
    assert main([*arguments, "--overwrite", "--among", "SADNESS,calm"]) == 0
    found = json.loads(out.read_text())
    assert (found["coverage"]["evaluated"], found["coverage"]["left_out"]) == (2, {"happy": 1})
    for wrong, message in (("sad,angst", "'angst'"), ("sad", "two or more"), ("calm,angry", "('sad' 2, 'happy' 1)")):
        assert main([*arguments, "--overwrite", "--among", wrong]) == 2
        assert message in capsys.readouterr().err
