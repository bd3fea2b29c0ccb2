"""Files made from a bundle's model, added to the bundle: graphs of lower precision, compiled engines.

They can be made again from the model, so they do not change its identity; but they are run, and a compiled engine is
code, so the manifest holds their sha256 like that of every other file, and nothing outside it is ever opened.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.integrity import sha256_of
from ser_batch.bundle.manifest import DERIVED_PREFIXES, MANIFEST_FILE, check_member, is_derived
from ser_batch.bundle.placing import put_in_place
from ser_batch.errors import BundleError, OutputError

PREFIXES = DERIVED_PREFIXES
"""Where derived files lie: `precisions/<precision>/<branch>.onnx`, `engines/<runtime>-<precision>-<target>/`."""


def add_derived(bundle: Bundle, files: Mapping[str, Path | bytes], *, replace: bool = False) -> Bundle:
    """Add `files` to a bundle on disk in one step: a crash leaves the old bundle or the new one.

    Args:
        bundle: what was added to it on disk since it was opened is kept.
        files: path in the bundle, under one of `PREFIXES` -> file to copy, or its content.
        replace: whether a file that is there may be replaced.

    Returns:
        The bundle, opened again; its id is what it was.

    Raises:
        BundleError: a path is not under `PREFIXES`, or the bundle on disk is damaged or another one by now.
        OutputError: a file is there already, or the bundle cannot be written.
    """
    for member in files:
        check_member(member)
        if not is_derived(member):
            raise BundleError("a derived file lies elsewhere", got=member, expected=f"under {' or '.join(PREFIXES)}")
    # A link is followed: what is replaced is the bundle, not the way to it.
    root = bundle.root.resolve()
    current = _same_model(bundle, root)
    if not replace and (there := sorted(set(files) & set(current.manifest.files))):
        raise OutputError(f"bundle {bundle.id} has {', '.join(there)} already", remedy="Ask to replace it.")
    try:
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as staging:
            tree = Path(staging) / root.name
            shutil.copytree(root, tree, copy_function=_link_or_copy)
            digests = {member: _put(content, tree / member) for member, content in files.items()}
            manifest = dataclasses.replace(current.manifest, files={**current.manifest.files, **digests})
            _put(manifest.to_json().encode(), tree / MANIFEST_FILE)
            load_bundle(tree)
            _same_model(bundle, root, current)
            put_in_place(tree, root, Path(staging) / "replaced")
    except (OSError, shutil.Error) as error:
        raise OutputError(
            f"bundle {bundle.root} cannot be written", got=error, remedy="Copy the bundle and add to the copy."
        ) from error
    return load_bundle(bundle.root)


def copy_bundle(bundle: Bundle, root: Path) -> Bundle:
    """Copy a bundle to `root`, which must not exist, in one step, with what was derived from it and the evidence.

    Raises:
        OutputError: `root` exists, or cannot be written.
    """
    if os.path.lexists(root):
        raise OutputError(f"{root} exists already", remedy="Choose another path.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as staging:
            tree = Path(staging) / root.name
            shutil.copytree(bundle.root, tree, copy_function=shutil.copyfile)
            load_bundle(tree)
            put_in_place(tree, root, Path(staging) / "replaced")
    except (OSError, shutil.Error) as error:
        raise OutputError(f"bundle {root} cannot be written", got=error) from error
    return load_bundle(root)


def _same_model(bundle: Bundle, root: Path, unchanged: Bundle | None = None) -> Bundle:
    """The bundle as it lies on disk now, which must be of the same model (and, if given, the same as `unchanged`)."""
    current = load_bundle(root)
    if current.sha256 != bundle.sha256:
        raise BundleError(f"bundle {bundle.root} has been replaced by another", got=current.id, expected=bundle.id)
    if unchanged is not None and current.manifest != unchanged.manifest:
        raise OutputError(f"bundle {bundle.root} was changed by another process meanwhile", remedy="Try again.")
    return current


def _link_or_copy(source: str, target: str) -> str:
    """Hard links where the file system has them: nothing in the old tree is written to, and it is removed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _put(content: Path | bytes, target: Path) -> str:
    """Write one file and return its sha256; a link that is there is replaced, not written through."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copyfile(content, target)
    return sha256_of(target)
