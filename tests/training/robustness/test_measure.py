from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.clips import ClipRule
from ser_batch.errors import TrainingError
from support.recordings import write
from support.toy import make_toy_bundle
from training.data.corpus import Corpus, Example
from training.robustness import measure as module
from training.robustness.degradations import CLEAN, Degradation
from training.robustness.measure import BELOW, FALL, MOVED, Question, measure, targets_of

LABELS = ("calm", "angry")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(10):
        write(folder / f"{number}.wav", 0.4 + 0.1 * number)
    examples = tuple(Example(f"{n}.wav", LABELS[n % 2], speaker=str(n % 3)) for n in range(10))
    return Corpus("toy", folder, LABELS, examples)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", LABELS, clip=ClipRule(samples=24_000))


def question(corpus: Corpus, rows: tuple[int, ...] = tuple(range(9))) -> Question:
    return Question(corpus, rows, np.array([i % 2 for i in rows]))


def test_what_is_said_does_not_depend_on_the_batch(corpus: Corpus, bundle: Bundle) -> None:
    done: list[int] = []
    together = measure(bundle, question(corpus), progress=done.append)
    assert sum(done) == 9 and len({row.name for row in together}) == len(module.DEGRADATIONS)
    one_by_one = [measure(bundle, question(corpus, (i,))) for i in range(9)]
    for number, row in enumerate(together):
        assert set(row.outputs) == {FUSED, "wav2vec2", "spectrogram"}
        for name, output in row.outputs.items():
            assert output.correct == sum(rows[number].outputs[name].correct for rows in one_by_one)
            assert output.changed == sum(rows[number].outputs[name].changed for rows in one_by_one)
            assert output.moved == pytest.approx(max(rows[number].outputs[name].moved for rows in one_by_one), abs=1e-5)
            assert output.accuracy == output.correct / 9
    assert all(output.changed == 0 == output.moved for output in together[0].outputs.values())
    assert any(output.moved > 0.01 for row in together for output in row.outputs.values())


def test_bounds_are_of_what_they_say(corpus: Corpus, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in measure(bundle, question(corpus))}
    kinds = {name: [bound.what for bound in row.bounds] for name, row in rows.items()}
    assert kinds[CLEAN] == [BELOW] == kinds["white noise, 20 dB SNR"]
    assert kinds["20 dB quieter"] == [MOVED, BELOW] and kinds["8 kHz µ-law"] == [FALL, BELOW]
    for row in rows.values():
        for bound in row.bounds:
            assert bound.kept == (bound.value <= bound.limit)
    right = rows[CLEAN].outputs[FUSED].correct
    nothing = Degradation("gone", lambda sound, scene: np.zeros_like(sound), may_fall=3.0)
    monkeypatch.setattr(module, "DEGRADATIONS", (module.DEGRADATIONS[0], nothing))
    _, gone = measure(bundle, question(corpus))
    lost = right - gone.outputs[FUSED].correct
    assert gone.bounds[0].value == pytest.approx(100 * lost / 9, abs=1e-4)


def test_babble_is_of_other_speakers(corpus: Corpus, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    assert len(module._voices(corpus, 0, 48_000, rng)) == 2  # there are three speakers
    nameless = replace(corpus, examples=tuple(replace(e, speaker=None) for e in corpus.examples))
    assert len(module._voices(nameless, 0, 48_000, rng)) == module.VOICES
    alone = replace(corpus, examples=tuple(replace(e, speaker="1") for e in corpus.examples))
    with pytest.raises(TrainingError, match="other speakers"):
        module._voices(alone, 0, 48_000, rng)


def test_recordings_of_streets_stand_in_for_traffic(corpus: Corpus, bundle: Bundle, tmp_path: Path) -> None:
    synthesised = {row.name: row for row in measure(bundle, question(corpus))}
    asked = replace(question(corpus), streets=(write(tmp_path / "street.wav", 0.3),))
    recorded = {row.name: row for row in measure(bundle, asked)}
    changed = {name for name in recorded if recorded[name] != synthesised[name]}
    assert changed == {"street, 20 dB SNR"} and asked.noises()["street"] == "1 recordings"


def test_a_label_that_the_bundle_lacks_is_refused(corpus: Corpus) -> None:
    assert targets_of(corpus, (0, 1), LABELS, {"calm": "angry", "angry": "calm"}.get).tolist() == [1, 0]
    with pytest.raises(TrainingError, match="none of the bundle's"):
        targets_of(corpus, (0, 1), LABELS, {"calm": "calm"}.get)
