from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.audio.windows import read_segments
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule, Segmentation
from ser_batch.recordings.find import find_recordings
from ser_batch.storage import objects as storage_objects
from support.commands import run
from support.processes import REPOSITORY
from support.recordings import sources, write
from support.stores import put, put_folder, table

pytestmark = pytest.mark.s3
MANY = 10_000
LIST = """
import resource, sys
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.remote import find_objects
import pyarrow.fs
find_recordings(["s3://" + sys.argv[1] + "/few"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = find_recordings(["s3://" + sys.argv[1] + "/many"])
print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_ten_thousand_objects_are_listed_in_order_and_little_memory(bucket: str) -> None:
    names = [f"{number % 7}/{number:05d}.wav" for number in range(MANY)]
    put(bucket, ((f"many/{name}", b"RIFF") for name in names))
    put(bucket, [("few/a.wav", b"RIFF"), ("many/notes.txt", b"x"), ("many/.hidden.wav", b"x")])
    found = find_recordings([f"s3://{bucket}/many"])
    assert [recording.name for recording in found] == sorted(names)
    assert {recording.version[0] for recording in found if recording.version} == {4}
    assert len(find_recordings([f"s3://{bucket}/many/*/*0.wav"])) == MANY / 10
    assert sum(len(find_recordings([f"s3://{bucket}/many"], (part, 3))) for part in (1, 2, 3)) == MANY
    listed = subprocess.run([sys.executable, "-c", LIST, bucket], cwd=REPOSITORY, capture_output=True, text=True)
    count, kibibytes = map(int, listed.stdout.split())
    assert count == MANY
    assert kibibytes < 16_384, f"{kibibytes} KiB"


def test_names_of_all_kinds(bucket: str, tmp_path: Path, toy_bundle: Bundle) -> None:
    names = ["a b.wav", "a%20b.wav", "ü/é#?.wav", "new\nline.wav", "a+b&c='\".wav", "\\x.wav", "[1].wav"]
    write(tmp_path / "one.wav", 0.2)
    content = (tmp_path / "one.wav").read_bytes()
    put(bucket, ((f"audio/{name}", content) for name in names))
    assert run(f"s3://{bucket}/audio", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root) == 0
    assert sorted(table(f"{tmp_path}/o.parquet")["file"].to_pylist()) == sorted(names)
    assert find_recordings([f"s3://{bucket}/audio/[1].wav"])[0].path == f"s3://{bucket}/audio/[1].wav"


def test_rows_are_those_of_the_same_files_on_disk(bucket: str, tmp_path: Path, toy_bundle: Bundle) -> None:
    sources(tmp_path / "audio", 12)
    for kind in ("flac", "ogg", "mp3"):
        write(tmp_path / "audio" / f"z.{kind}", 6.0, rate=44_100, kind=kind)
    put_folder(bucket, "audio", tmp_path / "audio")
    for options in ([], ["--window", "3", "--hop", "1"]):
        tables = []
        for audio, out in ((tmp_path / "audio", "a.parquet"), (f"s3://{bucket}/audio", "b.parquet")):
            run(audio, "--out", tmp_path / out, "--bundle", toy_bundle.root, "--overwrite", "--quiet", *options)
            tables.append(table(f"{tmp_path}/{out}"))
        assert tables[0].equals(tables[1])


def test_a_changed_object_is_read_again(bucket: str, tmp_path: Path, toy_bundle: Bundle) -> None:
    sources(tmp_path / "audio", 3)
    put_folder(bucket, "audio", tmp_path / "audio")
    arguments = (f"s3://{bucket}/audio", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root, "--quiet")
    assert run(*arguments) == 0
    before = pq.read_table(tmp_path / "o.parquet")
    assert run(*arguments, "--resume") == 0
    assert pq.read_table(tmp_path / "o.parquet").equals(before)
    write(tmp_path / "new.wav", 1.5)
    put(bucket, [("audio/001.wav", (tmp_path / "new.wav").read_bytes())])
    assert run(*arguments, "--resume") == 0
    assert pq.read_table(tmp_path / "o.parquet")["duration"].to_pylist()[1] == 1.5


def test_tables_of_objects(bucket: str, tmp_path: Path, toy_bundle: Bundle) -> None:
    sources(tmp_path / "audio", 3)
    put_folder(bucket, "data/audio", tmp_path / "audio")
    rows = "path,id\naudio/000.wav,a\n" + f"s3://{bucket}/data/audio/001.wav,b\naudio/gone.wav,c\n"
    put(bucket, [("data/list.csv", rows.encode())])
    out = tmp_path / "o.parquet"
    assert run(f"s3://{bucket}/data/list.csv", "--out", out, "--bundle", toy_bundle.root) == 3
    found = table(f"{out}").to_pylist()
    assert [(row["id"], row["status"]) for row in found] == [("a", "ok"), ("b", "ok"), ("c", "error")]
    assert "cannot be read" in found[2]["error"]
    assert (tmp_path / "list.csv").write_text(rows.replace("audio/0", f"s3://{bucket}/data/audio/0", 1))
    assert run(tmp_path / "list.csv", "--out", out, "--bundle", toy_bundle.root, "--overwrite") == 3


def test_audio_inside_parquet_objects(bucket: str, tmp_path: Path, toy_bundle: Bundle) -> None:
    contents = [open(recording.path, "rb").read() for recording in sources(tmp_path / "audio", 3)]  # noqa: PTH123, SIM115
    audio = pa.array([{"bytes": each, "path": f"{number}.wav"} for number, each in enumerate(contents)])
    for number in (0, 1):
        pq.write_table(pa.table({"audio": audio}), tmp_path / f"{number}.parquet")
        put(bucket, [(f"data/{number}.parquet", (tmp_path / f"{number}.parquet").read_bytes())])
    out = tmp_path / "o.parquet"
    assert run(f"s3://{bucket}/data/*.parquet", "--out", out, "--bundle", toy_bundle.root) == 0
    found = pq.read_table(out)
    assert found["status"].to_pylist() == ["ok"] * 6
    assert min(found["source_size"].to_pylist()) == (tmp_path / "0.parquet").stat().st_size
    assert run(f"s3://{bucket}/data/*.parquet", "--out", out, "--bundle", toy_bundle.root, "--resume") == 0
    assert pq.read_table(out).equals(found)


def test_a_large_object_is_read_in_blocks(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "long.wav", 120.0)
    put_folder(bucket, "audio", tmp_path)
    url, segmentation = f"s3://{bucket}/audio/long.wav", Segmentation(ClipRule(), window=3, hop=20)
    local = [clip.waveform for clip in read_segments(str(tmp_path / "long.wav"), segmentation)]
    assert (tmp_path / "long.wav").stat().st_size > storage_objects.WHOLE
    fetched: list[int] = []
    fetch = storage_objects.ObjectFile._fetch
    monkeypatch.setattr(storage_objects.ObjectFile, "_fetch", lambda self, n: fetched.append(n) or fetch(self, n))
    remote = [clip.waveform for clip in read_segments(url, segmentation)]
    np.testing.assert_array_equal(np.stack(local), np.stack(remote))
    assert len(set(fetched)) > 8
