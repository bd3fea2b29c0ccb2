"""Where a run writes: one Parquet file, or a folder that keeps its parts; and what must not be replaced."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ser_batch.errors import OutputError

PARTS = "part-*.parquet"
SUCCESS = "_SUCCESS"
"""Says that a folder of parts is finished; readers of Parquet folders pass over names with an underscore."""
LOCK = ".lock"


@dataclass(frozen=True)
class Output:
    """The place that `--out` names."""

    path: Path
    """The Parquet file, or the folder."""
    keeps_parts: bool = False
    """Whether `path` is a folder that keeps its parts."""

    @classmethod
    def parse(cls, out: str | os.PathLike[str]) -> Output:
        """Read `--out`: a folder if it ends with a slash or is one, else a file."""
        text = os.fspath(out)
        return cls(Path(text), text.endswith(("/", os.sep)) or Path(text).is_dir())

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.path if self.keeps_parts else self.path.with_name(self.path.name + ".parts")

    @property
    def finished(self) -> Path:
        """What exists once the output is whole."""
        return self.path / SUCCESS if self.keeps_parts else self.path

    def part_files(self) -> list[Path]:
        """The parts on disk, oldest first."""
        return sorted(self.folder.glob(PARTS))

    def tables(self) -> list[Path]:
        """Parquet files of the finished output, in order."""
        return self.part_files() if self.keeps_parts else [self.path]

    def is_started(self) -> bool:
        """Whether an earlier run left an unfinished output."""
        if self.keeps_parts:
            return not self.finished.exists() and any(self.folder.glob(PARTS))
        return self.folder.is_dir()


def check_output(out: Output, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that cannot be written or must not be replaced; changes nothing.

    Raises:
        OutputError: says which, and what to do.
    """
    parent = out.path.parent
    if not parent.is_dir():
        raise OutputError(f"{parent} is not an existing folder", remedy="Make it, or choose another --out.")
    home = out.path if out.keeps_parts and out.path.exists() else parent
    if out.keeps_parts and not home.is_dir():
        raise OutputError(f"{out.path} is a file", expected="a folder, since --out ends with a slash")
    if not os.access(home, os.W_OK):
        raise OutputError(f"{home} cannot be written", remedy="Choose another --out.")
    if not out.keeps_parts and os.path.lexists(out.path) and (overwrite or resume) and not _is_parquet(out.path):
        raise OutputError(f"{out.path} exists and is no Parquet file, so it is neither replaced nor resumed")
    if overwrite or resume:
        return
    if out.is_started():
        raise OutputError(
            f"{out.path} is unfinished: {out.folder} holds the parts of an earlier run",
            remedy="Go on with it: --resume; or start anew: --overwrite.",
        )
    if os.path.lexists(out.finished):
        raise OutputError(
            f"{out.path} exists already",
            remedy="Choose another --out, add what is new: --resume, or replace it: --overwrite.",
        )


def _is_parquet(path: Path) -> bool:
    # Keeps a slip such as `--out speech.wav --overwrite` from costing a recording.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"PAR1", b"")


def lock(folder: Path) -> IO[bytes]:
    """Make `folder` and lock it; the lock ends with the process, however that ends.

    Raises:
        OutputError: another run holds it.
        OSError: it cannot be made.
    """
    while True:
        folder.mkdir(exist_ok=True)
        file = (folder / LOCK).open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that has just ended may have deleted the file that we opened: then it locks nothing.
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return file
            file.close()
        except FileNotFoundError:
            file.close()
        except BlockingIOError as error:
            file.close()
            raise OutputError(
                f"another run is writing to {folder}", remedy="Let it end, or choose another --out."
            ) from error
