"""Labelled speech: what flips, what it costs, and bundles that only speech shows to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.writing import add_artefacts, copy_bundle
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import AudioError, EngineError, InputError
from ser_batch.verification.compare import Candidate, Comparison, Report, candidates, compare_reference
from ser_batch.verification.records import TOLERANCES, read_bundle_certificate
from ser_batch.verification.speech import (
    LabelledSpeech,
    SpeechComparison,
    SpeechReport,
    compare_speech,
    find_labelled,
    find_speech,
    read_batches,
)
from ser_batch.verification.verify import certify_bundle
from support.toy import BRANCHES, LABELS, make_toy_bundle, toy_graph, toy_probabilities, toy_weights
from support.toy_speech import write_speech

CLIP = ClipRule(samples=24_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"), CLIP)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "bundle", clip=CLIP)


@pytest.fixture(scope="module")
def speech(folder: Path) -> LabelledSpeech:
    return find_labelled(folder, "ravdess", LABELS)


class Fake:
    """The toy graphs in numpy, as an engine; `change` spoils their rows."""

    name, precision, device = "fake", "fp32", "cpu"

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> None:
        self._change, self.closed = change, False

    def run(self, waveform: Waveform) -> dict[str, np.ndarray]:
        rows = {name: toy_probabilities(waveform, toy_weights(name, len(LABELS))) for name in BRANCHES}
        return {name: self._change(found.astype(np.float32)) for name, found in rows.items()}

    def close(self) -> None:
        self.closed = True


def listed(**fakes: Any) -> list[Candidate]:
    """ONNX Runtime's stand-in, sound, and fakes by name: (precision, change)."""
    chosen = {"onnxruntime": ("fp32", lambda rows: rows), **fakes}
    return [Candidate(name, p, "1.0", lambda change=change: Fake(change)) for name, (p, change) in chosen.items()]


def flip(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Swap the most probable label of the first `count` rows of a batch with the least probable."""

    def change(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        for row in rows[:count]:
            best, worst = row.argmax(), row.argmin()
            row[best], row[worst] = row[worst], row[best]
        return rows

    return change


def test_figures_are_those_counted_by_hand(bundle: Bundle, speech: LabelledSpeech) -> None:
    report = compare_speech(bundle, listed(other=("int8", flip(2))), speech)
    (waveform,) = read_batches(speech.recordings, CLIP, 8)
    sound, spoilt = Fake().run(waveform), Fake(flip(2)).run(waveform)
    for result in report.results[3:]:
        c = result.comparison
        rows = [{**found, FUSED: bundle.fusion(found)}[c.output] for found in (sound, spoilt)]
        correct = [float((part.argmax(1) == np.array(speech.targets)).mean()) for part in rows]
        assert (c.engine, c.precision, c.rows, c.non_finite) == ("other", "int8", 5, 0)
        assert c.flips == (rows[0].argmax(1) != rows[1].argmax(1)).sum() > 0
        assert c.max_difference == pytest.approx(np.abs(rows[0] - rows[1]).max())
        assert result.accuracy == correct[1] and result.accuracy_difference == correct[1] - correct[0]
    assert any("other int8, fused, 5 labelled clips: 2 labels flip, which is over 2.0%" in r for r in report.failures)


def test_every_engine_is_closed_and_progress_counts_clips(bundle: Bundle, speech: LabelledSpeech) -> None:
    fake, seen = Fake(), []
    report = compare_speech(bundle, [Candidate("onnxruntime", "fp32", "1", lambda: fake)], speech, seen.append)
    assert fake.closed and seen == [5] and not report.failures


def test_an_engine_that_fails_is_a_failure_and_the_others_go_on(bundle: Bundle, speech: LabelledSpeech) -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        raise EngineError("out of memory")

    report = compare_speech(bundle, listed(other=("fp32", broken)), speech)
    assert report.failures == ("other fp32: out of memory",)
    assert {result.comparison.engine for result in report.results} == {"onnxruntime"}


def test_values_that_are_not_finite_fail(bundle: Bundle, speech: LabelledSpeech) -> None:
    def overflow(rows: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(rows))[:, None] == 0, np.float32(np.nan), rows)

    report = compare_speech(bundle, listed(other=("fp16", overflow)), speech)
    assert any("other fp16, fused, 5 labelled clips: 8 values are not finite" in r for r in report.failures)


def test_nothing_compared_is_a_failure(bundle: Bundle, speech: LabelledSpeech) -> None:
    for found in ([], listed(other=("fp32", lambda rows: rows))[1:]):
        report = compare_speech(bundle, found, speech)
        assert not report.results and "nothing was compared on labelled speech" in report.failures[0]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, 0),
        ({"max_difference": 2e-4}, 1),
        ({"flips": 1, "output": "wav2vec2"}, 1),
        ({"precision": "bf16", "flips": 7, "max_difference": 0.3}, 0),
        ({"precision": "bf16", "flips": 8}, 1),
        ({"precision": "fp16", "flips": 8}, 1),
        ({"precision": "fp16", "flips": 99, "output": "wav2vec2"}, 0),
        ({"precision": "int8", "flips": 28}, 0),
        ({"precision": "int8", "flips": 29}, 1),
        ({"precision": "int8", "non_finite": 1}, 1),
        ({"precision": "fp8"}, 1),
    ],
)
def test_each_tolerance(changes: dict[str, Any], reasons: int) -> None:
    sound = {"engine": "x", "precision": "fp32", "output": FUSED, "rows": 1_440, "max_difference": 1e-6}
    comparison = Comparison(**{**sound, "mean_difference": 1e-7, "flips": 0, "non_finite": 0, **changes})
    assert len(list(SpeechComparison(comparison, 0.9, 0.0).failures())) == reasons


def test_the_tolerances_are_those_stated() -> None:
    assert {precision: tolerance.flip_rate for precision, tolerance in TOLERANCES.items()} == {
        "fp32": 0.0, "fp16": 0.005, "bf16": 0.005, "int8": 0.02,
    }  # fmt: skip
    assert TOLERANCES["fp32"].max_difference == 1e-4


def labelled_by_the_toy(folder: Path, tmp_path: Path, bundle: Bundle) -> Path:
    """A table that gives every recording the label that the sound toy finds, so that its accuracy is 100 %."""
    recordings = find_speech(folder)
    (waveform,) = read_batches(recordings, CLIP, 8)
    found = bundle.fusion(Fake().run(waveform)).argmax(1)
    table = tmp_path / "labels.csv"
    lines = [f"{recording.name},{LABELS[index]}" for recording, index in zip(recordings, found, strict=True)]
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    return table


def stated(labels: tuple[str, ...] = LABELS) -> Callable[[dict[str, Any]], None]:
    """The metrics of a bundle trained on labels.csv, 90 % right, that calls its columns `labels`."""

    def edit(arguments: dict[str, Any]) -> None:
        arguments["labels"] = labels
        arguments["provenance"] = {"data": "labels.csv", "labels": list(labels)}
        arguments["metrics"] = {"test": {FUSED: {"accuracy_interval": [0.8, 1.0]}}}

    return edit


def judged(bundle: Bundle, folder: Path, table: Path) -> tuple[bool, SpeechReport]:
    """Whether the reference clips pass, and what labelled speech says."""
    found = candidates(bundle, ["onnxruntime"], 1)
    report = compare_reference(bundle, found)
    return report.passed, compare_speech(bundle, found.found, find_labelled(folder, str(table), bundle.labels))


def test_labels_permuted_everywhere_alike_show_on_speech_alone(tmp_path: Path, folder: Path, bundle: Bundle) -> None:
    table = labelled_by_the_toy(folder, tmp_path, bundle)
    sound = make_toy_bundle(tmp_path / "sound", clip=CLIP, edit=stated())
    assert judged(sound, folder, table)[1].failures == ()
    turned = (*LABELS[1:], LABELS[0])
    wrong = make_toy_bundle(tmp_path / "wrong", clip=CLIP, edit=stated(turned), metadata_labels=turned)
    passed, report = judged(wrong, folder, table)
    assert passed, "graphs, manifest and record agree, and the reference has no labels"
    assert len(report.failures) == 1 and "labels, fusion or normalisation are not those" in report.failures[0]


def test_another_corpus_may_be_harder(tmp_path: Path, folder: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=CLIP, edit=stated())
    report = compare_speech(bundle, listed(), find_labelled(folder, "ravdess", LABELS))
    assert report.failures == ()


def test_a_table_of_labels_and_names_agree(folder: Path, tmp_path: Path, speech: LabelledSpeech) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{s.name},{LABELS[target]}" for s, target in zip(speech.recordings, speech.targets, strict=True)]
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    found = find_labelled(folder, str(table), LABELS)
    assert (found.targets, found.sha256) == (speech.targets, speech.sha256) and found.corpus == "table.csv"
    assert speech.targets == (0, 2, 3, 4, 7)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\nabsent.wav,sad\n", "1 recordings .* are not under"),
        ("path,label\nActor_01/03-01-01-01-01-01-01.wav,bored\n", "not those of the bundle; got .*bored"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        find_labelled(folder, str(tmp_path / "table.csv"), LABELS)


def test_speech_without_labels_and_damaged_speech_are_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"no recording under .* has a label"):
        find_labelled(tmp_path, "ravdess", LABELS)
    with pytest.raises(AudioError):
        list(read_batches(find_speech(tmp_path), CLIP, 8))


def test_clips_are_taken_evenly_over_the_folder(folder: Path) -> None:
    files = [recording.name for recording in find_speech(folder)]
    assert [recording.name for recording in find_speech(folder, 3)] == [files[0], files[2], files[4]]
    assert [recording.name for recording in find_speech(folder, 99)] == files


def test_a_graph_made_from_another_model_fails(tmp_path: Path, bundle: Bundle) -> None:
    copy = copy_bundle(bundle, tmp_path / "copy")
    foreign = toy_graph(toy_weights("wav2vec2", len(LABELS), 1), CLIP.samples, labels=LABELS)
    onnx.helper.set_model_props(foreign, {"labels": "[]", "source_sha256": 64 * "0"})
    changed = add_artefacts(copy, {"precisions/int8/wav2vec2.onnx": foreign.SerializeToString()})
    assert (
        "precisions/int8/wav2vec2.onnx was not made from this bundle's wav2vec2.onnx"
        in compare_reference(changed, candidates(changed)).failures
    )


def test_branches_of_other_labels_have_flips_and_no_accuracy(tmp_path: Path, head_bundle: Bundle) -> None:
    folder = write_speech(tmp_path / "speech", ClipRule())
    table = "".join(f"{path.relative_to(folder)},happy\n" for path in sorted(folder.rglob("*.wav")))
    (tmp_path / "labels.csv").write_text("path,label\n" + table)
    speech = find_labelled(folder, str(tmp_path / "labels.csv"), head_bundle.labels)
    report = compare_speech(head_bundle, candidates(head_bundle, ["onnxruntime"]).found, speech)
    assert not report.failures
    known = {result.comparison.output: result.accuracy for result in report.results}
    assert known["wav2vec2"] is None and known["spectrogram"] is None and known[FUSED] is not None
    certify_bundle(copied := copy_bundle(head_bundle, tmp_path / "copy"), *certified(copied, speech))
    page = (copied.root / "CERTIFICATE.md").read_text()
    assert "| – | – | passed |" in page
    assert read_bundle_certificate(copied) is not None


def certified(bundle: Bundle, speech: LabelledSpeech) -> tuple[list[Candidate], Report, SpeechReport]:
    listed = candidates(bundle, ["onnxruntime"])
    return listed.found, compare_reference(bundle, listed), compare_speech(bundle, listed.found, speech)
