"""The manifest: what a bundle says it is; unknown, missing and ill-typed keys are refused by name.

The format is described in docs/bundle-format.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ser_batch import strict_json
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
FP32 = "fp32"
"""The precision of the branches' own graphs."""
EMBEDDING = "embedding"
"""What an embedding is called beside the branches' names: in an engine's results, reference clips, certificates."""
ARTEFACT_PREFIXES = ("precisions/", "engines/")
"""Where artefacts lie: what was made from the model and can be made again is no part of its identity.

`precisions/<precision>/<branch>.onnx` and `engines/<runtime>-<precision>-<target>/`.
"""
CERTIFICATE_FILES = frozenset({"certificate.json", "CERTIFICATE.md"})
"""What may lie in a bundle without a sha256: figures about it, never code."""
_BUNDLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BRANCH_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Embedding:
    """A second output of a branch's graph: what its classifier sees of a clip."""

    output: str
    """Name of the graph's output, (batch, size) float32."""
    size: int
    """D, numbers for each clip."""

    def __post_init__(self) -> None:
        if not self.output or self.size < 1:
            raise BundleError(
                "an embedding needs the name of an output and a size", got=f"{self.output!r}, {self.size}"
            )


@dataclass(frozen=True)
class Branch:
    """One model of the bundle: a graph from waveform to probabilities."""

    name: str
    """Lower-case identifier; it heads the branch's columns in the predictions."""
    file: str
    """The ONNX file, relative to the bundle."""
    input: str = "waveform"
    """Name of the graph's input, (batch, samples) float32 in [-1, 1]."""
    output: str = "probabilities"
    """Name of the graph's output, (batch, labels) float32."""
    embedding: Embedding | None = None
    """Its second output; left out of the file where there is none."""

    def __post_init__(self) -> None:
        if not _BRANCH_NAME.fullmatch(self.name) or self.name == EMBEDDING:
            expected = f"a-z, 0-9 and _, other than {EMBEDDING}"
            raise BundleError("a branch's name is no identifier", got=repr(self.name), expected=expected)
        if not self.input or not self.output:
            raise BundleError(f"branch {self.name} does not name its input and output")
        if self.embedding is not None and self.embedding.output == self.output:
            raise BundleError(f"branch {self.name} has one output for its probabilities and its embedding")
        check_member(self.file)

    def to_dict(self) -> dict[str, Any]:
        """The branch as JSON types; bundles without an embedding are written as before there was one."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle states about itself; the one place where the order of the labels is written.

    The order of the fields is that of the keys in the file.

    Raises:
        BundleError: two parts of it contradict each other, or a path would leave the bundle.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    """UTC, ISO 8601."""
    labels: tuple[str, ...]
    """In the order of every probability row."""
    branch_labels: tuple[str, ...] | None = None
    """In the order of the branches' own rows, where a head gives other labels; left out of the file where not."""
    clip: ClipRule
    branches: tuple[Branch, ...]
    """In the order of the fusion's inputs."""
    fusion_file: str
    reference_file: str
    licence: str
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    """Relative POSIX path -> sha256 in lower-case hex, of every file but the manifest itself."""

    def __post_init__(self) -> None:
        if not _BUNDLE_NAME.fullmatch(self.name):
            raise BundleError(
                "the bundle's name is not plain", got=repr(self.name), expected="letters, digits and . _ -"
            )
        if len(self.labels) < 2 or any(not label.isprintable() or not label.strip() for label in self.labels):
            raise BundleError("a bundle needs at least two labels, none empty", got=list(self.labels))
        check_distinct("labels", self.labels)
        check_distinct("labels of the branches", self.branch_labels or ())
        if self.branch_labels is not None and (len(self.branch_labels) < 2 or self.branch_labels == self.labels):
            raise BundleError("the branches' labels are no others", got=list(self.branch_labels))
        if not self.branches:
            raise BundleError("the bundle has no branches")
        check_distinct("branches", tuple(branch.name for branch in self.branches))
        if len(embedding := [branch.name for branch in self.branches if branch.embedding is not None]) > 1:
            raise BundleError("a bundle has one embedding at most", got=f"of branches {', '.join(embedding)}")
        self._check_files()

    def _check_files(self) -> None:
        for path, digest in self.files.items():
            check_member(path)
            if not _SHA256.fullmatch(digest):
                raise BundleError(f"the sha256 of {path} is not one", got=repr(digest), expected="64 hex digits")
        for path in (self.fusion_file, self.reference_file, *(branch.file for branch in self.branches)):
            if path not in self.files:
                raise BundleError(f"{path} is used but has no sha256 under 'files'", got=sorted(self.files))
            # Artefacts are left out of the identity, which the model itself must never be.
            if is_artefact(path):
                raise BundleError(
                    f"{path} is a part of the model", expected=f"a path outside {' and '.join(ARTEFACT_PREFIXES)}"
                )

    @property
    def embedding(self) -> Branch | None:
        """The branch whose graph has an embedding as its second output, if one does."""
        return next((branch for branch in self.branches if branch.embedding is not None), None)

    @property
    def identity(self) -> str:
        """Sha256 of the canonical JSON without artefacts: of the model, whatever was made from it since.

        `write_bundle` writes canonical JSON, so without artefacts it is the sha256 of manifest.json.
        """
        own = {path: digest for path, digest in self.files.items() if not is_artefact(path)}
        return hashlib.sha256(dataclasses.replace(self, files=own).to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The manifest as indented JSON.

        Raises:
            BundleError: provenance or metrics hold something that JSON cannot (NaN and infinity included).
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.branch_labels is None:
            del fields["branch_labels"]
        fields["clip"] = self.clip.to_dict()
        fields["branches"] = [branch.to_dict() for branch in self.branches]
        fields["files"] = dict(sorted(self.files.items()))
        try:
            return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise BundleError("provenance or metrics cannot be written as JSON", got=error) from error


def parse_manifest(raw: bytes) -> Manifest:
    """Parse the bytes of manifest.json.

    Raises:
        BundleError: not JSON, an unknown schema version, an unknown, missing, repeated or ill-typed key, or
            contents that contradict each other.
    """
    data = strict_json.parse(raw, MANIFEST_FILE, BundleError)
    newer = partial(BundleError, remedy="A newer bundle needs a newer ser-batch.")
    strict_json.check_schema(data, SCHEMA_VERSION, MANIFEST_FILE, newer)
    if isinstance(data.get("clip"), dict):  # bundles from before there was this key have none
        data["clip"].setdefault("clamp_offset", False)
    data.setdefault("branch_labels", None)
    for branch in data["branches"] if isinstance(data.get("branches"), list) else ():
        if isinstance(branch, dict):
            branch.setdefault("embedding", None)
    return strict_json.decode(Manifest, data, MANIFEST_FILE, BundleError, complete=True)


def check_member(path: str) -> None:
    """Raise BundleError unless `path` is a plain relative POSIX path that stays inside the bundle."""
    parts = path.split("/")
    plain = (
        path.isprintable() and not set(path) & set('\\:*?"<>|') and all(part not in ("", ".", "..") for part in parts)
    )
    if not plain or PurePosixPath(path).is_absolute():
        raise BundleError("a path leaves the bundle or is not plain", got=repr(path), expected="a relative path with /")
    if path == MANIFEST_FILE or path in CERTIFICATE_FILES:
        raise BundleError(f"{path} cannot be one of the manifest's files")


def graph_member(branch: Branch, precision: str) -> str:
    """Path in the bundle of a branch's graph in a precision, whether it is there or not."""
    return branch.file if precision == FP32 else f"precisions/{precision}/{branch.name}.onnx"


def is_artefact(path: str) -> bool:
    """Whether a file of a bundle was made from its model: a graph of lower precision, a compiled engine."""
    return path.startswith(ARTEFACT_PREFIXES)


def check_distinct(what: str, names: tuple[str, ...]) -> None:
    """Raise BundleError if a name occurs twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BundleError(f"{what} are named twice", got=repeated)
