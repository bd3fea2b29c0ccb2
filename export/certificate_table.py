"""A bundle's certificate as a page: what was compared with what, and every figure beside its gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Entry = Mapping[str, Any]


def markdown(content: Mapping[str, Any]) -> str:
    """CERTIFICATE.md, from the content of certificate.json."""
    return "\n".join(_lines(content)) + "\n"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    entries = sorted(content["entries"], key=lambda e: (e["machine"], e["backend"], e["precision"]))
    yield f"# Certificate of {content['bundle']}"
    yield ""
    yield "Written by `ser-export verify`; certificate.json holds the same figures. It is about the model with sha256"
    yield f"`{content['model_sha256']}` and the graphs named there."
    yield from _gates(content["gates"])
    yield ""
    yield "`torch` is the trained run itself. `emulated` is the graph of that precision with every tensor it holds"
    yield "rounded to it, products summed in fp32: no device of that precision was run."
    yield from _speech(entries)
    yield from _reference(entries)
    yield from _failures(entries)
    yield ""
    yield "## Where and when"
    yield ""
    yield "| runtime | precision | version | machine | when |"
    yield "|---|---|---|---|---|"
    for e in entries:
        yield f"| {e['backend']} | {e['precision']} | {e['version']} | {e['machine']}, {e['device']} | {e['created']} |"


def _gates(gates: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "| precision | reference clips, max \\|Δp\\| at most | labelled speech, fused labels that flip at most |"
    yield "|---|---:|---:|"
    for precision, gate in gates.items():
        yield f"| {precision} | {gate['max_difference']:.0e} | {gate['flip_rate']:.1%} |"
    yield ""
    yield "In fp32 the bound on |Δp| holds on labelled speech too, and no label of any output may flip."


def _speech(entries: list[Entry]) -> Iterator[str]:
    for clips, corpus, sha256 in sorted({_set(e) for e in entries if e["speech"] is not None}):
        yield from ("", f"## {clips:,} labelled clips of {corpus}, against onnxruntime fp32", "")
        yield f"Names and labels: sha256 `{sha256}`."
        yield "Accuracy is over all of them: where the model was trained on some, it is no measure of the model"
        yield "(MODEL_CARD.md has that), but the differences are those of the precision."
        yield ""
        numbers = "max \\|Δp\\| | mean \\|Δp\\| | flips | not finite | accuracy | difference"
        yield f"| runtime | precision | output | {numbers} | |"
        yield "|---|---|---|---:|---:|---:|---:|---:|---:|---|"
        for e in entries:
            if e["speech"] is None or _set(e) != (clips, corpus, sha256):
                continue
            for o in e["speech"]["outputs"]:
                yield (
                    f"| {e['backend']} | {e['precision']} | {_differences(o)} | {o['flips']} ({o['flip_rate']:.2%}) "
                    f"| {o['non_finite']} | {o['accuracy']:.2%} | {100 * o['accuracy_difference']:+.2f} points "
                    f"| {_verdict(e)} |"
                )


def _reference(entries: list[Entry]) -> Iterator[str]:
    yield ""
    yield "## Reference clips, against the probabilities torch gave when the model was exported"
    yield ""
    yield "| runtime | precision | output | max \\|Δp\\| | mean \\|Δp\\| | rows | flips | not finite | |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for e in entries:
        for o in e["reference"]:
            figures = f"{o['rows']} | {o['flips']} | {o['non_finite']} | {_verdict(e)}"
            yield f"| {e['backend']} | {e['precision']} | {_differences(o)} | {figures} |"


def _failures(entries: list[Entry]) -> Iterator[str]:
    reasons = dict.fromkeys(reason for e in entries for reason in e["failures"])
    if reasons:
        yield from ("", "## What failed", "")
        yield from (f"- {reason}" for reason in reasons)


def _set(entry: Entry) -> tuple[int, str, str]:
    speech = entry["speech"]
    return speech["clips"], speech["corpus"], speech["sha256"]


def _differences(output: Mapping[str, Any]) -> str:
    values = (output["max_difference"], output["mean_difference"])
    return " | ".join([output["output"], *("–" if value is None else f"{value:.1e}" for value in values)])


def _verdict(entry: Entry) -> str:
    return "passed" if entry["passed"] else "**failed**"
