"""Licence notes of trained weights, by the corpus that trained them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ser_batch.errors import ExportError

OF_CORPUS: Mapping[str, str] = {
    "ravdess": (
        "Model weights trained on RAVDESS (Livingstone and Russo, 2018), which is licensed CC BY-NC-SA 4.0: "
        "non-commercial use, attribution, share alike. The code is Apache-2.0; these weights are not."
    ),
}
"""Corpus → note. The note says what the corpus asks; it is not legal advice."""


def licence_note(provenance: Mapping[str, Any], given: str | None = None) -> str:
    """The note for a run's weights: the one `given`, the run's own (`licence`), or that of its corpus (`data`).

    Raises:
        ExportError: none of them is known; a bundle is not made without one.
    """
    note = given or provenance.get("licence") or OF_CORPUS.get(str(provenance.get("data")))
    if not note:
        raise ExportError(
            "the licence of the trained weights is not known",
            got=f"a run on {provenance.get('data')!r}",
            expected=f"a corpus with a known licence ({', '.join(OF_CORPUS)})",
            remedy="State it with --licence.",
        )
    return str(note)
