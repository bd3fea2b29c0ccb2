"""The table of predictions: its columns, its provenance, and how rows become Arrow record batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import ser_batch
from ser_batch.arrow import numbers, strings, take, vectors, words
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import SPLIT, Segmentation
from ser_batch.engines.protocol import EngineIdentity
from ser_batch.engines.scorer import Scores
from ser_batch.errors import OutputError
from ser_batch.recordings.recording import Segment

STATUSES = ("ok", "silent", "short", "error")
FACTS: dict[str, type[np.generic]] = {
    **dict.fromkeys(("start", "end", "duration"), np.float64),
    **dict.fromkeys(("sample_rate", "channels"), np.int32),
    **dict.fromkeys(("level", "bandwidth", "clipped"), np.float32),
    **dict.fromkeys(("channel", "segments"), np.int32),
}
"""Columns of numbers about the segment, as in `ser_batch.recordings.recording.Segment`."""
DECODERS = ("libsndfile", "ffmpeg")
ADDED = ("bandwidth", "clipped", "channel", "decoder")
"""Columns that an output of an earlier version may lack; it is gone on with without them."""
NAMESPACE = "ser_batch."
"""Prefix of the schema metadata's keys."""
EMBEDDINGS: dict[str, pa.DataType] = {"float16": pa.float16(), "float32": pa.float32()}
"""What the numbers of an embedding may be written as."""
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
VERSION = ("source_size", "source_mtime_ns")
"""Columns that say which version of the input a row is about."""


def schema(
    bundle: Bundle,
    engine: EngineIdentity,
    segmentation: Segmentation,
    *,
    branch_columns: bool = True,
    embeddings: str | None = None,
    extra: pa.Schema | None = None,
    without: Sequence[str] = (),
) -> pa.Schema:
    """Columns of the finished table, with the provenance of every row in the metadata.

    One float32 column per label (`p_<label>` fused, `<branch>_p_<label>` each branch's own): larger than a list
    column by a tenth, and plain in every reader. `file`, `status` and the input's size and time are never null.

    Args:
        embeddings: one of `EMBEDDINGS`: also a column `embedding`, a list of as many numbers as the embedding has.
        extra: columns that are handed through; they are the last.
        without: columns of our own that are left out.

    Raises:
        BundleError: embeddings are asked for, and the bundle has none.
    """
    word = pa.dictionary(pa.int16(), pa.string())
    names = [f"p_{label}" for label in bundle.labels]
    if branch_columns:
        names += [f"{b.name}_p_{label}" for b in bundle.manifest.branches for label in bundle.branch_labels]
    fields = [
        pa.field("file", pa.string(), nullable=False),
        *(
            pa.field(name, pa.from_numpy_dtype(kind))
            for name, kind in FACTS.items()
            if name != "segments" or segmentation.whole
        ),
        pa.field("decoder", word),
        pa.field("label", word),
        *(pa.field(name, pa.float32()) for name in ("score", *names)),
        *(
            pa.field(EMBEDDING, pa.list_(EMBEDDINGS[kind], bundle.embedding().size))
            for kind in ([] if embeddings is None else [embeddings])
        ),
        pa.field("status", word, nullable=False),
        pa.field("error", pa.string()),
        *(pa.field(name, pa.int64(), nullable=False) for name in VERSION),
    ]
    fields = [field for field in fields if field.name not in without]
    names = [field.name for field in fields]
    given = set() if extra is None else {*extra.names} - {*names}
    for each in extra or ():
        # The label that a table of recordings gives must not pass for the one predicted.
        name = each.name if each.name in given else f"given_{each.name}"
        while name in names or (name in given and name != each.name):
            name = f"given_{name}"
        names.append(name)
        fields.append(each.with_name(name))
    return pa.schema(fields, metadata=_provenance(bundle, engine, segmentation, embeddings))


def handed_through(names: Sequence[str]) -> list[str]:
    """Of the columns of an output, those that a table of recordings brought: they are the last."""
    return list(names[names.index(VERSION[-1]) + 1 :])


def _provenance(
    bundle: Bundle, engine: EngineIdentity, segmentation: Segmentation, embeddings: str | None
) -> dict[str, str]:
    values = {
        "version": ser_batch.__version__,
        "bundle_id": bundle.id,
        "bundle_sha256": bundle.sha256,
        "labels": json.dumps(bundle.labels),
        "branches": json.dumps([branch.name for branch in bundle.manifest.branches]),
        "backend": engine.name,
        "precision": engine.precision,
        "device": engine.device,
        "clip": segmentation.to_json(),
    }
    if embeddings is not None and (branch := bundle.manifest.embedding) is not None:
        said = {"branch": branch.name, "size": bundle.embedding().size, "type": embeddings}
        values[EMBEDDING] = json.dumps(said)
    if bundle.branch_labels != bundle.labels:
        values["branch_labels"] = json.dumps(bundle.branch_labels)
    return {NAMESPACE + key: value for key, value in values.items()}


def is_split(table: pa.Schema) -> bool:
    """Whether the channels of a recording have rows of their own."""
    clip = (table.metadata or {}).get(f"{NAMESPACE}clip".encode(), b"{}")
    return bool(json.loads(clip).get("channels") == SPLIT)


def record_batch(
    table: pa.Schema,
    labels: Sequence[str],
    segments: Sequence[Segment],
    scores: Scores,
    extra: pa.Table | None = None,
    *,
    branch_labels: Sequence[str] | None = None,
) -> Any:
    """Rows of the table, built column by column.

    Args:
        table: its `schema`.
        segments: one per row, in order; those with status "ok" have a row each in `scores`, in the same order.
        extra: columns handed through, with a row for each recording; they are the last of the table.
        branch_labels: of the branches' own rows; None: `labels`.

    Returns:
        pyarrow.RecordBatch of `table`.

    Raises:
        OutputError: an embedding does not fit into float16.
    """
    ok = np.array([segment.status == "ok" for segment in segments], dtype=bool)
    columns = {
        "file": strings([segment.recording.name for segment in segments]),
        "label": words(scores.fused.argmax(axis=1), labels, ok),
        "score": numbers(scores.fused.max(axis=1, initial=0), np.float32, ok),
        "status": words([STATUSES.index(segment.status) for segment in segments], STATUSES),
        "error": strings([segment.error for segment in segments]),
    }
    for name, kind in FACTS.items():
        values = [getattr(segment, name) for segment in segments]
        known = np.array([value is not None for value in values], dtype=bool)
        columns[name] = numbers([value for value in values if value is not None], kind, known)
    decoders = [segment.decoder for segment in segments]
    known = np.array([decoder is not None for decoder in decoders], dtype=bool)
    columns["decoder"] = words([DECODERS.index(name) for name in decoders if name is not None], DECODERS, known)
    for index, name in enumerate(VERSION):
        columns[name] = numbers([segment.version[index] for segment in segments], np.int64)
    for index, label in enumerate(labels):
        columns[f"p_{label}"] = numbers(scores.fused[:, index], np.float32, ok)
    for name, rows in scores.branches.items():
        for index, label in enumerate(branch_labels or labels):
            columns[f"{name}_p_{label}"] = numbers(rows[:, index], np.float32, ok)
    if EMBEDDING in table.names:
        columns[EMBEDDING] = _embedding_column(table.field(EMBEDDING).type, scores, segments, ok)
    handed = handed_through(table.names)
    arrays = [columns[name] for name in table.names[: len(table.names) - len(handed)]]
    if extra is not None:
        chosen = take(extra, [segment.recording.row for segment in segments])
        arrays += [column.combine_chunks() for column in chosen.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table)


def _embedding_column(
    kind: pa.FixedSizeListType, scores: Scores, segments: Sequence[Segment], ok: npt.NDArray[np.bool_]
) -> pa.FixedSizeListArray:
    rows = np.empty((0, kind.list_size), np.float32) if scores.embedding is None else scores.embedding
    if kind.value_type == pa.float16() and (np.abs(rows) > LARGEST_FLOAT16).any():
        first = int((np.abs(rows) > LARGEST_FLOAT16).any(axis=1).argmax())
        raise OutputError(
            "an embedding does not fit into float16",
            got=f"{np.abs(rows).max():.3g} in {segments[int(np.flatnonzero(ok)[first])].recording.name}",
            expected=f"at most {LARGEST_FLOAT16:g}",
            remedy="Write them as --embeddings float32.",
        )
    return vectors(rows, kind.value_type.to_pandas_dtype(), ok)
