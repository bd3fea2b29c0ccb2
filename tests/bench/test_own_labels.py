"""The table of heads by corpus, on noise whose loudness is the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import ser_batch
from bench.cli import main
from ser_batch.bundle.bundle import Bundle

PAGE = "# Page\n\n<!-- generated: own_labels; by a command -->\nold\n<!-- end of own_labels -->\n\nThe end.\n"


def noises(folder: Path, quiet: str, loud: str) -> Path:
    """24 noises of two speakers, every other one of them loud."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["path,label,speaker"]
    for number in range(24):
        label, speaker = (quiet, loud)[number % 2], f"s{number % 4 // 2}"
        soundfile.write(folder / f"{number}.wav", rng.normal(0, (0.003, 0.1)[number % 2], 16_000), 16_000)
        lines.append(f"{number}.wav,{label},{speaker}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_corpus_is_a_row_and_the_page_is_renewed(
    tmp_path: Path, embedding_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, page = noises(tmp_path / "noises", "quiet", "loud"), tmp_path / "page.md"
    page.write_text(PAGE)
    given = ["own-labels", str(corpus), "--bundle", str(embedding_bundle.root), "--scored", str(tmp_path / "scored")]
    assert main([*given, "--docs", str(page)]) == 0
    row = next(line for line in page.read_text().splitlines() if line.startswith("| noises"))
    assert row == "| noises | 24 | 2 | 2 | 50.0 | – | – | **100.0 [100.0, 100.0]** |"
    assert row in capsys.readouterr().out and embedding_bundle.id in page.read_text()
    assert page.read_text().startswith("# Page\n") and page.read_text().endswith("\n\nThe end.\n")
    page.write_text("# Without\n")
    assert main([*given, "--docs", str(page)]) == 2
    assert "has no region" in capsys.readouterr().err


def test_the_bundles_own_answer_stands_there_adapted_by_the_true_shares(
    tmp_path: Path, embedding_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    # In words of the corpus' own, which mean labels of the bundle.
    corpus = noises(tmp_path / "noises", "sadness", "anger")
    given = ["own-labels", str(corpus), "--bundle", str(embedding_bundle.root), "--scored", str(tmp_path / "scored")]
    assert main(given) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| noises"))
    others = ",".join(f"{label}=0" for label in embedding_bundle.labels if label not in ("sad", "angry"))
    ser_batch.adapt(
        tmp_path / "scored" / "noises.parquet", tmp_path / "a.parquet", shares=f"sad=0.5,angry=0.5,{others}"
    )
    said = pq.read_table(tmp_path / "a.parquet").sort_by("file").select(["file", "label"]).to_pylist()
    right = [each["label"] == ("sad", "angry")[int(Path(each["file"]).stem) % 2] for each in said]
    own, adapted = (cell.strip().partition(" ")[0] for cell in row.split("|")[6:8])
    assert adapted == f"{100 * sum(right) / 24:.1f}" != own
