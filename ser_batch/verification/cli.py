"""`ser-batch verify`, and what its alias `ser-export verify` shares with it.

The library is imported inside, so that `--help` starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ser_batch import files
from ser_batch.command_line import USAGE
from ser_batch.errors import OutputError

if TYPE_CHECKING:
    from ser_batch.verification.verify import Extend

Command = Callable[..., Any]
FAILED = 1

EXIT_CODES = f"""\b
Exit codes:
  0    everything was compared, and is equal within the stated tolerance
  {FAILED}    the bundle does not give what was trained, or nothing could be compared
  {USAGE}    it could not be done: the message says why
"""
HELP = """Recompute the reference probabilities of BUNDLE (default: the embedded one) in each runtime and precision.

With --audio, labelled speech is scored, too: how many labels flip, and what that costs in accuracy. What was found goes
into certificate.json and CERTIFICATE.md of the bundle, and, with how fast each runtime is here, into this machine's own
certificate, by which `ser-batch run --backend auto` chooses.
"""


def verify_options(command: Command) -> Command:
    """Declare the argument and the options of `verify`."""
    folder, table = click.Path(path_type=Path), "ravdess (names say it), or a table path,label."
    for declare in reversed(
        (
            click.argument("bundle", required=False, type=folder),
            click.option(
                "--backend", "backends", multiple=True, help="Runtime to compare; repeatable.  [default: all here]"
            ),
            click.option("--audio", type=folder, help="Compare on the labelled recordings in this folder, too."),
            click.option("--labels", default="ravdess", show_default=True, help=table),
            click.option(
                "--threads", type=click.IntRange(min=1), help="CPU threads of a runtime.  [default: its choice]"
            ),
            click.option("--json", "json_file", type=folder, help="Write the report here, too."),
        )
    ):
        command = declare(command)
    return command


@click.command(epilog=EXIT_CODES, help=HELP)
@verify_options
def verify(**options: Any) -> int:
    """Verify a bundle in the runtimes that are installed."""
    return verify_bundle(**options)


def verify_bundle(
    bundle: Path | None,
    backends: tuple[str, ...],
    audio: Path | None,
    labels: str,
    threads: int | None,
    json_file: Path | None,
    extend: Extend | None = None,
) -> int:
    """Verify, print and write what was found; returns the exit code.

    Args:
        extend: what else to compare; see `ser_batch.verification.verify.verify`.

    Raises:
        SerError: it could not be done.
    """
    from ser_batch.verification import verify as verification
    from ser_batch.verification.report import print_verification

    if json_file is not None and not json_file.parent.is_dir():
        raise OutputError(f"{json_file} cannot be written", got=f"no folder {json_file.parent}")
    with ExitStack() as stack:
        done = verification.verify(
            bundle,
            backends=list(backends) or None,
            threads=threads,
            audio=audio,
            labels=labels,
            extend=extend,
            start_progress=lambda speech: _bar(stack, len(speech.targets)),
        )
    print_verification(done)
    if json_file is not None:
        with files.writing(json_file):
            files.write_json(json_file, done.to_dict())
    for path in done.certificates:
        click.echo(f"certificate: {path}", err=True)
    return 0 if done.passed else FAILED


def _bar(stack: ExitStack, clips: int) -> Callable[[int], None]:
    bar = stack.enter_context(click.progressbar(length=clips, label=f"{clips} labelled clips", file=sys.stderr))
    return bar.update
