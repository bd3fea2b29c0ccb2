"""What tests put into buckets, and read from them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.bundle.bundle import Bundle
from ser_batch.output.destination import Output
from ser_batch.storage.connection import connect
from support.commands import run
from support.recordings import sources


def put(bucket: str, contents: Iterable[tuple[str, bytes]], scheme: str = "s3") -> None:
    """Make objects, 16 at a time."""
    files = connect(scheme, bucket)

    def one(named: tuple[str, bytes]) -> None:
        with files.open_output_stream(f"{bucket}/{named[0]}", compression=None) as stream:
            stream.write(named[1])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(one, contents))


def put_folder(bucket: str, prefix: str, folder: Path, scheme: str = "s3") -> None:
    """Make an object of every file in a folder."""
    put(bucket, ((f"{prefix}/{path.name}", path.read_bytes()) for path in folder.iterdir()), scheme)


def undisturbed(bucket: str, prefix: str, root: Path, count: int, bundle: Bundle, scheme: str = "s3") -> pa.Table:
    """Put `count` small recordings, some bad, below a prefix; the table of a run over the same files in `root`."""
    sources(root / "audio", count)
    put_folder(bucket, prefix, root / "audio", scheme)
    out = f"{root}/whole.parquet"
    assert run(root / "audio", "--out", out, "--bundle", bundle.root, "--batch-size", 1, "--quiet") == 3
    return table(out)


def table(out: str) -> pa.Table:
    """The finished output, without the times of its inputs, which differ from store to store."""
    parts = [pq.ParquetFile(file.source()).read() for file in Output.parse(out).tables()]
    return pa.concat_tables(parts).drop_columns("source_mtime_ns")


def objects(bucket: str, prefix: str, scheme: str = "s3") -> list[str]:
    """Names below a prefix, but for the empty objects that stand for folders."""
    from pyarrow import fs

    folder = f"{bucket}/{prefix}".rstrip("/")
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    infos = connect(scheme, bucket).get_file_info(selector)
    return sorted(info.path.removeprefix(f"{folder}/") for info in infos if info.type == fs.FileType.File)
