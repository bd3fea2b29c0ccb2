"""Kaldi's data folders: `wav.scp` names the recordings, `segments` their utterances, `utt2spk` who speaks.

Source: https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import pyarrow as pa

from ser_batch.arrow import strings
from ser_batch.recordings.text_tables import Problems


def parse_scp(text: str) -> tuple[pa.Table, Problems]:
    """wav.scp: an id and a path per line, or an id and a command, which is not run."""
    pairs = _pairs(text)
    problems = {row: _command(rest) for row, (_, rest) in enumerate(pairs) if rest.endswith("|")}
    return pa.table(
        {"path": strings([rest for _, rest in pairs]), "id": strings([name for name, _ in pairs])}
    ), problems


def parse_segments(text: str, scp: str, speakers: str | None) -> tuple[pa.Table, Problems]:
    """A row for each utterance: `utterance recording start end`, seconds; an end of -1 is that of the recording.

    Args:
        scp: the content of wav.scp.
        speakers: that of utt2spk, if there is one.
    """
    paths, speaker_of = dict(_pairs(scp)), dict(_pairs(speakers or ""))
    problems = Problems()
    rows: list[tuple[str, str, str | None, str | None]] = []
    for line in filter(str.strip, text.splitlines()):
        utterance, recording, start, end = [*line.split()[:4], *[""] * 4][:4]
        path = paths.get(recording, "")
        if not end:
            problems[len(rows)] = f"has {len(line.split())} fields; expected utterance, recording, start and end"
        elif not path:
            problems[len(rows)] = f"is of a recording that wav.scp does not name; got {recording!r}"
        elif path.endswith("|"):
            problems[len(rows)] = _command(path)
        to_its_end = end.startswith("-")
        rows.append((path or recording or utterance, utterance, start or None, None if to_its_end else end or None))
    table = {name: strings([row[index] for row in rows]) for index, name in enumerate(("path", "id", "start", "end"))}
    if speakers is not None:
        table["speaker"] = strings([speaker_of.get(row[1]) for row in rows])
    return pa.table(table), problems


def _pairs(text: str) -> list[tuple[str, str]]:
    """The first word of each line, and the rest."""
    lines = (line.strip().replace("\t", " ").partition(" ") for line in text.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in lines]


def _command(text: str) -> str:
    return f"is the output of a command, and none is run; got {text!r}; expected a path"
