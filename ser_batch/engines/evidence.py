"""The certificate inside a bundle: what `ser-export verify` found for each runtime and precision.

It travels with the bundle and says how far from the trained model each one is. How fast one is here, and whether this
machine's runtime reproduces the reference clips, is in the machine's own certificate (`ser_batch.engines.certificate`).
docs/bundle-format.md describes the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError

EVIDENCE_FILE = "certificate.json"
EVIDENCE_SCHEMA = 1
EVIDENCE_CLIPS = 500
"""Labelled clips that it takes to prove a lower precision; with fewer, half a percent is two clips: chance decides."""


@dataclass(frozen=True)
class Proof:
    """A runtime in a precision that held its gate on labelled speech."""

    clips: int
    flips: int
    """Of them, whose fused label is another one than in onnxruntime fp32."""


def proofs(bundle: Bundle) -> Mapping[tuple[str, str, str], Proof]:
    """(backend, precision, version of the runtime) → what proves it; empty without a certificate.

    Only what passed counts, on at least `EVIDENCE_CLIPS` clips, and made from the graphs that the bundle holds now.

    Raises:
        InputError: the certificate is damaged, or about another model.
    """
    content = read_evidence(bundle)
    if content is None:
        return {}
    try:
        return dict(_proofs(bundle, content["entries"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(bundle, error) from error


def read_evidence(bundle: Bundle) -> dict[str, Any] | None:
    """The certificate in `bundle` as plain JSON; None if it has none.

    Raises:
        InputError: it cannot be read, is damaged, or is about another model.
    """
    path = bundle.root / EVIDENCE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content["entries"], list):
            raise ValueError("it has no entries")
        if (content["schema_version"], content["model_sha256"]) != (EVIDENCE_SCHEMA, bundle.sha256):
            raise ValueError(f"schema {content['schema_version']}, model {content['model_sha256']}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(bundle, error) from error
    return content


def _proofs(bundle: Bundle, entries: list[dict[str, Any]]) -> list[tuple[tuple[str, str, str], Proof]]:
    found = []
    for entry in entries:
        speech, files = entry["speech"], bundle.manifest.files
        current = all(files.get(member) == digest for member, digest in entry["graphs"].items())
        if entry["passed"] and current and speech is not None and speech["clips"] >= EVIDENCE_CLIPS:
            fused = next(output for output in speech["outputs"] if output["output"] == "fused")
            key = (str(entry["backend"]), str(entry["precision"]), str(entry["version"]))
            found.append((key, Proof(int(speech["clips"]), int(fused["flips"]))))
    return found


def _damaged(bundle: Bundle, error: Exception) -> InputError:
    return InputError(
        f"certificate {bundle.root / EVIDENCE_FILE} is damaged or about another model",
        got=error or type(error).__name__,
        remedy="Delete it; ser-export verify writes it anew.",
    )
