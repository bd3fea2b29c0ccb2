"""How every command of the project ends: an exit code, and one clear line for what a user can put right."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from ser_batch.errors import SerError

USAGE = 2
"""Exit code where nothing was done, or the command had to stop: the message says why."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
EXTRAS = {
    **dict.fromkeys(
        ("torch", "torchaudio", "transformers", "safetensors", "sklearn", "scipy", "matplotlib"), "train,cpu"
    ),
    **dict.fromkeys(("onnx", "onnxscript"), "export,cpu"),
    "ray": "ray",
    "openpyxl": "xlsx",
}
"""Package that only some commands need -> the extras that bring it."""
AGAIN = 2.0
"""Seconds within which a second signal to end is the first one once more."""


def run(cli: click.Command, name: str, arguments: Sequence[str] | None = None, *, interrupted: str) -> int:
    """Run `cli` under the program's `name` and return its exit code; a traceback means a bug.

    Args:
        interrupted: what to say after Ctrl-C.
    """
    for variable, value in environment().items():
        os.environ.setdefault(variable, value)
    _mend_streams()
    try:
        return int(cli.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except SerError as error:
        click.echo(f"error: {error}", err=True)
        _let_go_of_stdout()
        return USAGE
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        remedy = f"Install it: pip install 'ser-batch[{EXTRAS[package]}]'."
        click.echo(f"error: this command needs {package}, which is not installed. {remedy}", err=True)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"interrupted; {interrupted}", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`).
        _let_go_of_stdout()
        return 0


def environment() -> dict[str, str]:
    """What a command sets in its own environment, where nobody has; the library never does."""
    # Arrow's own allocator keeps what was freed: 30 MiB of the peak of a run of 100,000 recordings (214 to 184).
    variables = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    # Ray reports its use to its makers unless told not to; nobody who scores recordings has asked for that.
    variables["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        Path.home()
    except RuntimeError:
        # A user without a name and HOME, as in a container under a number: OpenVINO would not be imported.
        variables["HOME"] = "/nonexistent"
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        # See `storage.connection`.
        variables |= dict.fromkeys(
            ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "when_required"
        )
    return variables


def _mend_streams() -> None:
    """Open what a scheduler has closed, and let names be written that the locale cannot encode."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # What is opened next would pass for a standard stream, and be closed or written to as one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.encoding.lower().startswith("utf"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go_of_stdout() -> None:
    """What is left for a standard output that is full or closed would be complained of once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def interruptible() -> Iterator[None]:
    """Take a scheduler's SIGTERM for Ctrl-C, and either once.

    `timeout` and others signal a process and then its group: the second signal, within `AGAIN`, would interrupt
    the keeping of what the first one interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if time.monotonic() - first >= AGAIN:
            first = time.monotonic()
            signal.default_int_handler(number, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What a shell starts in the background is born to ignore Ctrl-C.
    taken = [number for number in before if number == signal.SIGTERM or before[number] != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    except Exception as error:
        # Libraries that are interrupted while they are imported say that they cannot be.
        if time.monotonic() - first < AGAIN:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number in taken:
            signal.signal(number, before[number])
