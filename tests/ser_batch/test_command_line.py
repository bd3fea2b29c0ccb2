"""How every command ends where a package is missing that only some commands need."""

from __future__ import annotations

import click
import pytest

from ser_batch import command_line


@pytest.mark.parametrize(
    ("module", "extra"), [("torch.nn", "train,cpu"), ("onnx", "export,cpu"), ("ray", "ray"), ("openpyxl", "xlsx")]
)
def test_a_package_of_an_extra_is_named_with_it(module: str, extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def command() -> None:
        raise ModuleNotFoundError("no", name=module)

    assert command_line.run(command, "x", [], interrupted="") == command_line.USAGE
    package = module.partition(".")[0]
    said = f"error: this command needs {package}, which is not installed. Install it: pip install 'ser-batch[{extra}]'."
    assert capsys.readouterr().err == said + "\n"


def test_any_other_missing_module_is_a_bug() -> None:
    @click.command()
    def command() -> None:
        raise ModuleNotFoundError("no", name="ser_batch.typo")

    with pytest.raises(ModuleNotFoundError):
        command_line.run(command, "x", [], interrupted="")
