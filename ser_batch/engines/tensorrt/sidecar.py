"""Sidecars: what a folder of compiled engines was built from, with and for, and whether that is what is here.

An engine is code for one runtime version and one kind of GPU. So it is never simply tried: its sidecar, which the
manifest's checksums cover as they cover the engine, is compared with this machine first. docs/bundle-format.md
describes the file.

The engines of a bundle lie in it; those of the embedded one in a copy of it, in the user's data folder. The copy is a
whole bundle, so that its manifest vouches for every engine in it, and it can be taken to the machine that has the GPU.
Its folder is named after the bundle's id: the engines of another default bundle are not looked for there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ser_batch import strict_json
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.manifest import graph_member
from ser_batch.errors import BundleError
from ser_batch.machine import data_folder

SIDECAR_FILE = "sidecar.json"
SCHEMA_VERSION = 1
_FOLDER = "engines/"


@dataclass(frozen=True)
class Sidecar:
    """One folder of engines: every branch, in one precision, by one runtime, for one kind of GPU."""

    runtime: str
    """Name of the `Library`."""
    runtime_version: str
    precision: str
    target: str
    """What the folder is named after: GPU generations, or the GPU it was built on."""
    compute_capabilities: tuple[str, ...]
    """Of the GPUs it runs on: "8.9"."""
    gpu: str | None
    """The GPU it was built on; None: ahead of time, on none."""
    cuda: str | None
    """Version of CUDA the runtime was made for, where its package says so."""
    driver: str | None
    """Highest version of CUDA of the driver it was built with; None without one."""
    profiles: tuple[int, ...]
    """Batch sizes, ascending; each is an optimisation profile of its own, in this order."""
    bundle_sha256: str
    onnx_sha256: Mapping[str, str]
    """Branch → sha256 of the graph the engine was built from."""
    created: str
    """UTC, ISO 8601."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        sizes = list(self.profiles)
        if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
            raise BundleError("profiles are no batch sizes", got=sizes, expected="numbers of at least 1, ascending")

    @property
    def folder(self) -> str:
        """Where it lies in the bundle, with a slash at the end."""
        return f"{_FOLDER}{self.runtime}-{self.precision}-{self.target}/"

    @property
    def built_for(self) -> str:
        """One clause for messages."""
        gpus = f"compute capability {', '.join(self.compute_capabilities)}"
        return f"{self.runtime} {self.runtime_version} in {self.precision} for {gpus}"

    def engine(self, branch: str) -> str:
        """Path of a branch's engine in the bundle."""
        return f"{self.folder}{branch}.engine"

    def to_json(self) -> bytes:
        """The file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Here:
    """What an engine would be run with on this machine."""

    runtime: str
    runtime_version: str
    gpu: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.runtime_version} on {self.gpu}, compute capability {self.compute_capability}"


def read_sidecars(bundle: Bundle) -> tuple[Sidecar, ...]:
    """Every sidecar that the bundle's manifest lists, in the order of their paths.

    Raises:
        BundleError: one cannot be read, is of another schema, or lies where it does not belong.
    """
    members = [m for m in sorted(bundle.manifest.files) if m.startswith(_FOLDER) and m.endswith("/" + SIDECAR_FILE)]
    return tuple(_read(bundle, member) for member in members)


def misfits(sidecar: Sidecar, bundle: Bundle, here: Here) -> Iterator[str]:
    """Each reason why engines do not belong to `bundle` as it is, or do not run here."""
    if sidecar.bundle_sha256 != bundle.sha256:
        yield f"they were built for another bundle ({sidecar.bundle_sha256[:12]})"
    for branch in bundle.manifest.branches:
        graph = graph_member(branch, sidecar.precision)
        if sidecar.onnx_sha256.get(branch.name) != bundle.manifest.files.get(graph, "absent"):
            yield f"branch {branch.name} was built from another graph than {graph}"
        if sidecar.engine(branch.name) not in bundle.manifest.files:
            yield f"branch {branch.name} has no engine"
    if (sidecar.runtime, sidecar.runtime_version) != (here.runtime, here.runtime_version):
        yield "the runtime is another one"
    if here.compute_capability not in sidecar.compute_capabilities:
        yield "the GPU is another one"


def rebuild_command(bundle: Bundle, precision: str, sidecar: Sidecar | None = None) -> str:
    """The command that builds engines of `precision` here, with the batch sizes of those that do not fit."""
    batches = f" --batch {','.join(map(str, sidecar.profiles))}" if sidecar else ""
    named = "" if bundle.is_embedded else f" {bundle.root}"
    return f"ser-export trt{named} --precision {precision}{batches} --replace"


def _read(bundle: Bundle, member: str) -> Sidecar:
    path, refuse = bundle.path(member), partial(BundleError, remedy="Build the engines again.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise refuse(f"{path} cannot be read", got=error.strerror) from error
    value = strict_json.parse(raw, str(path), refuse)
    strict_json.check_schema(value, SCHEMA_VERSION, str(path), refuse)
    sidecar = strict_json.decode(Sidecar, value, str(path), refuse, complete=True)
    if sidecar.folder + SIDECAR_FILE != member:
        raise refuse(f"{path} is about other engines", got=sidecar.folder)
    return sidecar


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
