"""Certificates: what `ser-batch verify` found, as it is written to disk and read back.

The bundle's certificate travels with the model and says how far from it each runtime and precision is. The machine's
lies in the user's cache, named by the bundle's sha256: whether a runtime reproduces the reference clips here, and how
fast, depends on the CPU and on the runtime's version. docs/bundle-format.md describes both files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ser_batch import files, strict_json
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError, OutputError
from ser_batch.machine import cache_folder, processor, usable_cpus

SCHEMA_VERSION = 1
"""Of both files."""
CERTIFICATE_FILE = "certificate.json"
TABLE_FILE = "CERTIFICATE.md"
"""The same figures for readers."""
EXACT = "fp32"
"""The precision that must equal what was trained."""


@dataclass(frozen=True)
class Tolerance:
    """How far a precision may be from the trained model; each bound is inclusive."""

    max_difference: float
    """Largest |Δp| of any output on the reference clips, and in fp32 on labelled speech too."""
    flip_rate: float
    """Share of labelled clips whose fused label may be another one; in fp32 of every output."""


TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.0),
    "fp16": Tolerance(5e-2, 0.005),
    "bf16": Tolerance(5e-2, 0.005),
    "int8": Tolerance(2e-1, 0.02),
}
"""Stated before anything was measured. Sound fp32 runtimes were then found at 1e-7 to 3e-5, and bf16 at up to 2e-2 with
the front-ends in fp32.

On the reference clips, which are few and synthetic, |Δp| from torch shows arithmetic that is wrong. How often a label
changes shows on labelled speech alone, against onnxruntime in fp32.
"""

EMBEDDING_TOLERANCES: Mapping[str, float] = {"fp32": 1e-3, "fp16": 5e-2, "bf16": 1e-1, "int8": 3e-1}
"""Largest distance of a reference clip's embedding from torch's, relative to the size of embeddings."""


@dataclass(frozen=True)
class Difference:
    """One output of one runtime beside what it should be."""

    output: str
    """A branch, "fused", or "embedding"."""
    rows: int
    max_difference: float | None
    """Largest |Δp| of the finite values; of an embedding, the largest relative distance; None if there is none."""
    mean_difference: float | None
    flips: int
    """Rows whose most probable label is another one, or unknown."""
    non_finite: int
    """Values that are NaN or infinite."""


@dataclass(frozen=True)
class SpeechDifference(Difference):
    """The same on labelled speech."""

    flip_rate: float
    accuracy: float | None
    """None: of a branch whose labels are others than the bundle's."""
    accuracy_difference: float | None
    """From that of onnxruntime in fp32."""


@dataclass(frozen=True)
class SpeechRecord:
    """What one runtime gave on labelled speech."""

    corpus: str
    clips: int
    sha256: str
    """Of the recordings' names and labels, in order: two certificates that share it are about the same set."""
    outputs: tuple[SpeechDifference, ...]


@dataclass(frozen=True)
class Entry:
    """One runtime in one precision on one machine."""

    backend: str
    """A backend; in the bundle's certificate also "torch" and "emulated"."""
    precision: str
    device: str
    version: str
    """Of the runtime."""
    machine: str
    """`machine_id` of where it was measured."""
    created: str
    """UTC, ISO 8601."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a later entry about the same thing shares with this one."""
        return (self.machine, self.backend, self.precision, self.device)


@dataclass(frozen=True)
class BundleEntry(Entry):
    """An entry of the certificate that travels in a bundle."""

    graphs: Mapping[str, str]
    """File of the bundle → sha256, of the graphs of lower precision that it read."""
    passed: bool
    failures: tuple[str, ...]
    reference: tuple[Difference, ...]
    """On the reference clips, from the probabilities of torch."""
    speech: SpeechRecord | None
    """On labelled speech, from those of onnxruntime in fp32."""


@dataclass(frozen=True)
class BundleCertificate:
    """certificate.json in a bundle."""

    schema_version: int
    model_sha256: str
    bundle: str
    """The bundle's id."""
    gates: Mapping[str, Tolerance]
    """Precision → the tolerance that an entry was held to."""
    entries: tuple[BundleEntry, ...]

    def updated(self, entries: Iterable[BundleEntry]) -> BundleCertificate:
        """Newer `entries`, after those about anything else; what was found on speech outlives a run without it.

        It does so where it passed, and runtime and graphs are the same.
        """
        older, newer = {entry.key: entry for entry in self.entries}, []
        for entry in entries:
            same = older.pop(entry.key, None)
            still_holds = same is not None and same.passed and _subject(same) == _subject(entry)
            newer.append(replace(entry, speech=same.speech) if same and still_holds and not entry.speech else entry)
        return replace(self, gates=TOLERANCES, entries=(*older.values(), *newer))


@dataclass(frozen=True)
class MachineEntry(Entry):
    """An entry of a machine's certificate."""

    passed: bool
    max_difference: float | None
    """Largest |Δp| of any output on the reference clips; None if no value was finite."""
    flips: int
    """Rows of all outputs whose most probable label is another one."""
    rows: int
    """Rows of all outputs that were compared."""
    speed: float | None
    """Clips/s relative to onnxruntime fp32, measured in the same run; None if it was not measured."""


@dataclass(frozen=True)
class MachineCertificate:
    """All entries about one bundle in this user's cache."""

    schema_version: int
    bundle_sha256: str
    bundle: str
    entries: tuple[MachineEntry, ...]


Certificate = TypeVar("Certificate", BundleCertificate, MachineCertificate)


def machine_id() -> str:
    """The processor's model and how many CPUs this process may use: what a machine's certificate holds for."""
    return f"{processor()}, {usable_cpus()} CPUs"


def read_bundle_certificate(bundle: Bundle) -> BundleCertificate | None:
    """The certificate in `bundle`; None if it has none.

    Raises:
        InputError: it cannot be read, is damaged, or is about another model.
    """
    return _read(bundle.root / CERTIFICATE_FILE, BundleCertificate, bundle.sha256)


def write_bundle_certificate(bundle: Bundle, certificate: BundleCertificate, table: str) -> Path:
    """Put the certificate into `bundle`, and `table`, the same as a page; returns its path.

    Raises:
        OutputError: the bundle cannot be written; it is then what it was.
    """
    # The temporary file lies beside the bundle: a crash must leave no file in it that it does not list.
    write = partial(files.write_atomically, temporary_folder=bundle.root.resolve().parent)
    try:
        write(bundle.root / CERTIFICATE_FILE, files.json_text(asdict(certificate)))
        write(bundle.root / TABLE_FILE, table)
    except OSError as error:
        raise OutputError(f"the certificate cannot be written into {bundle.root}", got=error) from error
    return bundle.root / CERTIFICATE_FILE


def new_bundle_certificate(bundle: Bundle) -> BundleCertificate:
    """A certificate of `bundle` without entries."""
    return BundleCertificate(SCHEMA_VERSION, bundle.sha256, bundle.id, TOLERANCES, ())


def machine_certificate_path(bundle: Bundle) -> Path:
    """Where this machine's certificate of `bundle` lies, under $XDG_CACHE_HOME or ~/.cache."""
    return cache_folder() / "certificates" / f"{bundle.sha256}.json"


def read_machine_certificate(bundle: Bundle) -> MachineCertificate:
    """This machine's certificate of `bundle`, without entries if there is none.

    Raises:
        InputError: the file cannot be read, is damaged, or is about another bundle.
    """
    found = _read(machine_certificate_path(bundle), MachineCertificate, bundle.sha256)
    return found or MachineCertificate(SCHEMA_VERSION, bundle.sha256, bundle.id, ())


def add_machine_entries(bundle: Bundle, entries: Sequence[MachineEntry]) -> Path:
    """Put `entries` into this machine's certificate of `bundle`, replacing older ones about the same; returns its path.

    Raises:
        InputError: the certificate that is there is damaged.
        OutputError: it cannot be written.
    """
    path, before = machine_certificate_path(bundle), read_machine_certificate(bundle)
    merged = {entry.key: entry for entry in (*before.entries, *entries)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, asdict(replace(before, entries=tuple(merged.values()))))
    except OSError as error:
        raise OutputError(f"certificate {path} cannot be written", got=error) from error
    return path


def _subject(entry: BundleEntry) -> tuple[Any, ...]:
    return entry.version, dict(entry.graphs)


def _read(path: Path, kind: type[Certificate], sha256: str) -> Certificate | None:
    where, refuse = f"certificate {path}", partial(InputError, remedy="Delete it; ser-batch verify writes it anew.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refuse(f"{where} cannot be read", got=error) from error
    value = strict_json.parse(raw, where, refuse)
    strict_json.check_schema(value, SCHEMA_VERSION, where, refuse)
    found = strict_json.decode(kind, value, where, refuse, complete=True)
    about = found.model_sha256 if isinstance(found, BundleCertificate) else found.bundle_sha256
    if about != sha256:
        raise refuse(f"{where} is about another model", got=about, expected=sha256)
    return found
