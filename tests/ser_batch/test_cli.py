from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.cli import main
from support.bundles import reseal
from support.commands import REPOSITORY, RUNTIME, Commands, run
from support.recordings import sources, write
from support.toy import make_toy_bundle

HEAVY = ("numpy", "pyarrow", "onnxruntime", "soundfile", "soxr", "rich")
NEVER = ("torch", "transformers", "torchaudio", "sklearn", "pandas", "matplotlib")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter in the repository, its output in pipes."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio" / "long.flac", 4.0, kind="flac")
    write(tmp_path / "audio" / "short.wav", 1.0, rate=16_000, channels=2)
    return tmp_path / "audio"


def test_a_good_folder_is_scored_and_summed_up(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    out = audio / "predictions.parquet"  # beside the recordings, which is fine
    assert run(audio, "--out", out, "--bundle", toy_bundle.root) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = dict(line.split(maxsplit=1) for line in printed.out.splitlines())
    assert (lines["clips"], lines["failures"]) == ("2", "0")
    assert toy_bundle.id in lines["model"]
    assert pq.read_table(out)["file"].to_pylist() == ["long.flac", "short.wav"]


def test_failures_are_named_and_have_their_own_exit_code(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (audio / "bad\x1b[2J.wav").write_bytes(b"no audio")
    assert run(audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root, "--quiet") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert rf"failed: {audio}/bad\x1b[2J.wav: cannot be decoded" in printed.err
    assert "\x1b" not in printed.err
    assert pq.read_table(tmp_path / "o.parquet")["status"].to_pylist() == ["error", "ok", "ok"]


def test_branch_columns_can_be_left_out(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    assert run(audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root, "--no-branches") == 0
    assert not [name for name in pq.read_schema(tmp_path / "o.parquet").names if "wav2vec2" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{audio}"], "--out"),
        (["{audio}", "--out", "{tmp}/o.parquet", "--workers", "0"], "neither a number"),
        (["{audio}", "--out", "{tmp}/o.parquet", "--overwrite", "--resume"], "give one of them"),
        (["{tmp}/empty", "--out", "{tmp}/o.parquet"], "no audio found"),
        (["{tmp}/missing", "--out", "{tmp}/o.parquet"], "does not exist"),
        (["{audio}", "--out", "{tmp}/missing/o.parquet"], "not an existing folder"),
        (["{audio}", "--out", "{tmp}/there.parquet"], "exists already"),
        (["{audio}", "--out", "{audio}/short.wav/"], "is a file"),
        (["{audio}", "--out", "{audio}/short.wav", "--overwrite"], "no Parquet file"),
        (["{audio}", "--out", "{tmp}/o.parquet", "--bundle", "{tmp}"], "is not a bundle"),
        (["{audio}", "--out", "{tmp}/o.parquet", "--backend", "abacus"], "no backend 'abacus'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_message(
    audio: Path,
    tmp_path: Path,
    toy_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.parquet").write_bytes(b"PAR1 an old result")
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(audio=audio, tmp=tmp_path) for argument in arguments]
    bundle = [] if "--bundle" in given else ["--bundle", toy_bundle.root]
    assert run(*given, *bundle) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_info_prints_the_bundle(toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(toy_bundle.root)]) == 0
    assert toy_bundle.id in capsys.readouterr().out


def test_help_documents_exit_codes_and_imports_nothing_heavy() -> None:
    code = "import sys; from ser_batch.cli import main; main(['run', '--help']); print(*sys.modules)"
    result = python("-c", code)
    help_text, modules = result.stdout.rsplit("\n", 2)[:2]
    assert "3    some recordings failed" in help_text
    assert not set(modules.split()) & {*HEAVY, *NEVER}


def test_a_run_in_a_pipe_imports_no_training_stack_and_draws_no_bar(audio: Path, tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle").root
    confident = {"score": 0.5, "precision": 0.7, "share": 0.4}
    reseal(bundle, lambda data: data["metrics"].update(trust={"confident": confident}))
    code = "import sys; from ser_batch.cli import main; code = main(sys.argv[1:]); print(*sys.modules)"
    out = tmp_path / "o.parquet"
    result = python(
        "-c",
        f"{code}; sys.exit(code)",
        "run",
        str(audio),
        "--out",
        str(out),
        "--bundle",
        str(bundle),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert not set(result.stdout.splitlines()[-1].split()) & {"rich", *NEVER}


def test_the_module_and_its_version_run() -> None:
    assert python("-m", "ser_batch", "--version").stdout.startswith("ser-batch, version ")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[Path, Path]:
    """A folder of 60 small recordings, some bad, and the table of an undisturbed run."""
    root = tmp_path_factory.mktemp("many")
    sources(root / "audio", 60)
    out = root / "whole.parquet"
    assert run(root / "audio", "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1) == 3
    return root / "audio", out


def test_ctrl_c_ends_clearly_and_can_be_resumed(
    many: tuple[Path, Path], tmp_path: Path, toy_bundle: Bundle, commands: Commands
) -> None:
    audio, whole = many
    out = tmp_path / "out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process = commands.start(*arguments)
    process.wait_for_parts(out, 2)
    os.kill(process.pid, signal.SIGINT)
    assert (process.wait(), out.exists()) == (130, False)
    assert "--resume" in process.errors
    assert "Traceback" not in process.errors
    assert run(*arguments, "--resume", "--quiet") == 3
    assert pq.read_table(out).equals(pq.read_table(whole))


# In a process of its own: a library that an earlier test has loaded may have left signals a stack of its own.
SIGNALLED = """
import os, signal, sys, time
from ser_batch import command_line
from ser_batch.command_line import interruptible
from ser_batch.errors import EngineError

def send(*signals):
    for each in signals:
        os.kill(os.getpid(), each)
        time.sleep(0.01)

def interrupted(action):
    try:
        action()
    except KeyboardInterrupt:
        return True
    return False

"""


@pytest.mark.parametrize(
    "code",
    [
        # As `timeout` does, to the process and to its group: what the first interrupted is ended in peace.
        """
signal.signal(signal.SIGINT, signal.default_int_handler)
with interruptible():
    assert interrupted(lambda: send(signal.SIGTERM))
    send(signal.SIGINT, signal.SIGTERM)
    command_line.AGAIN = 0.0  # whoever has waited may end the ending
    assert interrupted(lambda: send(signal.SIGINT))
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""",
        # What a library makes of an interruption is one.
        """
def imported():
    with interruptible():
        if interrupted(lambda: send(signal.SIGTERM)):
            raise EngineError("the runtime cannot be imported")
assert interrupted(imported)
try:
    with interruptible():
        raise EngineError("by itself")
except EngineError:
    pass
""",
        # A Ctrl-C that the shell has made ignored stays ignored.
        """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interruptible():
    send(signal.SIGINT)
""",
    ],
)
def test_signals_interrupt_once(code: str) -> None:
    done = python("-c", SIGNALLED + code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("flags", [["--json"], ["--log", "/dev/full", "--quiet"], []])
def test_output_and_log_that_cannot_be_written_are_a_clear_end(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, flags: list[str]
) -> None:
    out = tmp_path / "out.parquet"
    arguments = [*map(str, (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1))]
    command = [sys.executable, "-m", "ser_batch", "run", *arguments, *RUNTIME, *flags]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "cannot be written; got No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert run(*arguments, "--resume", "--quiet") == 0
    assert pq.read_table(out)["file"].to_pylist() == ["long.flac", "short.wav"]


def test_a_reader_that_leaves_is_no_success(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    given = (audio, "--out", tmp_path / "out.parquet", "--bundle", toy_bundle.root, "--workers", 1, "--json")
    command = [sys.executable, "-m", "ser_batch", "run", *map(str, given), *RUNTIME]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # type: ignore[union-attr]
    errors = process.stderr.read().decode()  # type: ignore[union-attr]
    assert process.wait() == 2
    assert errors == "error: standard output cannot be written; got Broken pipe\n"


@pytest.mark.shared
def test_real_recordings_of_two_corpora(ravdess: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    opus = sorted((ravdess.parent / "nemo" / "samples").glob("*.opus"))[:5]
    arguments = [ravdess / "Actor_05", *opus]
    assert run(*arguments, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root) == 0
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.num_rows == 65
    assert set(table["sample_rate"].to_pylist()) == {24_000, 48_000}
    assert set(table["channels"].to_pylist()) == {1, 2}
