"""The real process, killed -9 at random moments and run again: in the end the table is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.output.destination import Output
from support.commands import Commands, run
from support.recordings import sources

RECORDINGS = 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[Path, pa.Table]:
    """A folder of small recordings, some bad, and the table of an undisturbed run."""
    root = tmp_path_factory.mktemp("whole")
    sources(root / "audio", RECORDINGS)
    out = root / "whole.parquet"
    assert run(root / "audio", "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--quiet") == 3
    return root / "audio", pq.read_table(out)


@pytest.mark.parametrize(
    ("name", "last_step", "kills"), [("out.parquet", ".out.parquet.*.tmp", (7, 6)), ("out/", "_SUCCESS", (4, 1))]
)
def test_killed_at_random_moments_the_table_is_the_same(
    whole: tuple[Path, pa.Table],
    commands: Commands,
    tmp_path: Path,
    toy_bundle: Bundle,
    name: str,
    last_step: str,
    kills: tuple[int, int],
) -> None:
    audio, table = whole
    output = Output.parse(f"{tmp_path}/{name}")
    arguments = (audio, "--out", f"{tmp_path}/{name}", "--bundle", toy_bundle.root, "--batch-size", 1, "--resume")
    arguments = (*arguments, "--workers", 1)
    chance = random.Random(name)
    deaths = [(chance.randint(1, 12), tmp_path, "*") for _ in range(kills[0])]
    # Through compaction, too: from when the finished table is begun to when the last part is deleted.
    deaths += [(chance.randint(1, 6) if kills[1] > 1 else 1, tmp_path, last_step) for _ in range(kills[1])]
    assert {commands.start(*arguments, dies=death).wait() for death in deaths} == {-signal.SIGKILL}
    assert run(*arguments, "--quiet") == 3
    found = pa.concat_tables(pq.read_table(file.source()) for file in output.tables())
    assert found.equals(table)
    assert run(*arguments, "--quiet") == 3  # and once more: nothing to do
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]


def test_a_disk_that_fills_up_is_a_clear_end(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle, commands: Commands
) -> None:
    audio, table = whole
    out = tmp_path / "out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process = commands.start(*arguments)
    process.wait_for_parts(out, 2)
    # From now on the system takes no more than 100 bytes a file of this process.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    assert process.wait() == 2
    assert "cannot be written; got File too large" in process.errors
    assert "--resume" in process.errors
    assert "Traceback" not in process.errors
    assert run(*arguments, "--resume", "--quiet") == 3
    assert pq.read_table(out).equals(table)


def test_an_output_folder_that_goes_is_a_clear_end(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle, commands: Commands
) -> None:
    audio, table = whole
    (tmp_path / "results").mkdir()
    out = tmp_path / "results" / "out.parquet"
    process = commands.start(audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process.wait_for_parts(out, 2)
    (tmp_path / "results").rename(tmp_path / "moved")
    assert process.wait() == 2
    assert "cannot be written" in process.errors
    assert "Traceback" not in process.errors
    again = tmp_path / "moved" / "out.parquet"
    assert (
        run(
            audio, "--out", again, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1, "--resume", "--quiet"
        )
        == 3
    )
    assert pq.read_table(again).equals(table)


def test_a_schedulers_sigterm_ends_clearly(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle, commands: Commands
) -> None:
    audio, table = whole
    out = tmp_path / "out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process = commands.start(*arguments)
    process.wait_for_parts(out, 2)
    os.kill(process.pid, signal.SIGTERM)
    assert (process.wait(), out.exists()) == (130, False)
    assert "--resume" in process.errors
    assert run(*arguments, "--resume", "--quiet") == 3
    assert pq.read_table(out).equals(table)
