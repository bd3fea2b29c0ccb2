"""Where compiled engines lie: in their bundle; those of the embedded one in a copy of it, in the user's data folder.

The copy is a whole bundle, so that its manifest vouches for every engine in it, and it can be taken to the machine that
has the GPU. Its folder is named after the bundle's id: the engines of another default bundle are not looked for there.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.errors import BundleError
from ser_batch.machine import data_folder


def engines_home(bundle: Bundle) -> Path:
    """Folder of the bundle that holds the engines of `bundle`; that of the embedded one need not exist."""
    return data_folder() / "bundles" / bundle.id if bundle.is_embedded else bundle.root


def bundle_at_home(bundle: Bundle) -> Bundle | None:
    """The bundle that holds the engines of `bundle`: itself, or the embedded one's copy; None: there is no copy.

    Raises:
        BundleError: the copy is damaged, or is one of another model.
    """
    home = engines_home(bundle)
    if home == bundle.root:
        return bundle
    if not os.path.lexists(home):
        return None
    remedy = f"Delete {home}; ser-export trt makes it again."
    try:
        copy = load_bundle(home)
    except BundleError as error:
        raise BundleError(error.what, got=error.got, expected=error.expected, remedy=remedy) from error
    if copy.sha256 != bundle.sha256:
        raise BundleError(f"{home} is a copy of another bundle", got=copy.id, expected=bundle.id, remedy=remedy)
    return copy


def with_engines(bundle: Bundle) -> Bundle:
    """`bundle`, its branches as they are, with the files of the bundle that holds its engines, if there is one.

    Raises:
        BundleError: see `bundle_at_home`.
    """
    held = bundle_at_home(bundle)
    if held is None:
        return bundle
    manifest = dataclasses.replace(bundle.manifest, files=held.manifest.files)
    return dataclasses.replace(bundle, root=held.root, manifest=manifest)
