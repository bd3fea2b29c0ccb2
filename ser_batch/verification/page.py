"""The bundle's certificate as a page, CERTIFICATE.md: what was compared with what, and every figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.verification.records import BundleCertificate, BundleEntry, Difference, Tolerance


def markdown(certificate: BundleCertificate) -> str:
    """The page of a certificate."""
    return "\n".join(_lines(certificate)) + "\n"


def _lines(certificate: BundleCertificate) -> Iterator[str]:
    entries = sorted(certificate.entries, key=lambda e: (e.machine, e.backend, e.precision))
    yield f"# Certificate of {certificate.bundle}"
    yield ""
    yield "Written by `ser-batch verify`; certificate.json holds the same figures. It is about the model with sha256"
    yield f"`{certificate.model_sha256}` and the graphs named there."
    yield from _tolerance_lines(certificate.gates)
    yield ""
    yield "`torch` is the trained run itself. `emulated` is the graph of that precision with every tensor it holds"
    yield "rounded to it, products summed in fp32: no device of that precision was run."
    yield from _speech_lines(entries)
    yield from _reference_lines(entries)
    yield from _failure_lines(entries)
    yield ""
    yield "## Where and when"
    yield ""
    yield "| runtime | precision | version | machine | when |"
    yield "|---|---|---|---|---|"
    for e in entries:
        yield f"| {e.backend} | {e.precision} | {e.version} | {e.machine}, {e.device} | {e.created} |"


def _tolerance_lines(tolerances: Mapping[str, Tolerance]) -> Iterator[str]:
    yield ""
    yield "| precision | reference clips, max \\|Δp\\| at most | labelled speech, fused labels that flip at most |"
    yield "|---|---:|---:|"
    for precision, tolerance in tolerances.items():
        yield f"| {precision} | {tolerance.max_difference:.0e} | {tolerance.flip_rate:.1%} |"
    yield ""
    yield "In fp32 the bound on |Δp| holds on labelled speech too, and no label of any output may flip."


def _speech_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    for clips, corpus, sha256 in sorted({_set(e) for e in entries if e.speech is not None}):
        yield from ("", f"## {clips:,} labelled clips of {corpus}, against onnxruntime fp32", "")
        yield f"Names and labels: sha256 `{sha256}`."
        yield "Accuracy is over all of them: where the model was trained on some, it is no measure of the model"
        yield "(MODEL_CARD.md has that), but the differences are those of the precision."
        yield ""
        numbers = "max \\|Δp\\| | mean \\|Δp\\| | flips | not finite | accuracy | difference"
        yield f"| runtime | precision | output | {numbers} | |"
        yield "|---|---|---|---:|---:|---:|---:|---:|---:|---|"
        for e in entries:
            if e.speech is None or _set(e) != (clips, corpus, sha256):
                continue
            for o in e.speech.outputs:
                share, change = o.accuracy, o.accuracy_difference
                accuracy = "–" if share is None else f"{share:.2%}"
                difference = "–" if change is None else f"{100 * change:+.2f} points"
                yield (
                    f"| {e.backend} | {e.precision} | {_differences(o)} | {o.flips} ({o.flip_rate:.2%}) "
                    f"| {o.non_finite} | {accuracy} | {difference} | {_verdict(e)} |"
                )


def _reference_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    yield ""
    yield "## Reference clips, against the probabilities torch gave when the model was exported"
    yield ""
    yield "| runtime | precision | output | max \\|Δp\\| | mean \\|Δp\\| | rows | flips | not finite | |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for e in entries:
        for o in e.reference:
            figures = f"{o.rows} | {o.flips} | {o.non_finite} | {_verdict(e)}"
            yield f"| {e.backend} | {e.precision} | {_differences(o)} | {figures} |"
    if any(o.output == EMBEDDING for e in entries for o in e.reference):
        yield from ("", "Of an embedding, max and mean are those of its distance, relative to the size of embeddings.")


def _failure_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    reasons = dict.fromkeys(reason for e in entries for reason in e.failures)
    if reasons:
        yield from ("", "## What failed", "")
        yield from (f"- {reason}" for reason in reasons)


def _set(entry: BundleEntry) -> tuple[int, str, str]:
    speech = entry.speech
    return (speech.clips, speech.corpus, speech.sha256) if speech is not None else (0, "", "")


def _differences(output: Difference) -> str:
    values = (output.max_difference, output.mean_difference)
    return " | ".join([output.output, *("–" if value is None else f"{value:.1e}" for value in values)])


def _verdict(entry: BundleEntry) -> str:
    return "passed" if entry.passed else "**failed**"
