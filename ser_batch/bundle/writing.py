"""Writing bundles: a new one, a copy, and artefacts added to one that exists; each appears whole, or not at all.

Artefacts (graphs of lower precision, compiled engines) are made from a bundle's model and can be made again, so they
do not change its identity. But they are run, and a compiled engine is code: the manifest holds their sha256 like that
of every other file, and nothing that it does not list is ever opened.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.files import members, sha256_of
from ser_batch.bundle.fusion import Fusion
from ser_batch.bundle.head import Head, save_answer
from ser_batch.bundle.manifest import ARTEFACT_PREFIXES, MANIFEST_FILE, Branch, Manifest, check_member, is_artefact
from ser_batch.bundle.reference import Reference, save_reference
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, OutputError

FUSION_FILE = "fusion.npz"
REFERENCE_FILE = "reference.npz"
MODEL_CARD_FILE = "MODEL_CARD.md"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_bundle(
    root: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    clip: ClipRule,
    branches: tuple[Branch, ...],
    fusion: Fusion | Head,
    reference: Reference,
    files: Mapping[str, Path],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    licence: str,
    model_card: str,
    branch_labels: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to `root` in one step: it is built and verified beside it, then renamed.

    Args:
        files: path in the bundle -> file to copy there; every branch's file must be among them.
        branch_labels: of the branches, where a head gives others.

    Raises:
        BundleError: the parts do not make a valid bundle. Nothing is left behind.
        OutputError: `root` exists (and is not a bundle to overwrite), or cannot be written.
    """
    root = Path(root)
    # "." and ".." have no name of their own to rename to.
    root = root if root.name.strip(".") else root.resolve()
    check_target(root, overwrite)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(root) as tree:
            tree.mkdir()
            _fill(tree, fusion, reference, files, model_card)
            manifest = Manifest(
                name=name,
                labels=tuple(labels),
                branch_labels=branch_labels,
                clip=clip,
                branches=tuple(branches),
                fusion_file=FUSION_FILE,
                reference_file=REFERENCE_FILE,
                files={member: sha256_of(tree / member) for member in members(tree)},
                provenance=provenance,
                metrics=metrics,
                licence=licence,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            (tree / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
            bundle = load_bundle(tree)
            bundle.reference()
    except OSError as error:
        raise OutputError(f"bundle {root} cannot be written", got=error) from error
    return dataclasses.replace(bundle, root=root)


def add_artefacts(bundle: Bundle, files: Mapping[str, Path | bytes], *, replace: bool = False) -> Bundle:
    """Add `files` to a bundle on disk in one step: a crash leaves the old bundle or the new one.

    Args:
        bundle: files that were added to it on disk since it was opened stay.
        files: path in the bundle, under one of `ARTEFACT_PREFIXES` -> file to copy, or its content.
        replace: whether a file that is there may be replaced.

    Returns:
        The bundle, opened again; its id is what it was.

    Raises:
        BundleError: a path is not under `ARTEFACT_PREFIXES`, or the bundle on disk is damaged or another one by now.
        OutputError: a file is there already, or the bundle cannot be written.
    """
    for member in files:
        check_member(member)
        if not is_artefact(member):
            raise BundleError(
                "this is not the path of an artefact", got=member, expected=f"under {' or '.join(ARTEFACT_PREFIXES)}"
            )
    # A link is followed: what is replaced is the bundle, not the way to it.
    root = bundle.root.resolve()
    current = _same_model(bundle, root)
    if not replace and (there := sorted(set(files) & set(current.manifest.files))):
        raise OutputError(f"bundle {bundle.id} has {', '.join(there)} already", remedy="Ask to replace it.")
    try:
        with _replacing(root) as tree:
            shutil.copytree(root, tree, copy_function=_link_or_copy)
            digests = {member: _put(content, tree / member) for member, content in files.items()}
            manifest = dataclasses.replace(current.manifest, files={**current.manifest.files, **digests})
            _put(manifest.to_json().encode(), tree / MANIFEST_FILE)
            load_bundle(tree)
            _same_model(bundle, root, current)
    except (OSError, shutil.Error) as error:
        raise OutputError(
            f"bundle {bundle.root} cannot be written", got=error, remedy="Copy the bundle and add to the copy."
        ) from error
    return load_bundle(bundle.root)


def copy_bundle(bundle: Bundle, root: Path) -> Bundle:
    """Copy a bundle to `root`, which must not exist, in one step, with its artefacts and its certificate.

    Raises:
        OutputError: `root` exists, or cannot be written.
    """
    if os.path.lexists(root):
        raise OutputError(f"{root} exists already", remedy="Choose another --out, or delete it yourself.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(root) as tree:
            shutil.copytree(bundle.root, tree, copy_function=shutil.copyfile)
            load_bundle(tree)
    except (OSError, shutil.Error) as error:
        raise OutputError(f"bundle {root} cannot be written", got=error) from error
    return load_bundle(root)


@contextmanager
def _replacing(root: Path) -> Iterator[Path]:
    """A path beside `root` to build a directory at, which takes the place of `root` unless an error is raised."""
    # The tree is made inside the temporary directory, whose own mode 0700 a bundle should not have.
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as staging:
        tree = Path(staging) / root.name
        yield tree
        put_in_place(tree, root, Path(staging) / "replaced")


def put_in_place(tree: Path, root: Path, replaced: Path) -> None:
    """Move the directory `tree` to `root`; what was there goes to `replaced` or to where `tree` was.

    On Linux the two change places in one system call, so `root` is at every moment the old or the new one. Where the
    system or the file system has no such call, the old one is moved aside and comes back on failure: a crash in between
    leaves it, whole, under the name `replaced`.

    Raises:
        OSError: it cannot be moved; `root` is then what it was.
    """
    if not root.exists():
        tree.replace(root)
        return
    if _exchange(tree, root):
        return
    root.replace(replaced)
    try:
        tree.replace(root)
    except OSError:
        replaced.replace(root)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places atomically; False if that cannot be done here. Source: man 2 renameat2."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):  # no C library under that name; one without the call
        return False
    paths = os.fsencode(first), os.fsencode(second)
    failed: int = renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return failed == 0


def check_target(root: Path, overwrite: bool) -> None:
    """Refuse a bundle's place that holds something else, or a bundle that is not to be overwritten: OutputError."""
    if not os.path.lexists(root):
        return
    # Overwriting removes a whole directory, so it must be one that this function could have written.
    if root.is_symlink() or not root.is_dir() or (any(root.iterdir()) and not (root / MANIFEST_FILE).is_file()):
        raise OutputError(
            f"{root} exists and is not a bundle, so it is not overwritten", remedy="Choose another --out."
        )
    if not overwrite:
        raise OutputError(f"{root} exists already", remedy="Choose another --out, or replace it: --overwrite.")


def _fill(tree: Path, fusion: Fusion | Head, reference: Reference, files: Mapping[str, Path], model_card: str) -> None:
    own = {FUSION_FILE, REFERENCE_FILE, MODEL_CARD_FILE}
    for member, source in files.items():
        check_member(member)
        if member in own:
            raise BundleError(f"{member} is written by the bundle itself and cannot be given as a file")
        (tree / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tree / member)
    save_answer(fusion, tree / FUSION_FILE)
    save_reference(reference, tree / REFERENCE_FILE)
    (tree / MODEL_CARD_FILE).write_text(model_card, encoding="utf-8")


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
