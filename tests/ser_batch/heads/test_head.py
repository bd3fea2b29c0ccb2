"""`ser-batch head`: from a few labelled recordings to a bundle that every other command takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.head import Head
from ser_batch.cli import main
from ser_batch.evaluation.metrics import evaluate
from ser_batch.evaluation.statistics import Interval
from ser_batch.heads.head import FittedHead, Share, format_head
from ser_batch.verification.verify import verify
from support.commands import run
from support.toy import LABELS

WORDS = ("falling", "level", "rising")


def write_calls(folder: Path, speakers: int = 4, takes: int = 3) -> Path:
    """Noise whose loudness falls, stays or rises, by speakers of different levels; with a table of labels."""
    folder.mkdir()
    rng, time, lines = np.random.default_rng(0), np.linspace(0, 1, 48_000), ["path,label,speaker"]
    for speaker in range(speakers):
        for index, word in enumerate(WORDS):
            for take in range(takes):
                shape = 10 ** ((index - 1) * 1.2 * (time - 0.5) * rng.uniform(0.5, 1.5))
                noise = 0.02 * rng.normal(size=48_000) * shape * 10 ** (speaker / 10)
                name = f"s{speaker}-{word}-{take}.wav"
                soundfile.write(folder / name, noise.clip(-1, 1), 16_000)
                lines.append(f"{name},{word},s{speaker}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calls(tmp_path_factory.mktemp("data") / "calls")


@pytest.fixture(scope="module")
def predictions(calls: Path, embedding_bundle: Bundle) -> Path:
    out = calls.parent / "preds.parquet"
    given = (calls, "--bundle", embedding_bundle.root, "--backend", "onnxruntime", "--embeddings", "--out", out)
    assert run(*given) == 0
    return out


def head(labels: object, predictions: Path, bundle: Path, out: Path, *options: object) -> int:
    arguments = ["head", labels, "--embeddings", predictions, "--bundle", bundle, "--out", out, *options]
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def fitted(calls: Path, predictions: Path, embedding_bundle: Bundle) -> Path:
    """The folder of a head of `calls`."""
    assert head(calls / "labels.csv", predictions, embedding_bundle.root, calls.parent / "fitted") == 0
    return calls.parent / "fitted"


def test_a_head_is_a_bundle_that_every_command_takes(
    calls: Path, predictions: Path, embedding_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures, scored = tmp_path / "calls head", tmp_path / "h.json", tmp_path / "o.parquet"
    assert head(calls / "labels.csv", predictions, embedding_bundle.root, out, "--json", figures) == 0
    printed = capsys.readouterr().out
    assert "falling 12, level 12, rising 12" in printed and "4 of column speaker" in printed
    assert ["always", "the", "same", "label", "33.33", "33.33"] in [line.split() for line in printed.splitlines()]
    assert "--map OWN=ITS" in printed
    found = json.loads(figures.read_text())
    assert found["head"]["ua"] > 0.8 and (found["folds"], found["groups"], found["default"]) == (4, 4, None)
    bundle = load_bundle(out)
    assert (bundle.labels, bundle.branch_labels) == (WORDS, LABELS)
    assert bundle.manifest.name == "calls-head"
    assert bundle.manifest.provenance["base"]["sha256"] == embedding_bundle.sha256
    assert bundle.manifest.metrics["cross_validation"]["ua"] == found["head"]["ua"]
    assert verify(out, backends=["onnxruntime"]).passed
    given = ("--bundle", out, "--backend", "onnxruntime", "--batch-size", 4)
    assert run(calls, *given, "--out", scored) == 0
    table = pq.read_table(scored)
    assert {"p_rising", "wav2vec2_p_calm"} <= set(table.column_names)
    assert "embedding" not in table.column_names and "wav2vec2_p_rising" not in table.column_names
    said = [row["label"] == row["file"].split("-")[1] for row in table.to_pylist()]
    assert np.mean(said) > 0.9
    files = tmp_path / "files.parquet"
    assert run(calls, *given, "--window", 1, "--aggregate", files, "--out", tmp_path / "w.parquet") == 0
    assert set(pq.read_table(files)["segments"].to_pylist()) == {3}
    assert main(["evaluate", str(scored), "--labels", str(calls / "labels.csv"), "--by", "speaker"]) == 0
    assert "fused: " in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "fused by a logistic regression over the embedding and their log-probabilities" in page


def test_the_answer_is_that_of_the_matrix(predictions: Path, calls: Path, fitted: Path, tmp_path: Path) -> None:
    """The run's own file and the head's matrix give what a run of the new bundle gives."""
    scored = tmp_path / "o.parquet"
    assert run(calls, "--bundle", fitted, "--backend", "onnxruntime", "--out", scored) == 0
    table = pq.read_table(predictions)
    rows = {
        name: np.stack([table[f"{name}_p_{label}"].to_numpy() for label in LABELS], axis=1)
        for name in ("wav2vec2", "spectrogram")
    }
    embedding = np.array(table["embedding"].to_pylist(), np.float32)
    found = pq.read_table(scored)
    given = np.stack([found[f"p_{word}"].to_numpy() for word in WORDS], axis=1)
    # The embedding was rounded to float16 on its way.
    np.testing.assert_allclose(given, load_bundle(fitted).fusion(rows, embedding), atol=5e-3)


def test_the_base_is_measured_where_its_labels_mean_something(
    calls: Path, predictions: Path, embedding_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (calls / "labels.csv", predictions, embedding_bundle.root, tmp_path / "head")
    assert head(*given, "--map", "falling=sad,rising=happy", "--json", tmp_path / "h.json") == 0
    assert "The base has no answer for level: there it counts as wrong." in capsys.readouterr().out
    default = json.loads((tmp_path / "h.json").read_text())["default"]
    table = pq.read_table(predictions)
    happier = table["p_happy"].to_numpy() > table["p_sad"].to_numpy()
    words = np.array([name.split("-")[1] for name in table["file"].to_pylist()])
    recalls = [np.mean(~happier[words == "falling"]), 0, np.mean(happier[words == "rising"])]
    assert default["ua"] == pytest.approx(np.mean(recalls))
    assert head(*given, "--map", "level=", "--overwrite") == 0
    assert "12 have a label that is left out" in capsys.readouterr().out
    assert load_bundle(tmp_path / "head").labels == ("falling", "rising")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda path: path[1] in "012" and "level" not in path, "got falling 9, rising 9; expected at least 10 scored"),
        (lambda path: "rising" in path, "got 12 rows, of 1 label"),
    ],
)
def test_too_few_rows_are_refused(
    calls: Path,
    predictions: Path,
    embedding_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keep: object,
    message: str,
) -> None:
    first, *lines = (calls / "labels.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join([first, *filter(keep, lines)]) + "\n")  # type: ignore[call-overload]
    assert head(tmp_path / "few.csv", predictions, embedding_bundle.root, tmp_path / "head") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "head").exists()


def test_a_label_of_one_speaker_is_refused(
    calls: Path, predictions: Path, embedding_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (calls / "labels.csv").read_text().replace(",level,s", ",level,only")
    merged = "\n".join(line[: line.index("only") + 4] if "only" in line else line for line in lines.splitlines())
    (tmp_path / "one.csv").write_text(merged + "\n")
    assert head(tmp_path / "one.csv", predictions, embedding_bundle.root, tmp_path / "head") == 2
    assert "all rows of label 'level' are of one speaker" in capsys.readouterr().err


def test_predictions_of_another_bundle_or_without_embeddings_are_refused(
    calls: Path,
    predictions: Path,
    embedding_bundle: Bundle,
    head_bundle: Bundle,
    toy_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels, out = calls / "labels.csv", tmp_path / "head"
    for bundle, table, message in (
        (
            head_bundle,
            predictions,
            f"was not made by this bundle; got {embedding_bundle.id}; expected {head_bundle.id}",
        ),
        (toy_bundle, predictions, "has no embedding: its graphs give probabilities alone"),
        (embedding_bundle, tmp_path / "plain.parquet", "holds no embeddings"),
        (embedding_bundle, tmp_path / "few.parquet", "lack the branches' own probabilities"),
    ):
        given = (calls, "--bundle", bundle.root, "--backend", "onnxruntime", "--out", table)
        if table.name == "plain.parquet":
            assert run(*given, "-q") == 0
        elif table.name == "few.parquet":
            assert run(*given, "-q", "--embeddings", "--no-branches") == 0
        assert head(labels, table, bundle.root, out) == 2
        assert message in capsys.readouterr().err
    out.mkdir()
    (out / "mine.txt").write_text("x")
    for overwrite in ((), ("--overwrite",)):
        assert head(labels, predictions, embedding_bundle.root, out, *overwrite) == 2
        assert "exists and is not a bundle, so it is not overwritten. Choose another --out." in capsys.readouterr().err


def test_a_bundle_is_replaced_only_when_asked_and_the_next_step_is_named(
    calls: Path, predictions: Path, embedding_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (calls / "labels.csv", predictions, embedding_bundle.root, tmp_path / "calls-bundle")
    assert head(*given) == 0
    assert f"next: ser-batch run AUDIO --bundle {given[-1]} --out preds.parquet" in capsys.readouterr().out
    assert head(*given) == 2
    assert "exists already. Choose another --out, or replace it: --overwrite." in capsys.readouterr().err
    assert head(*given, "--overwrite") == 0


def test_labels_of_a_head_can_have_a_head_of_their_own(calls: Path, fitted: Path, tmp_path: Path) -> None:
    second, again = tmp_path / "second", tmp_path / "again.parquet"
    assert run(calls, "--bundle", fitted, "--backend", "onnxruntime", "--embeddings", "--out", again) == 0
    assert head(calls / "labels.csv", again, fitted, second, "--by", "speaker") == 0
    before, after = load_bundle(fitted).fusion, load_bundle(second).fusion
    np.testing.assert_allclose(after.weight, before.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.shared
def test_how_strongly_actors_speak_is_learnt_from_other_actors(
    ravdess: Path, embedding_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actors, scored = [ravdess / f"Actor_{number:02}" for number in range(1, 5)], tmp_path / "preds.parquet"
    given = ("--bundle", embedding_bundle.root, "--backend", "onnxruntime", "--embeddings", "--out", scored, "-q")
    assert run(*actors, *given) == 0
    files = pq.read_table(scored)["file"].to_pylist()
    names = [Path(file).stem.split("-") for file in files]
    lines = [
        f"{file},{'strong' if name[3] == '02' else 'normal'},{name[6]}" for file, name in zip(files, names, strict=True)
    ]
    (tmp_path / "labels.csv").write_text("path,label,speaker\n" + "\n".join(lines) + "\n")
    figures = tmp_path / "h.json"
    given_head = (tmp_path / "labels.csv", scored, embedding_bundle.root, tmp_path / "head", "--json", figures)
    assert head(*given_head) == 0
    found = json.loads(figures.read_text())
    assert (found["groups"], sum(found["counts"])) == (4, 240)
    assert found["head"]["ua_interval"][0] > 0.5, capsys.readouterr().out


def judged(right: int, own: float | None) -> FittedHead:
    """A head that is right in `right` of 100 rows of each label, beside a base whose UA is `own`."""
    truth = np.repeat([0, 1], 100)
    said = np.where(np.tile(np.arange(100), 2) < right, truth, 1 - truth)
    return FittedHead(
        head=Head(np.zeros((2, 3)), np.zeros(2), ("a",), 1),
        labels=("calls", "waits"),
        evaluation=evaluate(truth, np.eye(2)[said], ("calls", "waits")),
        counts=(100, 100),
        folds=5,
        by="speaker",
        groups=9,
        penalty=0.1,
        majority=0.5,
        default=None if own is None else Share(own, Interval(own, own)),
        unsaid=(),
        left_out={},
    )


@pytest.mark.parametrize(
    ("right", "own", "advice"),
    [
        (80, 0.81, "use the base"),
        (80, 0.80, "use the base"),
        (80, 0.78, "not clearly better"),
        (80, 0.60, None),
        (80, None, None),
        (51, None, "not clearly better"),
    ],
)
def test_the_head_the_base_or_more_recordings(right: int, own: float | None, advice: str | None, toy_bundle: Bundle):
    shown = format_head(judged(right, own), toy_bundle)
    assert f"{right}.00 [" in shown
    assert {each for each in ("use the base", "not clearly better") if each in shown} == ({advice} - {None})
