"""A bundle described in plain rows, for `ser-batch info`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.head import Head
from ser_batch.engines import available_backends
from ser_batch.engines.tensorrt.sidecar import read_sidecars
from ser_batch.text import terminal_safe


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """What `bundle` is, as (name, value) rows in reading order; nested metrics and provenance are dotted."""
    manifest, clip = bundle.manifest, bundle.manifest.clip
    sizes = {member: (bundle.root / member).stat().st_size for member in manifest.files}
    rows = [
        ("bundle", bundle.id),
        ("path", str(bundle.root)),
        ("sha256", bundle.sha256),
        ("schema version", str(manifest.schema_version)),
        ("created", manifest.created),
        ("size", f"{sum(sizes.values()) / 1e6:.2f} MB in {len(sizes)} files"),
        ("labels", ", ".join(manifest.labels)),
        *([("labels of branches", ", ".join(manifest.branch_labels))] if manifest.branch_labels else []),
        (
            "clip",
            f"{clip.seconds:g} s at {clip.sample_rate} Hz, {clip.samples} samples, offset {clip.offset:g} s"
            + (" at most" if clip.clamp_offset else ""),
        ),
    ]
    for branch in manifest.branches:
        tensors = f"{branch.input} -> {branch.output}"
        if branch.embedding is not None:
            tensors += f", {branch.embedding.output} ({branch.embedding.size})"
        rows.append((f"branch {branch.name}", f"{branch.file}, {sizes[branch.file] / 1e6:.2f} MB, {tensors}"))
    with_embedding = manifest.embedding
    rows.append(("embedding", "none" if with_embedding is None else f"of branch {with_embedding.name}"))
    for sidecar in read_sidecars(bundle):
        batches = ", ".join(map(str, sidecar.profiles))
        rows.append((f"engines {Path(sidecar.folder).name}", f"{sidecar.built_for}, batches of {batches}"))
    inputs = list(bundle.fusion.branches)
    if isinstance(bundle.fusion, Head):
        inputs = ["embedding", *(f"log {branch}" for branch in inputs)]
    rows.append(("fusion", f"softmax(W [{'; '.join(inputs)}] + b)"))
    rows.extend(_flatten("metrics", manifest.metrics))
    rows.extend(_flatten("provenance", manifest.provenance))
    rows.append(("licence", manifest.licence))
    rows.extend((f"backend {name}", reason or "available") for name, reason in available_backends().items())
    # A manifest is another's text: a control character in it must not reach the terminal.
    return [(terminal_safe(name), terminal_safe(value)) for name, value in rows]


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}", inner)
    else:
        yield prefix, str(value)
