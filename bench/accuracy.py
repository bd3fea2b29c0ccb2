"""What each runtime and precision costs in accuracy on labelled speech, as the bundle's own certificate has it."""

from __future__ import annotations

from dataclasses import dataclass

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines.evidence import read_evidence
from ser_batch.errors import InputError


@dataclass(frozen=True)
class Accuracy:
    """The fused output of one runtime in one precision."""

    corpus: str
    clips: int
    accuracy: float
    flips: int
    """Clips whose label is another one than in onnxruntime fp32."""


def speech_accuracy(bundle: Bundle) -> dict[str, Accuracy]:
    """Map "<engine> <precision>" to its accuracy; empty where `ser-export verify` has seen no labelled speech.

    Entries about graphs that the bundle no longer holds are left out.

    Raises:
        InputError: the certificate is damaged.
    """
    content, found = read_evidence(bundle), {}
    for entry in content["entries"] if content else ():
        try:
            speech = entry["speech"]
            current = all(bundle.manifest.files.get(member) == digest for member, digest in entry["graphs"].items())
            if speech is None or not current:
                continue
            fused = next(output for output in speech["outputs"] if output["output"] == FUSED)
            found[f"{entry['backend']} {entry['precision']}"] = Accuracy(
                str(speech["corpus"]), int(speech["clips"]), float(fused["accuracy"]), int(fused["flips"])
            )
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise InputError(f"the certificate of {bundle.id} is damaged", got=repr(error)) from error
    return found
