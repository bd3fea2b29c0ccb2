"""Bundles: a trained model as a directory that is verified when it is opened and complete when it appears.

The format is described in docs/bundle-format.md. Opening one reads no model and imports no runtime.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ser_batch.bundle.fusion import Fusion, load_fusion, save_fusion
from ser_batch.bundle.integrity import check_inside, members, sha256_of, verify_files
from ser_batch.bundle.manifest import (
    EVIDENCE_FILES,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    Branch,
    Manifest,
    check_member,
    parse_manifest,
)
from ser_batch.bundle.placing import put_in_place
from ser_batch.bundle.reference import Reference, load_reference, save_reference
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, OutputError

__all__ = ["SCHEMA_VERSION", "Branch", "Bundle", "Manifest", "default_root", "load_bundle", "write_bundle"]

FUSION_FILE = "fusion.npz"
REFERENCE_FILE = "reference.npz"
MODEL_CARD_FILE = "MODEL_CARD.md"
FP32 = "fp32"
"""The precision of the branches' own graphs."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle on disk."""

    root: Path
    manifest: Manifest
    fusion: Fusion
    sha256: str
    """`Manifest.identity`: of the model, which files derived from it do not change."""

    @property
    def id(self) -> str:
        """Name and the first 12 digits of the sha256; it is written into predictions."""
        return f"{self.manifest.name}-{self.sha256[:12]}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of every probability row."""
        return self.manifest.labels

    def path(self, member: str) -> Path:
        """Where a file of the bundle lies.

        Raises:
            BundleError: the bundle has no such file.
        """
        if member not in self.manifest.files:
            raise BundleError(f"bundle {self.id} has no file {member!r}", got=sorted(self.manifest.files))
        return self.root / member

    def graph(self, branch: Branch, precision: str = FP32) -> Path:
        """Where the ONNX graph of a branch lies in a precision: its own file, or what `ser-export quantize` made of it.

        Raises:
            BundleError: the bundle has no graph in that precision.
        """
        member = branch.file if precision == FP32 else f"precisions/{precision}/{branch.name}.onnx"
        if member not in self.manifest.files:
            raise BundleError(
                f"bundle {self.id} has no {precision} graph of branch {branch.name}",
                expected=member,
                remedy=f"Make it: ser-export quantize {self.root} --precision {precision}",
            )
        return self.path(member)

    def reference(self) -> Reference:
        """Read the reference clips.

        Raises:
            BundleError: they do not fit the manifest.
        """
        branches = tuple(branch.name for branch in self.manifest.branches)
        reference = load_reference(self.path(self.manifest.reference_file), branches)
        got = (reference.waveform.shape[1], reference.fused.shape[1])
        expected = (self.manifest.clip.samples, len(self.labels))
        if got != expected:
            raise BundleError("reference clips do not fit the manifest (samples, labels)", got=got, expected=expected)
        return reference


def default_root() -> Path:
    """Where the embedded default bundle lies."""
    return Path(__file__).parents[1] / "bundles" / "default"


def load_bundle(root: Path | None = None) -> Bundle:
    """Open the bundle at `root` (None: the embedded default) and verify every file of it.

    Raises:
        BundleError: it is missing, damaged, of an unknown schema, contradicts itself, reaches outside its
            directory, or holds a file that its manifest does not list.
    """
    root = default_root() if root is None else Path(root)
    with _naming(root):
        manifest_path = root / MANIFEST_FILE
        check_inside(root, MANIFEST_FILE)
        try:
            raw = manifest_path.read_bytes()
        except OSError as error:
            raise BundleError(
                "is not a bundle", got=error.strerror, expected=f"a directory with {MANIFEST_FILE}"
            ) from error
        manifest = parse_manifest(raw)
        verify_files(root, manifest.files, MANIFEST_FILE, EVIDENCE_FILES)
        fusion = load_fusion(root / manifest.fusion_file)
        _check_fusion(fusion, manifest)
    return Bundle(root, manifest, fusion, manifest.identity)


def write_bundle(
    root: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    clip: ClipRule,
    branches: tuple[Branch, ...],
    fusion: Fusion,
    reference: Reference,
    files: Mapping[str, Path],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    licence: str,
    model_card: str,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to `root` in one step: it is built and verified beside it, then renamed.

    Args:
        files: path in the bundle -> file to copy there; every branch's file must be among them.

    Raises:
        BundleError: the parts do not make a valid bundle. Nothing is left behind.
        OutputError: `root` exists (and is not a bundle to overwrite), or cannot be written.
    """
    root = Path(root)
    # "." and ".." have no name of their own to rename to.
    root = root if root.name.strip(".") else root.resolve()
    _check_target(root, overwrite)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # The tree is made inside the temporary directory, whose own mode 0700 a bundle should not have.
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as staging:
            tree = Path(staging) / root.name
            tree.mkdir()
            _fill(tree, fusion, reference, files, model_card)
            manifest = Manifest(
                name=name,
                labels=tuple(labels),
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
            put_in_place(tree, root, Path(staging) / "replaced")
    except OSError as error:
        raise OutputError(f"bundle {root} cannot be written", got=error) from error
    return dataclasses.replace(bundle, root=root)


def _check_target(root: Path, overwrite: bool) -> None:
    if not os.path.lexists(root):
        return
    if not overwrite:
        raise OutputError(f"{root} exists already", remedy="Choose another path, or ask to overwrite it.")
    # Overwriting removes a whole directory, so it must be one that this function could have written.
    if root.is_symlink() or not root.is_dir() or (any(root.iterdir()) and not (root / MANIFEST_FILE).is_file()):
        raise OutputError(f"{root} exists and is not a bundle, so it is not overwritten")


def _fill(tree: Path, fusion: Fusion, reference: Reference, files: Mapping[str, Path], model_card: str) -> None:
    own = {FUSION_FILE, REFERENCE_FILE, MODEL_CARD_FILE}
    for member, source in files.items():
        check_member(member)
        if member in own:
            raise BundleError(f"{member} is written by the bundle itself and cannot be given as a file")
        (tree / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tree / member)
    save_fusion(fusion, tree / FUSION_FILE)
    save_reference(reference, tree / REFERENCE_FILE)
    (tree / MODEL_CARD_FILE).write_text(model_card, encoding="utf-8")


def _check_fusion(fusion: Fusion, manifest: Manifest) -> None:
    if fusion.classes != len(manifest.labels):
        raise BundleError(
            "fusion and labels do not fit", got=f"{fusion.classes} classes", expected=len(manifest.labels)
        )
    names = tuple(branch.name for branch in manifest.branches)
    if fusion.branches != names:
        raise BundleError("fusion and manifest order the branches differently", got=fusion.branches, expected=names)


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Put the bundle's path in front of every error raised inside."""
    try:
        yield
    except BundleError as error:
        raise BundleError(
            f"bundle {root}: {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
