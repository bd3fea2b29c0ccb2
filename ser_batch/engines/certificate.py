"""Certificates: what `ser-export verify` found for one bundle on one machine, kept where `--backend auto` reads it.

A bundle is sealed, and whether a runtime reproduces it, and how fast, depends on the CPU and the runtime's version.
So certificates lie outside the bundle, in the user's cache, named by the bundle's sha256. docs/bundle-format.md
describes the file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError, OutputError
from ser_batch.machine import cache_folder, processor, usable_cpus

SCHEMA_VERSION = 1
_REMEDY = "Delete it; ser-export verify writes it anew."


@dataclass(frozen=True)
class Entry:
    """One backend in one precision, against the bundle's reference clips."""

    backend: str
    precision: str
    device: str
    version: str
    """Of the runtime."""
    machine: str
    """`machine_id` of where it was measured."""
    created: str
    """UTC, ISO 8601."""
    passed: bool
    max_difference: float | None
    """Largest |Δp| of any output; None if no value was finite."""
    flips: int
    """Rows of all outputs whose most probable label is another one."""
    rows: int
    """Rows of all outputs that were compared."""
    speed: float | None
    """Clips/s relative to onnxruntime fp32, measured in the same run; None if it was not measured."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a later entry about the same thing shares with this one."""
        return (self.machine, self.backend, self.precision, self.device)


@dataclass(frozen=True)
class Certificate:
    """All entries of one bundle."""

    bundle_sha256: str
    entries: tuple[Entry, ...] = ()


def certificate_path(bundle: Bundle) -> Path:
    """Where the certificate of `bundle` lies, under $XDG_CACHE_HOME or ~/.cache."""
    return cache_folder() / "certificates" / f"{bundle.sha256}.json"


def machine_id() -> str:
    """The processor's model and how many CPUs this process may use, which a certificate's speeds hold for."""
    return f"{processor()}, {usable_cpus()} CPUs"


def load_certificate(bundle: Bundle) -> Certificate:
    """The certificate of `bundle`, without entries if there is none.

    Raises:
        InputError: the file cannot be read, is damaged, or is about another bundle.
    """
    path = certificate_path(bundle)
    try:
        raw = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Certificate(bundle.sha256)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"certificate {path} cannot be read", got=error, remedy=_REMEDY) from error
    try:
        content = json.loads(raw)
        if (content["schema_version"], content["bundle_sha256"]) != (SCHEMA_VERSION, bundle.sha256):
            raise ValueError(f"schema {content['schema_version']}, bundle {content['bundle_sha256']}")
        return Certificate(bundle.sha256, tuple(_parse(entry) for entry in content["entries"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"certificate {path} is damaged", got=error, remedy=_REMEDY) from error


def add_entries(bundle: Bundle, entries: Iterable[Entry]) -> Path:
    """Put `entries` into the certificate of `bundle`, in the place of older ones about the same; returns its path.

    Raises:
        InputError: the certificate that is there is damaged.
        OutputError: it cannot be written.
    """
    path, kept = certificate_path(bundle), {entry.key: entry for entry in load_certificate(bundle).entries}
    kept.update({entry.key: entry for entry in entries})
    content = {
        "schema_version": SCHEMA_VERSION,
        "bundle_sha256": bundle.sha256,
        "bundle": bundle.id,
        "entries": [asdict(entry) for entry in kept.values()],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, then renamed: a run that starts meanwhile reads the old one or the new one.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new.") as folder:
            new = Path(folder) / path.name
            new.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            new.replace(path)
    except OSError as error:
        raise OutputError(f"certificate {path} cannot be written", got=error) from error
    return path


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float | None": (float, int, type(None)),
}


def _parse(raw: dict[str, Any]) -> Entry:
    expected = {field.name: str(field.type) for field in fields(Entry)}
    if set(raw) != set(expected):
        raise ValueError(f"an entry of {sorted(raw)}")
    for name, kind in expected.items():
        # A bool is an int to Python, and to no reader of the file.
        if not isinstance(raw[name], _TYPES[kind]) or (isinstance(raw[name], bool) and kind != "bool"):
            raise ValueError(f"{name} is {raw[name]!r}")
    return Entry(**raw)
