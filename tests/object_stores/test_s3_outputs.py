from __future__ import annotations

import random
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from ser_batch.bundle.bundle import Bundle
from support.commands import run
from support.processes import finish, mortal, paused
from support.radosgw import Server, make_bucket
from support.recordings import sources
from support.stores import objects, put_folder, table, undisturbed

pytestmark = pytest.mark.s3
RECORDINGS = 24


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[str, pa.Table]:
    """A prefix of small recordings, some bad, and the table of an undisturbed run over the same files on disk."""
    make_bucket("recordings")
    root = tmp_path_factory.mktemp("whole")
    return "s3://recordings/audio", undisturbed("recordings", "audio", root, RECORDINGS, toy_bundle)


@pytest.mark.parametrize("name", ["out.parquet", "out/"])
def test_killed_in_the_middle_of_requests_the_table_is_the_same(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, name: str
) -> None:
    audio, expected = whole
    out = f"s3://{bucket}/deep/{name}"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--resume")
    chance = random.Random(name)
    codes = [mortal(moment, *arguments) for moment in (1, 2, *(chance.randint(3, 6) for _ in range(4)))]
    assert codes.count(-signal.SIGKILL) >= 5
    assert run(*arguments, "--quiet") == 3
    assert table(out).equals(expected)
    assert run(*arguments, "--quiet") == 3  # and once more: nothing to do
    assert table(out).equals(expected)
    left = objects(bucket, "deep")
    assert left == ["out.parquet"] if name == "out.parquet" else all(key.startswith("out/") for key in left)
    assert not any(".lock" in key or ".parts/" in key for key in left)


def test_killed_through_compaction_the_table_is_the_same(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle
) -> None:
    audio, expected = whole
    out = f"s3://{bucket}/out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--resume")
    # The lock, 12 parts, the table, 12 deletions, the lock, the folder.
    for moment in (14, 3, 4, 5):
        mortal(moment, *arguments)
    assert run(*arguments, "--quiet") == 3
    assert table(out).equals(expected)
    assert objects(bucket, "") == ["out.parquet"]


def test_the_rules_are_those_of_files(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, expected = whole
    out = f"s3://{bucket}/out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--quiet", "--batch-size", 1)
    assert mortal(4, *arguments) == -signal.SIGKILL
    assert run(*arguments) == 2
    assert "is unfinished" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 3
    assert run(*arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert table(out).equals(expected)
    # A finished table takes what is new.
    sources(tmp_path / "new", 2)
    put_folder("recordings", "more", tmp_path / "new")
    assert run(audio, "s3://recordings/more", *arguments[1:], "--overwrite") == 3
    assert table(out).num_rows == RECORDINGS + 2
    assert table(out)["file"].to_pylist()[-1] == "s3://recordings/more/001.wav"


def test_a_second_run_of_this_machine_is_refused(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, expected = whole
    out = f"s3://{bucket}/out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1)
    with paused(*arguments) as first:
        assert run(*arguments, "--resume") == 2
        assert "another run is writing" in capsys.readouterr().err
        assert finish(first)[0] == 3
    assert table(out).equals(expected)
