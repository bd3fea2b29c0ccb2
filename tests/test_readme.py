"""The README's code: its commands are run, or at least parsed, where its files are; its Python runs.

Parsed alone are commands that train for hours, need a GPU, an object store or a corpus, or that other tests run.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from support.help_pages import PROGRAMS
from support.recordings import sound, write

pytest.importorskip("torch")

README = Path(__file__).parents[1] / "README.md"
PARSED = re.compile(
    r"s3://|gs://|\.\./shared|savee|--backend|--bundle my-bundle|^ser-batch verify|^ser-train|^ser-export|^bench"
)
COMMANDS = [
    command.strip()
    for block in re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    for command in shlex.join(shlex.split(line, comments=True)).replace("'&&'", "&&").split("&&")
    if command.strip()
]
OURS = [command for command in dict.fromkeys(COMMANDS) if command.split()[0] in PROGRAMS]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the README's commands read, and the working directory."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("audio", "more", "talks", "calls", "archive"):
        (folder / name).mkdir()
        write(folder / name / "b.flac", 7.0, 16_000, channels=2, kind="flac")
    write(folder / "a.wav", 2.0)
    write(folder / "audio" / "c.wav", 1.0)
    labelled = [(f"{label}{n}.wav", label, n % 5) for label in ("satisfied", "frustrated") for n in range(10)]
    for number, (name, _, _) in enumerate(labelled):
        write(folder / "calls" / name, 0.6 + 0.05 * number, 16_000)
    rows = [f"{name},{label},{speaker}" for name, label, speaker in labelled]
    (folder / "labels.csv").write_text("\n".join(["path,label,speaker", *rows]))
    (folder / "list.csv").write_text("path,label\na.wav,happy\n")
    (folder / "truth.csv").write_text("path,label,speaker\nb.flac,happy,1\nc.wav,sad,2\n")
    (folder / "other.csv").write_text("path,prediction\nb.flac,happy\nc.wav,calm\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert importlib.import_module("ser_batch.cli").main(["run", "audio", "--out", "preds.parquet", "-q"]) == 0
        yield folder


def test_there_are_commands() -> None:
    assert len(OURS) > 20 and {"ser-export trt", "bench latency"} <= {*OURS}
    assert {command.split()[0] for command in COMMANDS} <= {*PROGRAMS, "pip", "pytest", "python", "git", "cd", "eval"}


@pytest.mark.parametrize("command", OURS)
def test_a_command_runs_or_at_least_is_one(here: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command)
    module = importlib.import_module(PROGRAMS[program])
    if PARSED.search(command):
        parse(module.cli, program, arguments)
        return
    if "--out" in arguments and "--resume" not in arguments:
        (here / arguments[arguments.index("--out") + 1]).unlink(missing_ok=True)
        (here / f"{arguments[arguments.index('--out') + 1]}.parquet").unlink(missing_ok=True)
    assert module.main(arguments) == 0, capsys.readouterr().err


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse the arguments as the command does, down to its last subcommand; what is wrong is raised."""
    with command.make_context(name, [*arguments], parent) as context:
        if isinstance(command, click.Group):
            found, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert inner is not None
            parse(inner, str(found), rest, context)


def test_the_python_runs(here: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        names: dict[str, object] = {"x": sound(2.0, 16_000)[:, 0]}
        (here / "preds.parquet").exists() or pytest.fail("the commands above have written it")
        try:
            exec(compile(block, str(README), "exec"), names)
        except ModuleNotFoundError as error:
            if error.name not in ("polars", "duckdb"):
                raise
