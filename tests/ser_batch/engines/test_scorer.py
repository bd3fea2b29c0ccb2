from __future__ import annotations

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import BundleError, EngineError, InputError
from support.toy import LABELS, make_toy_bundle, toy_embedding, toy_probabilities, toy_weights


class StubEngine:
    """An engine that returns what it is told to."""

    name, precision, device = "stub", "fp32", "cpu"

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self.rows = rows
        self.calls = 0

    def run(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        return self.rows

    def close(self) -> None:
        pass


GOOD = np.full((2, 8), 0.125, np.float32)


def row(**changes: float) -> np.ndarray:
    """Two clips' uniform rows, with the second clip's first values changed."""
    rows = GOOD.copy()
    for index, value in changes.items():
        rows[1, int(index[1:])] = value
    return rows


@pytest.fixture(scope="module")
def scorer(toy_bundle: Bundle) -> Scorer:
    return Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    rng = np.random.default_rng(3)
    gains = np.geomspace(1e-3, 1, 13)[:, None]
    return (gains * rng.uniform(-1, 1, (13, 144_000))).astype(np.float32)


def test_it_reproduces_the_reference(toy_bundle: Bundle, scorer: Scorer) -> None:
    reference = toy_bundle.reference()
    scores = scorer.score(reference.waveform)
    np.testing.assert_allclose(scores.fused, reference.fused, atol=1e-5)
    assert list(scores.branches) == ["wav2vec2", "spectrogram"]
    for name, rows in reference.branches.items():
        np.testing.assert_allclose(scores.branches[name], rows, atol=1e-5)


def test_it_is_the_fusion_of_the_branches(toy_bundle: Bundle, scorer: Scorer, noise: np.ndarray) -> None:
    rows = {name: toy_probabilities(noise, toy_weights(name, 8)) for name in ("wav2vec2", "spectrogram")}
    scores = scorer.score(noise)
    np.testing.assert_allclose(scores.fused, toy_bundle.fusion(rows), atol=1e-5)
    assert scores.fused.dtype == np.float32
    assert scorer.labels == LABELS
    assert len(set(scores.fused.argmax(axis=1))) > 1


def test_a_clip_alone_scores_as_in_any_batch(scorer: Scorer, noise: np.ndarray) -> None:
    whole = scorer.score(noise)
    for size in (1, 4):
        for start in range(0, len(noise), size):
            part = scorer.score(noise[start : start + size])
            np.testing.assert_allclose(part.fused, whole.fused[start : start + size], atol=1e-6)
            for name, rows in part.branches.items():
                np.testing.assert_allclose(rows, whole.branches[name][start : start + size], atol=1e-6)


def test_no_clips_give_no_rows_and_do_not_reach_the_engine(toy_bundle: Bundle) -> None:
    engine = StubEngine({})
    scores = Scorer(toy_bundle, engine).score(np.empty((0, 144_000), np.float32))
    assert scores.fused.shape == (0, 8)
    assert {name: rows.shape for name, rows in scores.branches.items()} == {
        "wav2vec2": (0, 8),
        "spectrogram": (0, 8),
    }
    assert engine.calls == 0


def test_memory_order_does_not_matter(scorer: Scorer, noise: np.ndarray) -> None:
    np.testing.assert_array_equal(scorer.score(np.asfortranarray(noise)).fused, scorer.score(noise).fused)


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(144_000, np.float32),
        np.zeros((1, 143_999), np.float32),
        np.zeros((1, 1, 144_000), np.float32),
        np.zeros((1, 144_000), np.float64),
        np.zeros((1, 144_000), np.int16),
        np.zeros((0, 10), np.float32),
    ],
    ids=lambda waveform: f"{waveform.shape}-{waveform.dtype}",
)
def test_other_waveforms_are_refused(scorer: Scorer, waveform: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"waveforms do not fit .* expected \(B, 144000\) float32"):
        scorer.score(waveform)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(scorer: Scorer, bad: float) -> None:
    waveform = np.zeros((3, 144_000), np.float32)
    waveform[1, 7] = bad
    with pytest.raises(InputError, match="not finite; got clip 1"):
        scorer.score(waveform)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (row(i0=np.nan), "not finite; got clip 1"),
        (row(i0=np.inf), "not finite; got clip 1"),
        (row(i0=0.2), "other than probabilities; got clip 1"),
        (row(i0=-0.125, i1=0.375), "other than probabilities; got clip 1"),
        (np.zeros((2, 8), np.float32), "other than probabilities; got clip 0"),
        (GOOD[:, :7], "another array"),
        (GOOD[:1], "another array"),
        (GOOD.astype(np.float64), "another array"),
    ],
)
def test_what_is_no_distribution_is_refused(toy_bundle: Bundle, rows: np.ndarray, message: str) -> None:
    scorer = Scorer(toy_bundle, StubEngine({"wav2vec2": GOOD, "spectrogram": rows}))
    with pytest.raises(EngineError, match=f"branch spectrogram on stub .*{message}"):
        scorer.score(np.zeros((2, 144_000), np.float32))


@pytest.mark.parametrize("names", [("wav2vec2",), ("wav2vec2", "spectrogram", "more"), ()])
def test_other_branches_are_refused(toy_bundle: Bundle, names: tuple[str, ...]) -> None:
    scorer = Scorer(toy_bundle, StubEngine(dict.fromkeys(names, GOOD)))
    with pytest.raises(EngineError, match="other branches"):
        scorer.score(np.zeros((2, 144_000), np.float32))


def test_a_graph_that_ends_in_logits_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = make_toy_bundle(tmp_path_factory.mktemp("logits") / "bundle", last="Identity")
    with pytest.raises(EngineError, match="other than probabilities"):
        Scorer(bundle, open_engine(bundle, "onnxruntime", threads=1)).score(bundle.reference().waveform)


def test_scores_hold_the_embedding_where_it_was_asked_for(embedding_bundle: Bundle, noise: np.ndarray) -> None:
    engine = open_engine(embedding_bundle, "onnxruntime", threads=1, embedding=True)
    scorer = Scorer(embedding_bundle, engine, embedding=True)
    scores = scorer.score(noise)
    assert scores.embedding is not None and scores.embedding.dtype == np.float32
    np.testing.assert_allclose(scores.embedding, toy_embedding(noise), atol=1e-4)
    empty = scorer.score(noise[:0]).embedding
    assert empty is not None and empty.shape == (0, 8)
    assert Scorer(embedding_bundle, engine).score(noise).embedding is None


def test_an_embedding_that_is_missing_or_wrong_is_refused(toy_bundle: Bundle, embedding_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="has no embedding"):
        Scorer(toy_bundle, StubEngine({}), embedding=True)
    waveform, rows = np.zeros((2, 144_000), np.float32), {"wav2vec2": GOOD, "spectrogram": GOOD}
    good = np.zeros((2, 8), np.float32)
    for given, message in (
        ({}, "stub was opened without the embedding"),
        ({"embedding": good[:, :7]}, r"returned another array; got \(2, 7\) float32; expected \(2, 8\)"),
        ({"embedding": good + np.float32(np.nan)}, "not finite; got clip 0"),
    ):
        scorer = Scorer(embedding_bundle, StubEngine(rows | given), embedding=True)
        with pytest.raises(EngineError, match=message):
            scorer.score(waveform)
