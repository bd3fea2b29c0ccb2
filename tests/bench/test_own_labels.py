"""The table of heads by corpus, on noise whose loudness is the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.cli import main
from ser_batch.bundle.bundle import Bundle

PAGE = "# Page\n\n<!-- generated: own_labels; by a command -->\nold\n<!-- end of own_labels -->\n\nThe end.\n"


def test_a_corpus_is_a_row_and_the_page_is_renewed(
    tmp_path: Path, embedding_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, page, rng = tmp_path / "noises", tmp_path / "page.md", np.random.default_rng(0)
    corpus.mkdir()
    lines = ["path,label,speaker"]
    for number in range(24):
        label, speaker = ("quiet", "loud")[number % 2], f"s{number % 4 // 2}"
        soundfile.write(corpus / f"{number}.wav", rng.normal(0, (0.003, 0.1)[number % 2], 16_000), 16_000)
        lines.append(f"{number}.wav,{label},{speaker}")
    (corpus / "clips.csv").write_text("\n".join(lines) + "\n")
    page.write_text(PAGE)
    given = ["own-labels", str(corpus), "--bundle", str(embedding_bundle.root), "--scored", str(tmp_path / "scored")]
    assert main([*given, "--docs", str(page)]) == 0
    row = next(line for line in page.read_text().splitlines() if line.startswith("| noises"))
    assert row == "| noises | 24 | 2 | 2 | 50.0 | – | **100.0 [100.0, 100.0]** |"
    assert row in capsys.readouterr().out and embedding_bundle.id in page.read_text()
    assert page.read_text().startswith("# Page\n") and page.read_text().endswith("\n\nThe end.\n")
    page.write_text("# Without\n")
    assert main([*given, "--docs", str(page)]) == 2
    assert "has no region" in capsys.readouterr().err
