"""docs/commands.md: what every command says with --help. To renew it:

PYTHONPATH=tests:. python -m support.help_pages docs/commands.md
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

PROGRAMS = {"ser-batch": "ser_batch.cli", "ser-train": "training.cli", "ser-export": "export.cli", "bench": "bench.cli"}
WIDTH = 100
HEAD = """# Commands

What every command says with `--help`; a test keeps it so. To renew the page after a change:

    PYTHONPATH=tests:. python -m support.help_pages docs/commands.md

## Completion in the shell

The four programs complete their commands, options, choices and paths. For bash, in `~/.bashrc`:

```bash
eval "$(_SER_BATCH_COMPLETE=bash_source ser-batch)"
eval "$(_SER_TRAIN_COMPLETE=bash_source ser-train)"
eval "$(_SER_EXPORT_COMPLETE=bash_source ser-export)"
eval "$(_BENCH_COMPLETE=bash_source bench)"
```

For zsh the same with `zsh_source` in `~/.zshrc`, after `compinit`. For fish, for each of the programs,
`_SER_BATCH_COMPLETE=fish_source ser-batch | source` in `~/.config/fish/completions/ser-batch.fish`. Each line
starts the program once; where that is felt, save what it prints to a file and source that.
"""


def page() -> str:
    """The whole page."""
    sections = [f"## {name}\n\n{_block(text)}" for name, text, _ in pages()]
    return "\n".join([HEAD, *(f"{section}\n" for section in sections)])


def pages() -> Iterator[tuple[str, str, click.Command]]:
    """Each command's words, its help, and itself."""
    for program, module in PROGRAMS.items():
        yield from _of(importlib.import_module(module).cli, program, None)


def _of(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str, click.Command]]:
    context = click.Context(
        command,
        parent,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield context.command_path, command.get_help(context), command
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _of(found, each, context)


def _block(text: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
