"""Opening a bundle: every file of it is verified, no model is read and no runtime imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ser_batch.bundle.files import check_inside, verify_files
from ser_batch.bundle.fusion import Fusion
from ser_batch.bundle.head import Head, load_answer
from ser_batch.bundle.manifest import (
    CERTIFICATE_FILES,
    FP32,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    Branch,
    Embedding,
    Manifest,
    graph_member,
    parse_manifest,
)
from ser_batch.bundle.reference import Reference, load_reference
from ser_batch.errors import BundleError

__all__ = ["FP32", "SCHEMA_VERSION", "Branch", "Bundle", "Manifest", "default_root", "load_bundle"]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle on disk."""

    root: Path
    manifest: Manifest
    fusion: Fusion | Head
    """What makes the answer of the branches' rows."""
    sha256: str
    """`Manifest.identity`: of the model, which artefacts made from it do not change."""

    @property
    def id(self) -> str:
        """Name and the first 12 digits of the sha256; it is written into predictions."""
        return f"{self.manifest.name}-{self.sha256[:12]}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of every probability row."""
        return self.manifest.labels

    @property
    def is_embedded(self) -> bool:
        """Whether it is the default one, which is a part of the program and never written to."""
        return self.root == default_root()

    @property
    def branch_labels(self) -> tuple[str, ...]:
        """The labels of the branches' own rows, in order."""
        return self.manifest.branch_labels or self.manifest.labels

    @property
    def answers_by_embedding(self) -> bool:
        """Whether the answer is a head's, which needs the embedding of every clip."""
        return isinstance(self.fusion, Head)

    @property
    def as_argument(self) -> str:
        """How a command that adds to the bundle names it: the embedded one is a part of the program, and is copied."""
        return "--out DIR" if self.is_embedded else str(self.root)

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
        member = graph_member(branch, precision)
        if member not in self.manifest.files:
            raise BundleError(
                f"bundle {self.id} has no {precision} graph of branch {branch.name}",
                expected=member,
                remedy=f"Make it: ser-export quantize {self.as_argument} --precision {precision}",
            )
        return self.path(member)

    def embedding(self) -> Embedding:
        """The embedding that a branch's graph gives beside its probabilities.

        Raises:
            BundleError: the bundle has none.
        """
        branch = self.manifest.embedding
        if branch is None or branch.embedding is None:
            raise BundleError(
                f"bundle {self.id} has no embedding: its graphs give probabilities alone",
                remedy="Export its training run again (ser-export onnx RUN), or use a bundle whose `info` names one.",
            )
        return branch.embedding

    def reference(self) -> Reference:
        """Read the reference clips.

        Raises:
            BundleError: they do not fit the manifest.
        """
        branches = tuple(branch.name for branch in self.manifest.branches)
        reference = load_reference(self.path(self.manifest.reference_file), branches)
        of_branches = {rows.shape[1] for rows in reference.branches.values()}
        got = (reference.waveform.shape[1], reference.fused.shape[1], *of_branches)
        expected = (self.manifest.clip.samples, len(self.labels), len(self.branch_labels))
        if got != expected:
            what = "reference clips do not fit the manifest (samples, labels, those of branches)"
            raise BundleError(what, got=got, expected=expected)
        branch = self.manifest.embedding
        size = branch.embedding.size if branch is not None and branch.embedding is not None else None
        found = None if reference.embedding is None else reference.embedding.shape[1]
        if found != size:
            raise BundleError("the reference clips' embedding does not fit the manifest", got=found, expected=size)
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
            got = f"no {MANIFEST_FILE} in it" if root.is_dir() else error.strerror
            trained = (root / "result.json").is_file() and (root / "config.json").is_file()
            raise BundleError(
                "is not a bundle",
                got=got,
                expected=f"a directory with {MANIFEST_FILE}",
                remedy=f"It is a run of ser-train: ser-export onnx {root} --out my-bundle" if trained else None,
            ) from error
        manifest = parse_manifest(raw)
        verify_files(root, manifest.files, MANIFEST_FILE, CERTIFICATE_FILES)
        fusion = load_answer(root / manifest.fusion_file)
        _check_fusion(fusion, manifest)
    return Bundle(root, manifest, fusion, manifest.identity)


def _check_fusion(fusion: Fusion | Head, manifest: Manifest) -> None:
    if fusion.classes != len(manifest.labels):
        raise BundleError(
            "fusion and labels do not fit", got=f"{fusion.classes} classes", expected=len(manifest.labels)
        )
    inputs = manifest.branch_labels or manifest.labels
    if fusion.inputs != len(inputs):
        raise BundleError(
            "fusion and branches do not fit", got=f"{fusion.inputs} labels of a branch", expected=len(inputs)
        )
    size = manifest.embedding.embedding.size if manifest.embedding and manifest.embedding.embedding else None
    if isinstance(fusion, Head) and fusion.embedding != size:
        raise BundleError("the head is for another embedding", got=size or "none", expected=fusion.embedding)
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
