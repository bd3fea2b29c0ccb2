from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule, Segmentation
from ser_batch.engines.scorer import Scores
from ser_batch.errors import OutputError
from ser_batch.output.schema import ADDED, record_batch, schema
from ser_batch.recordings.recording import Recording, Segment

WHOLE = Segmentation(ClipRule())


class Recorder:
    name, precision, device = "recorder", "fp16", "gpu:3"


def outcome(name: str, error: str | None = None) -> Segment:
    known = () if error else (0.5, 3.25, 3.25, 44_100, 2, -20.0, 8_000.0, 0.25, None, "ffmpeg")
    return Segment(Recording(f"/x/{name}", name), (len(name), 12), "error" if error else "ok", error, True, *known)


def scores(rows: int, seed: int = 0) -> Scores:
    def distribution() -> np.ndarray:
        return rng.dirichlet(np.ones(8), rows).astype(np.float32)

    rng = np.random.default_rng(seed)
    return Scores(distribution(), {"wav2vec2": distribution(), "spectrogram": distribution()})


def test_columns_are_those_documented(toy_bundle: Bundle) -> None:
    labels = [f"p_{label}" for label in toy_bundle.labels]
    full = schema(toy_bundle, Recorder(), WHOLE)
    facts = ["start", "end", "duration", "sample_rate", "channels", "level", *ADDED]
    head = ["file", *facts, "label", "score"]
    tail = ["status", "error", "source_size", "source_mtime_ns"]
    branches = [f"{branch}_{label}" for branch in ("wav2vec2", "spectrogram") for label in labels]
    assert full.names == [*head, *labels, *branches, *tail]
    assert schema(toy_bundle, Recorder(), WHOLE, branch_columns=False).names == [*head, *labels, *tail]
    before = schema(toy_bundle, Recorder(), WHOLE, branch_columns=False, without=ADDED).names
    assert before == [name for name in [*head, *labels, *tail] if name not in ADDED]
    assert {str(full.field(name).type) for name in (*labels, *branches, "score")} == {"float"}
    assert all(pa.types.is_dictionary(full.field(name).type) for name in ("label", "status"))


def test_provenance_is_in_the_metadata(toy_bundle: Bundle) -> None:
    metadata = {key.decode(): value.decode() for key, value in schema(toy_bundle, Recorder(), WHOLE).metadata.items()}
    assert metadata["ser_batch.bundle_id"] == toy_bundle.id
    assert metadata["ser_batch.bundle_sha256"] == toy_bundle.sha256
    assert json.loads(metadata["ser_batch.labels"]) == list(toy_bundle.labels)
    assert json.loads(metadata["ser_batch.clip"]) == {
        "sample_rate": 48_000,
        "samples": 144_000,
        "offset": 0.5,
        "min_duration": 0.0,
        "silence_dbfs": None,
    }
    assert [metadata[f"ser_batch.{key}"] for key in ("backend", "precision", "device")] == [
        "recorder", "fp16", "gpu:3",
    ]  # fmt: skip


def test_rows_hold_what_was_scored_and_failures_nothing(toy_bundle: Bundle) -> None:
    part = schema(toy_bundle, Recorder(), WHOLE)
    outcomes = [outcome("bad\n.wav", "is empty"), outcome("ž.wav"), outcome("b.wav"), outcome("c", "ß")]
    given = scores(2)
    batch = record_batch(part, toy_bundle.labels, outcomes, given)
    batch.validate(full=True)
    assert batch.schema.equals(part, check_metadata=True)
    rows = batch.to_pylist()
    assert [row["file"] for row in rows] == ["bad\n.wav", "ž.wav", "b.wav", "c"]
    assert [row["status"] for row in rows] == ["error", "ok", "ok", "error"]
    assert [row["error"] for row in rows] == ["is empty", None, None, "ß"]
    for row, number in ((rows[1], 0), (rows[2], 1)):
        assert row["label"] == toy_bundle.labels[int(given.fused[number].argmax())]
        assert row["score"] == given.fused[number].max()
        assert (row["start"], row["end"], row["duration"]) == (0.5, 3.25, 3.25)
        assert (row["sample_rate"], row["channels"], row["level"]) == (44_100, 2, -20)
        assert [row[name] for name in ADDED] == [8_000, 0.25, None, "ffmpeg"]
        for index, label in enumerate(toy_bundle.labels):
            assert row[f"p_{label}"] == given.fused[number, index]
            for name, values in given.branches.items():
                assert row[f"{name}_p_{label}"] == values[number, index]
    known = {"file", "status", "error", "source_size", "source_mtime_ns"}
    assert all(value is None for name, value in rows[0].items() if name not in known)
    assert [(row["source_size"], row["source_mtime_ns"]) for row in rows] == [
        (8, 12),
        (5, 12),
        (5, 12),
        (1, 12),
    ]


@pytest.mark.parametrize("failed", [0, 9])
def test_batches_of_one_kind_only(toy_bundle: Bundle, failed: int) -> None:
    part = schema(toy_bundle, Recorder(), WHOLE, branch_columns=False)
    outcomes = [outcome(f"{index}", "bad" if failed else None) for index in range(9)]
    batch = record_batch(part, toy_bundle.labels, outcomes, scores(9 - failed))
    batch.validate(full=True)
    assert batch["label"].null_count == batch["p_happy"].null_count == failed
    assert batch["error"].null_count == 9 - failed


def test_what_is_silent_has_times_and_no_label(toy_bundle: Bundle) -> None:
    table = schema(toy_bundle, Recorder(), WHOLE)
    rows = [outcome("a"), outcome("b")._replace(status="silent"), outcome("c")._replace(status="short"), outcome("d")]
    written = record_batch(table, toy_bundle.labels, rows, scores(2)).to_pylist()
    assert [row["status"] for row in written] == ["ok", "silent", "short", "ok"]
    assert [row["label"] is None for row in written] == [False, True, True, False]
    assert [row["p_sad"] is None for row in written] == [False, True, True, False]
    assert [row["end"] for row in written] == [3.25] * 4


def test_columns_handed_through_never_pass_for_ours(toy_bundle: Bundle) -> None:
    extra = pa.table({"label": ["sad", "happy"], "speaker": [7, 8]})
    table = schema(toy_bundle, Recorder(), WHOLE, extra=extra.schema)
    assert table.names[-2:] == ["given_label", "speaker"]
    rows = [outcome(name)._replace(recording=Recording(name, name, row=row)) for name, row in (("b", 1), ("a", 0))]
    written = record_batch(table, toy_bundle.labels, rows, scores(2), extra).to_pylist()
    assert [(row["given_label"], row["speaker"]) for row in written] == [("happy", 8), ("sad", 7)]


def test_columns_handed_through_keep_the_names_that_an_earlier_version_gave_them(toy_bundle: Bundle) -> None:
    extra = pa.table({"channel": ["left", "right"]})
    table = schema(toy_bundle, Recorder(), WHOLE, extra=extra.schema, without=ADDED)
    assert table.names[-1] == "channel"
    rows = [outcome(name)._replace(recording=Recording(name, name, row=row)) for name, row in (("b", 1), ("a", 0))]
    written = record_batch(table, toy_bundle.labels, rows, scores(2), extra).to_pylist()
    assert [row["channel"] for row in written] == ["right", "left"]
    assert schema(toy_bundle, Recorder(), WHOLE, extra=extra.schema).names[-1] == "given_channel"


def test_an_embedding_beyond_float16_is_refused_not_made_infinite(embedding_bundle: Bundle) -> None:
    segments, rows = [outcome("a.wav"), outcome("b.wav", "broken"), outcome("c.wav")], np.zeros((2, 8), np.float32)
    rows[1, 3] = 1e5
    given = replace(scores(2), embedding=rows)
    half, full = (schema(embedding_bundle, Recorder(), WHOLE, embeddings=kind) for kind in ("float16", "float32"))
    found = record_batch(full, embedding_bundle.labels, segments, given).column("embedding").to_pylist()
    assert found == [[0.0] * 8, None, [0, 0, 0, 1e5, 0, 0, 0, 0]]
    with pytest.raises(OutputError, match=r"does not fit into float16; got 1e\+05 in c.wav.*--embeddings float32"):
        record_batch(half, embedding_bundle.labels, segments, given)
