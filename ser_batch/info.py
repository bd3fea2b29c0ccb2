"""A bundle described: as a page for people, and as one JSON object for machines; for `ser-batch info`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.head import Head
from ser_batch.bundle.trust import trust_of
from ser_batch.engines import available_backends
from ser_batch.engines.tensorrt.sidecar import engines_home, read_sidecars, with_engines
from ser_batch.text import aligned, terminal_safe

WIDTH = 100
"""Columns of the page: text is broken there, tables are not."""
NAME = 10
"""Columns of a row's name."""
MODEL_CARD = "MODEL_CARD.md"


def describe(bundle: Bundle) -> dict[str, Any]:
    """Everything that is known of `bundle` here, as plain JSON types."""
    manifest = bundle.manifest
    return {
        "id": bundle.id,
        "sha256": bundle.sha256,
        "path": str(bundle.root),
        "embedded": bundle.is_embedded,
        "bytes": _sizes(bundle),
        "schema_version": manifest.schema_version,
        "created": manifest.created,
        "labels": list(manifest.labels),
        "clip": manifest.clip.to_dict(),
        "branches": [
            {"name": each.name, "file": each.file, "input": each.input, "output": each.output}
            | ({"embedding": each.embedding.size} if each.embedding else {})
            for each in manifest.branches
        ],
        "branch_labels": list(bundle.branch_labels),
        "trust": str(trust_of(bundle)),
        "metrics": manifest.metrics,
        "provenance": manifest.provenance,
        "licence": manifest.licence,
        "engines": [each.built_for for each in read_sidecars(with_engines(bundle))],
        "backends": available_backends(),
    }


def page(bundle: Bundle) -> str:
    """What `bundle` is, how well it does, what it was trained on and what can run it here, for people."""
    found = describe(bundle)
    blocks = [
        _rows([*_what(bundle, found), *_how_well(bundle, found)]),
        *_figures(bundle.manifest.metrics),
        _rows([*_training(bundle.manifest.provenance), ("licence", bundle.manifest.licence)]),
        _rows(_runtimes(bundle, found)),
        _rows(_next(bundle)),
    ]
    # A manifest is another's text: a control character in it must not reach the terminal.
    return "\n".join(terminal_safe(line) for line in "\n\n".join(blocks).split("\n"))


def _what(bundle: Bundle, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    clip, sizes = bundle.manifest.clip, found["bytes"]
    yield "bundle", f"{bundle.id}{', the default one, embedded in ser-batch' if bundle.is_embedded else ''}"
    yield "path", found["path"]
    yield "created", f"{found['created'][:10]}, schema {found['schema_version']}"
    yield "size", f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files"
    yield "labels", ", ".join(bundle.labels)
    offset = f", from {clip.offset:g} s on" + (" at most" if clip.clamp_offset else "") if clip.offset else ""
    yield "clip", f"{clip.seconds:g} s at {clip.sample_rate:,} Hz{offset}; any recording is resampled, long ones whole"
    branches = [f"{each.name} ({sizes[each.file] / 1e6:.1f} MB)" for each in bundle.manifest.branches]
    inputs = "the embedding and their log-probabilities" if isinstance(bundle.fusion, Head) else "their probabilities"
    yield "branches", f"{', '.join(branches)}; fused by a logistic regression over {inputs}"
    held = bundle.manifest.embedding
    yield "embedding", "none" if held is None or held.embedding is None else f"{held.embedding.size}, of {held.name}"


def _how_well(bundle: Bundle, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "trust", found["trust"]
    if MODEL_CARD in bundle.manifest.files:
        yield "card", f"{bundle.root / MODEL_CARD}: data, figures, limits"


def _figures(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The test figures as tables, where they are as an export writes them."""
    test = metrics.get("test")
    if not isinstance(test, Mapping) or not all(isinstance(each, Mapping) for each in test.values()):
        return
    rows = [
        [output, *(_percent(value) for value in (each.get("accuracy"), each.get("ua"), _macro(each)))]
        for output, each in test.items()
    ]
    interval = test.get(FUSED, {}).get("accuracy_interval")
    clips = test.get(FUSED, {}).get("clips")
    about = [f"split {metrics['split']}"] if "split" in metrics else []
    about += [f"{clips} clips"] if clips else []
    about += ["fused accuracy {} to {}".format(*map(_percent, interval)) + " (95 %)"] if interval else []
    head = f"test figures{': ' + ', '.join(about) if about else ''}"
    yield f"{head}\n{textwrap.indent(aligned([['', 'accuracy', 'UA', 'macro-F1'], *rows]), '  ')}"


def _macro(figures: Mapping[str, Any]) -> Any:
    macro = figures.get("macro")
    return macro.get("f1") if isinstance(macro, Mapping) else None


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "–"


def _training(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The plain values of the provenance; the whole of it, configuration and versions, is in the JSON."""
    named = {key: value for key, value in provenance.items() if isinstance(value, str | int | float)}
    if isinstance(corpora := provenance.get("corpora"), Mapping):
        named["data"] = "+".join(corpora)  # `data` itself also names those that it was tested on
    split = provenance.get("split")
    if isinstance(split, Mapping):
        counts = [f"{split[part]} {part}" for part in ("train", "validation", "test") if part in split]
        named["split"] = f"{split.get('name', '')} ({', '.join(counts)})" if counts else str(split.get("name", ""))
    if named:
        yield "trained", ", ".join(f"{key} {value}" for key, value in named.items() if key != "licence")


def _runtimes(bundle: Bundle, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, reason in found["backends"].items():
        yield name, f"not here: {reason}" if reason else "can run here"
    for engines in found["engines"]:
        yield "engines", f"{engines}, in {engines_home(bundle)}"


def _next(bundle: Bundle) -> Iterator[tuple[str, str]]:
    named = "" if bundle.is_embedded else f" {bundle.root}"
    yield "next", f"ser-batch run AUDIO{named and f' --bundle{named}'} --out preds.parquet"
    yield "", f"ser-batch verify{named}, so that auto takes the fastest runtime that gives the same labels"
    yield "", f"ser-batch info{named} --json, for every setting"


def _rows(rows: Any) -> str:
    """Names and values, whose later lines are below their first."""
    listed: Sequence[tuple[str, str]] = list(rows)
    width = max(NAME, *(len(name) for name, _ in listed)) + 2
    lines = [textwrap.wrap(value, WIDTH - width, break_long_words=False, break_on_hyphens=False) for _, value in listed]
    return "\n".join(
        f"{name if number == 0 else '':<{width}}{line}"
        for (name, _), wrapped in zip(listed, lines, strict=True)
        for number, line in enumerate(wrapped or [""])
    )


def _sizes(bundle: Bundle) -> dict[str, int]:
    return {member: (bundle.root / member).stat().st_size for member in bundle.manifest.files}
