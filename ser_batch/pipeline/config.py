"""What a run is asked to do; nothing here knows of a terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.clips import MIX, ClipRule, Segmentation
from ser_batch.decode.pool import FILE_TIMEOUT
from ser_batch.errors import InputError
from ser_batch.output.schema import EMBEDDINGS

if TYPE_CHECKING:
    from ser_batch.recordings.table import Recordings


WHOLE, FIRST_CLIP = "whole", "first"
"""What is scored of a long recording: all of it, or its first clip by the bundle's rule."""


@dataclass(frozen=True)
class RunConfig:
    """The configuration of one run.

    Raises:
        InputError: a value makes no sense.
    """

    audio: tuple[str, ...] | Recordings
    """Folders, recordings, globs, or tables of recordings; or recordings that have been found already."""
    out: str | os.PathLike[str]
    """A .parquet, .csv, .jsonl or .xlsx file, or a folder that keeps its parts (see `output.destination.Output`)."""
    bundle: Path | None = None
    """None: the embedded default bundle."""
    backend: str = "auto"
    """A runtime; "auto": what made the output that is gone on with, else see `verification.auto.choose`."""
    precision: str | None = None
    threads: int | None = None
    """CPU threads of the runtime; None: its own choice, within the quota of a container."""
    window: float | None = None
    """Seconds of a segment; None: one clip of each recording."""
    hop: float | None = None
    min_duration: float = 0.0
    silence: float | None = None
    clip: str | None = None
    """Without a window: `WHOLE` scores long recordings by windows over all of them, `FIRST_CLIP` by one clip; None: as
    the output that is gone on with, else the whole."""
    channels: str = MIX
    """See `ser_batch.clips.Segmentation`."""
    aggregate: str | os.PathLike[str] | None = None
    """Also write one row per recording here; see `ser_batch.output.aggregate`."""
    root: str | os.PathLike[str] | None = None
    """Folder or URL that the paths in tables start from; None: each table's own folder."""
    shard: tuple[int, int] | None = None
    branch_columns: bool = True
    """Whether the table has the branches' own probabilities."""
    embeddings: str | None = None
    """Also write the embedding, as numbers of this type: `EMBEDDINGS` of `ser_batch.output.schema`."""
    overwrite: bool = False
    """Replace an existing output, and delete an unfinished one."""
    resume: bool = False
    """Go on with an unfinished output or add to a finished one; rows whose file has changed are made again."""
    retry_errors: bool = False
    """When resuming, whether recordings that failed are tried again."""
    batch_size: int | None = None
    """Clips scored together; None: by the device and the number of CPUs."""
    workers: int | None = None
    """Decode processes at most; None: one per CPU that this process may use, 32 at most."""
    file_timeout: float = FILE_TIMEOUT
    """Seconds that a decoder may take for a file, or for the next few segments of it."""
    max_errors: int | None = None
    """The run ends when more recordings have failed."""
    fail_over: float | None = None
    """The run ends when a larger share of the recordings has failed."""

    def __post_init__(self) -> None:
        if min(1 if n is None else n for n in (self.batch_size, self.workers)) < 1 or not self.file_timeout > 0:
            raise InputError(
                "a run needs workers, a batch size and time",
                got=f"workers {self.workers}, batch size {self.batch_size}, file timeout {self.file_timeout}",
                expected="numbers above 0",
            )
        if self.clip not in (None, WHOLE, FIRST_CLIP) or (self.clip is not None and self.window is not None):
            raise InputError(
                "there is no such clip",
                got=f"clip {self.clip}" + (" and a window" if self.window is not None else ""),
                expected=f"{WHOLE} or {FIRST_CLIP}, without a window",
            )
        if self.embeddings not in (None, *EMBEDDINGS):
            raise InputError("embeddings have no such type", got=self.embeddings, expected=" or ".join(EMBEDDINGS))
        if (self.max_errors or 0) < 0 or not 0 <= (self.fail_over or 0) <= 1:
            raise InputError(
                "a limit of failures is out of range",
                got=f"max errors {self.max_errors}, fail over {self.fail_over}",
                expected="a count; a share of 0 to 1",
            )

    def segmentation(self, clip: ClipRule) -> Segmentation:
        """Which segments of each recording are scored, with a bundle of this clip rule."""
        whole = self.window is None and self.clip != FIRST_CLIP
        return Segmentation(clip, self.window, self.hop, self.min_duration, self.silence, self.channels, whole)
