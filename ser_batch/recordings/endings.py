"""Which files are tables of recordings, by their names; what reads them is imported where there is one."""

from __future__ import annotations

from pathlib import Path

COMPRESSED = (".gz", ".bz2", ".zst")
SEGMENTS = "segments"
"""Kaldi's table of segments, which has this name and no ending."""
TABLES = frozenset(
    (
        *(".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".jl", ".json", ".parquet", ".xlsx", ".xlsm", ".txt", ".lst"),
        *(".m3u", ".m3u8", ".scp", SEGMENTS, ".rttm", ".textgrid", ".eaf", ".vtt", ".srt"),
    )
)
"""Endings that `recordings.reader` reads."""
UNREADABLE = (
    *(".xls", ".xlsb", ".ods", ".numbers", ".feather", ".arrow", ".pkl", ".orc", ".sqlite", ".db", ".avro", ".dta"),
    *(".pls", ".xspf", ".stm", ".ctm", ".trs", ".ass", ".ssa", ".sbv", ".ttml", ".cha"),
)
"""Endings of tables, playlists and segments that are refused as such, rather than taken for audio."""


def is_table(path: str) -> bool:
    """Whether a file of that name is taken for a table of recordings."""
    return ending(path) in TABLES or ending(path) in UNREADABLE


def ending(path: str) -> str:
    """The ending of a file's name, of a compressed one that before it: `.csv` of `list.csv.gz`.

    Kaldi's `segments` has none, and comes back as a whole.
    """
    if Path(path).name == SEGMENTS:
        return SEGMENTS
    suffixes = Path(path).suffixes
    return "".join(suffixes[-2:-1] if suffixes and suffixes[-1].lower() in COMPRESSED else suffixes[-1:]).lower()
