from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ser_batch.bundle import Bundle
from ser_batch.errors import InputError
from support.recordings import write
from training.cli import main
from training.robustness import cli
from training.robustness.report import markdown, read, read_all


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = [f"{write(folder / f'{n}.wav', 0.5).name},{label},{n}" for n, label in enumerate(("calm", "cross"))]
    (folder / "table.csv").write_text("\n".join(["path,label,speaker", *lines]))
    (folder / "split.json").write_text(json.dumps({"name": "one", "test": ["1.wav"]}))
    return folder


def arguments(bundle: Bundle, corpus: Path, out: Path) -> list[str]:
    return [
        *("robustness", str(bundle.root), "--data", str(corpus / "table.csv"), "--map", "cross=angry"),
        *("--out", str(out)),
    ]


@pytest.fixture(scope="module")
def report(toy_bundle: Bundle, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "robustness" / "toy.json"
    assert main(arguments(toy_bundle, corpus, out)) == 0
    return out


def test_what_is_written_is_read_again(report: Path, toy_bundle: Bundle) -> None:
    found = read(report)
    assert read_all(report.parent.parent) == [found]
    assert (found.bundle, found.clips, found.part, found.labels) == (toy_bundle.id, 2, "all", toy_bundle.labels)
    command = f"ser-train robustness {toy_bundle.root.name} --data table.csv --part test --map cross=angry"
    assert found.measured["command"] == command  # and no folder of this machine
    with pytest.raises(InputError, match="cannot be read"):
        read(report.with_name("absent.json"))
    report.with_name("other.json").write_text("{}")
    with pytest.raises(InputError):
        read(report.with_name("other.json"))
    report.with_name("other.json").unlink()


def test_the_table_says_what_was_measured(report: Path) -> None:
    found = read(report)
    text = markdown(found)
    for row in found.rows:
        assert f"\n| {row.name} | {100 * row.outputs['fused'].accuracy:.1f} |" in text
    assert text.count("not kept: ") == len({row.name for row, _ in found.not_kept}) > 0
    assert f"{sum(len(row.bounds) for row in found.rows) - len(found.not_kept)} of" in text


def test_only_the_part_is_scored(toy_bundle: Bundle, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    asked = [*arguments(toy_bundle, corpus, out), "--split", str(corpus / "split.json")]
    assert main(asked) == 0
    assert (read(out).clips, read(out).part) == (1, "test of one")
    assert main([*asked, "--check"]) == cli.NOT_KEPT


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--split", "{}/split.json", "--protocol", "paper"], "either"),
        (["--map", ""], "--map"),
        (["--split", "{}/absent.json"], "absent"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    given: list[str], said: str, toy_bundle: Bundle, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = arguments(toy_bundle, corpus, tmp_path / "a.json")
    assert main([*asked, *(word.format(corpus) for word in given)]) == 2
    assert said in capsys.readouterr().err


def test_it_needs_no_torch() -> None:
    blocked = "import sys; sys.modules['torch'] = None; import training.cli, training.robustness.{}"
    for module in ("measure", "report", "cli"):
        subprocess.run([sys.executable, "-c", blocked.format(module)], check=True)
