"""The help pages are those of docs/commands.md, every one of them is text, and shells complete the commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from support.help_pages import PROGRAMS, page, pages

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
PINNED = re.search(r"^click==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.skipif(
    PINNED is None or version("click") != PINNED[1], reason="click of another version breaks lines elsewhere"
)
def test_the_page_of_commands_is_what_they_say() -> None:
    said = "PYTHONPATH=tests:. python -m support.help_pages docs/commands.md"
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == page(), f"renew it: {said}"


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, text, command in pages():
        assert text.startswith(f"Usage: {name} ") and command.help, name
        assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == [], name


def test_every_command_of_the_docs_is_there() -> None:
    known = {name for name, _, _ in pages()}
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for program, command in re.findall(r"`(ser-batch|ser-train|ser-export) ([a-z][a-z-]*)", path.read_text()):
            assert f"{program} {command}" in known, f"{path.name}: {program} {command}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script(shell: str) -> None:
    for program, module in PROGRAMS.items():
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        assert variable in click_output(module, {variable: f"{shell}_source"}), program


def test_commands_and_options_are_completed() -> None:
    asked = {"_SER_BATCH_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert click_output("ser_batch.cli", asked | {"COMP_WORDS": "ser-batch ev"}) == "plain,evaluate\n"
    asked = {"_SER_BATCH_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    assert (
        click_output("ser_batch.cli", asked | {"COMP_WORDS": "ser-batch run --clip "}) == "plain,whole\nplain,first\n"
    )


def click_output(module: str, variables: dict[str, str]) -> str:
    code = f"from {module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **variables}
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout
