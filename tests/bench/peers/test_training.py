from __future__ import annotations

import pytest

pytest.importorskip("torch")

from bench import results
from bench.cli import main


def test_every_branch_is_measured(tmp_path, capsys):
    arguments = ["training", "--size", "small", "--clips", "4", "--epochs", "1", "--json", str(tmp_path / "t.json")]
    assert main(arguments) == 0
    found = results.read(tmp_path / "t.json")["branches"]
    assert [branch["branch"] for branch in found] == ["wav2vec2", "spectrogram"]
    assert all(b["seconds"]["n"] == 1 and 0 < b["trained"] <= b["parameters"] for b in found)
    assert "epoch of 1,147 clips, s" in capsys.readouterr().out
