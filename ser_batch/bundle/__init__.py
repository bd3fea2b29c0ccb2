"""The bundle: one trained model as a directory that is verified when it is opened and complete when it appears.

Nothing here imports a runtime; the format is described in docs/bundle-format.md.
"""

from __future__ import annotations

from ser_batch.bundle.bundle import Bundle, default_root, load_bundle
from ser_batch.bundle.manifest import Branch
from ser_batch.bundle.writing import add_artefacts, copy_bundle, write_bundle

__all__ = ["Branch", "Bundle", "add_artefacts", "copy_bundle", "default_root", "load_bundle", "write_bundle"]
