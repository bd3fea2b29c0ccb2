"""Every snippet of docs/api.md runs, in order, as one script, where its files are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.recordings import write
from support.toy_table import LABELS, write_table_corpus

pytest.importorskip("torch")

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def write_calls(folder: Path) -> None:
    """Recordings of two speakers in calls/, and labels.csv, which says what they are."""
    (folder / "calls").mkdir()
    lines = ["path,label,speaker"]
    for number in range(24):
        write(folder / "calls" / f"{number}.wav", 1.0, 16_000)
        lines.append(f"{number}.wav,{('calm', 'cross')[number % 2]},{('ann', 'bob')[number // 12]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow  # it trains, exports and verifies
def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) >= 6
    monkeypatch.chdir(tmp_path)
    for folder in ("talks", "audio"):
        Path(folder).mkdir()
        write(Path(folder, "b.flac"), 7.0, 16_000, kind="flac")
    write(Path("a.wav"), 2.0)
    write_table_corpus(tmp_path)
    write_calls(tmp_path)
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    assert "Channels come first: give x.T" in said
    assert "4 predictions, 0 of recordings that failed" in said
    assert "output    preds.parquet" in said and Path("preds.parquet").is_file()
    assert re.search(r"toy-[0-9a-f]{12} True \(\)", said)
    assert "(32,)\n(1, 32) 32\n" in said
    assert " of 24 rows have another label now\n('calm', 'cross')" in said
    assert set(LABELS) <= set(re.findall(r"\w+", said.splitlines()[-1])) and "'cross'" in said.splitlines()[-2]
