"""How every command of the project ends: an exit code, and one clear line for what a user can put right."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from ser_batch.errors import SerError

USAGE = 2
"""Exit code where nothing was done, or the command had to stop: the message says why."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run(cli: click.Command, name: str, arguments: Sequence[str] | None = None, *, interrupted: str) -> int:
    """Run `cli` under the program's `name` and return its exit code; a traceback means a bug.

    Args:
        interrupted: what to say after Ctrl-C.
    """
    try:
        return int(cli.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except SerError as error:
        click.echo(f"error: {error}", err=True)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"interrupted; {interrupted}", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`); flushing at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
