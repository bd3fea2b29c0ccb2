"""What each runtime and precision costs in accuracy on labelled speech, as the bundle's own certificate has it."""

from __future__ import annotations

from dataclasses import dataclass

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.verification.auto import current_speech


@dataclass(frozen=True)
class Accuracy:
    """The fused output of one runtime in one precision."""

    corpus: str
    clips: int
    accuracy: float
    flips: int
    """Clips whose label is another one than in onnxruntime fp32."""


def speech_accuracy(bundle: Bundle) -> dict[str, Accuracy]:
    """Map "<engine> <precision>" to its accuracy; empty where `ser-batch verify` was given no labelled speech.

    Entries about graphs that the bundle no longer holds are left out.

    Raises:
        InputError: the certificate is damaged.
    """
    return {
        f"{entry.backend} {entry.precision}": Accuracy(speech.corpus, speech.clips, output.accuracy, output.flips)
        for entry, speech in current_speech(bundle)
        for output in speech.outputs
        if output.output == FUSED
    }
