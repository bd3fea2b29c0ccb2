"""The manifest: what a bundle says it is, parsed strictly.

Unknown, missing or ill-typed keys are refused by name.
The format is described in docs/bundle-format.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, InputError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
DERIVED_PREFIXES = ("precisions/", "engines/")
"""Where files lie that were made from the model and can be made again; they are no part of its identity."""
EVIDENCE_FILES = frozenset({"certificate.json", "CERTIFICATE.md"})
"""What may lie in a bundle without a sha256: figures about it, never code."""
_BUNDLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BRANCH_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LARGEST = 2**31 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


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

    def __post_init__(self) -> None:
        if not _BRANCH_NAME.fullmatch(self.name):
            raise BundleError("a branch's name is no identifier", got=repr(self.name), expected="a-z, 0-9 and _")
        if not self.input or not self.output:
            raise BundleError(f"branch {self.name} does not name its input and output")
        check_member(self.file)


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle states about itself; the one place where the order of the labels is written.

    Raises:
        BundleError: two parts of it contradict each other, or a path would leave the bundle.
    """

    name: str
    labels: tuple[str, ...]
    """In the order of every probability row."""
    clip: ClipRule
    branches: tuple[Branch, ...]
    """In the order of the fusion's inputs."""
    fusion_file: str
    reference_file: str
    files: Mapping[str, str]
    """Relative POSIX path -> sha256 in lower-case hex, of every file but the manifest itself."""
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]
    licence: str
    created: str
    """UTC, ISO 8601."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not _BUNDLE_NAME.fullmatch(self.name):
            raise BundleError(
                "the bundle's name is not plain", got=repr(self.name), expected="letters, digits and . _ -"
            )
        if len(self.labels) < 2 or any(not label.isprintable() or not label.strip() for label in self.labels):
            raise BundleError("a bundle needs at least two labels, none empty", got=list(self.labels))
        check_distinct("labels", self.labels)
        if not self.branches:
            raise BundleError("the bundle has no branches")
        check_distinct("branches", tuple(branch.name for branch in self.branches))
        for path, digest in self.files.items():
            check_member(path)
            if not _SHA256.fullmatch(digest):
                raise BundleError(f"the sha256 of {path} is not one", got=repr(digest), expected="64 hex digits")
        for path in (self.fusion_file, self.reference_file, *(branch.file for branch in self.branches)):
            if path not in self.files:
                raise BundleError(f"{path} is used but has no sha256 under 'files'", got=sorted(self.files))
            # What is derived is left out of the identity, which the model itself must never be.
            if is_derived(path):
                raise BundleError(f"{path} is a part of the model and cannot lie with what is derived from it")

    @property
    def identity(self) -> str:
        """Sha256 of the canonical JSON without derived files: of the model, whatever was made from it since.

        `write_bundle` writes canonical JSON, so without derived files it is the sha256 of manifest.json.
        """
        own = {path: digest for path, digest in self.files.items() if not is_derived(path)}
        return hashlib.sha256(dataclasses.replace(self, files=own).to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The manifest as indented JSON.

        Raises:
            BundleError: provenance or metrics hold something that JSON cannot (NaN and infinity included).
        """
        fields = {key: getattr(self, key) for key in _KINDS}
        fields["clip"] = dataclasses.asdict(self.clip)
        fields["branches"] = [dataclasses.asdict(branch) for branch in self.branches]
        fields["files"] = dict(sorted(self.files.items()))
        try:
            return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise BundleError("provenance or metrics cannot be written as JSON", got=error) from error


# Keys of the manifest in the order they are written, with the JSON type of each.
_KINDS: dict[str, type] = {
    "schema_version": int,
    "name": str,
    "created": str,
    "labels": list,
    "clip": dict,
    "branches": list,
    "fusion_file": str,
    "reference_file": str,
    "licence": str,
    "metrics": dict,
    "provenance": dict,
    "files": dict,
}
_CLIP_KINDS: dict[str, type] = {"sample_rate": int, "samples": int, "offset": float}
_BRANCH_KINDS: dict[str, type] = {"name": str, "file": str, "input": str, "output": str}
_JSON_NAMES = {int: "an integer", str: "a string", list: "a list", dict: "an object", float: "a number"}


def parse_manifest(raw: bytes) -> Manifest:
    """Parse the bytes of manifest.json.

    Raises:
        BundleError: not JSON, an unknown schema version, an unknown, missing, repeated or ill-typed key, or
            contents that contradict each other.
    """
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError("the manifest is not valid JSON", got=error) from error
    if not isinstance(data, dict):
        raise BundleError("the manifest is not a JSON object", got=type(data).__name__)
    # The version first: a manifest of another schema may well have other keys, and that is the thing to say.
    version = data.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            "the bundle's schema version is not known",
            got=repr(version),
            expected=SCHEMA_VERSION,
            remedy="A newer bundle needs a newer ser-batch.",
        )
    _check_keys("manifest", data, _KINDS)
    for key in ("labels", "files"):
        values = data[key] if key == "labels" else data[key].values()
        if not all(isinstance(value, str) for value in values):
            raise BundleError(f"'{key}' of the manifest must hold strings only", got=data[key])
    return Manifest(
        **{
            **data,
            "labels": tuple(data["labels"]),
            "clip": _parse_clip(data["clip"]),
            "branches": tuple(_parse_branch(entry) for entry in data["branches"]),
        }
    )


def check_member(path: str) -> None:
    """Raise BundleError unless `path` is a plain relative POSIX path that stays inside the bundle."""
    parts = path.split("/")
    plain = (
        path.isprintable() and not set(path) & set('\\:*?"<>|') and all(part not in ("", ".", "..") for part in parts)
    )
    if not plain or PurePosixPath(path).is_absolute():
        raise BundleError("a path leaves the bundle or is not plain", got=repr(path), expected="a relative path with /")
    if path == MANIFEST_FILE or path in EVIDENCE_FILES:
        raise BundleError(f"{path} cannot be one of the manifest's files")


def is_derived(path: str) -> bool:
    """Whether a file of a bundle was made from its model: a graph of lower precision, a compiled engine."""
    return path.startswith(DERIVED_PREFIXES)


def check_distinct(what: str, names: tuple[str, ...]) -> None:
    """Raise BundleError if a name occurs twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BundleError(f"{what} are named twice", got=repeated)


def _parse_clip(data: dict[str, Any]) -> ClipRule:
    _check_keys("clip", data, _CLIP_KINDS)
    try:
        return ClipRule(data["sample_rate"], data["samples"], float(data["offset"]))
    except InputError as error:
        raise BundleError("the clip rule is impossible", got=error.got) from error


def _parse_branch(data: object) -> Branch:
    if not isinstance(data, dict):
        raise BundleError("a branch of the manifest is not an object", got=repr(data))
    _check_keys("branch", data, _BRANCH_KINDS)
    return Branch(**data)


def _check_keys(where: str, data: dict[str, Any], kinds: dict[str, type]) -> None:
    unknown, missing = sorted(set(data) - set(kinds)), sorted(set(kinds) - set(data))
    if unknown or missing:
        found = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
        raise BundleError(f"the {where} has other keys than it should", got=", ".join(found))
    for key, kind in kinds.items():
        # JSON writes 0.0 as 0 in some tools, so an integer is a number too; true is neither.
        fits = type(data[key]) in (int, float) if kind is float else type(data[key]) is kind
        # Python's integers have no bound, but sizes and rates do, and float() of a huge one overflows.
        fits = fits and not (isinstance(data[key], int) and abs(data[key]) > _LARGEST)
        if not fits:
            raise BundleError(
                f"'{key}' of the {where} is of another type", got=repr(data[key]), expected=_JSON_NAMES[kind]
            )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError(f"a key is given twice among {[key for key, _ in pairs]}")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
