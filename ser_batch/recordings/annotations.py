"""Segments from other tools, a small strict reader for each format; `media` finds the audio that they are about.

RTTM (NIST), Praat's TextGrid, ELAN's EAF, WebVTT and SubRip, Audacity's label tracks, the JSON of whisper, whisperX
and whisper.cpp, Label Studio's export. They are read here and not by the libraries of that name, since those open paths
(a table may be in an object store, compressed, in UTF-16), and lose or refuse what is allowed: a cue's voice
(pysubs2), quotation marks in a TextGrid (praatio), an EAF without a schema's location (pympi).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # loaded where they are needed: most runs read neither XML nor HTML
    from xml.etree import ElementTree

Row = dict[str, Any]


class Segments(NamedTuple):
    """What a file says of its recordings."""

    rows: list[Row]
    """A dict of columns for each segment: `start`, `end` (seconds, or their text), and what the tool says of it."""
    media: list[Sequence[str]]
    """For each segment the names that its audio may have; none: it is named like the file."""
    untimed: Sequence[int] = ()
    """Segments that should have times, and have none."""


def parse_rttm(text: str) -> Segments:
    """RTTM: `SPEAKER file channel start duration ortho subtype speaker confidence`; other types are passed over.

    Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A.
    """
    rows: list[Row] = []
    media: list[Sequence[str]] = []
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise ValueError(f"{line!r} has {len(fields)} fields; a SPEAKER line has 9 or 10")
        _, file, channel, start, duration, _, _, speaker, *_ = fields
        rows.append({"start": start, "duration": duration, "speaker": speaker, "channel": channel})
        media.append((file,))
    return Segments(rows, media)


TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?<!\S)(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\S)|<(?P<flag>\w+)>|![^\n]*'
)


def parse_textgrid(text: str) -> Segments:
    """Praat's TextGrid, long or short: the intervals with text; points have no length, and are passed over.

    Of a text file Praat reads free-standing numbers, quoted strings and <flags>: all else is comment.
    Source: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
    """
    values = _textgrid_values(text)
    try:
        if [next(values), next(values)] != ["ooTextFile", "TextGrid"]:
            raise ValueError("it is no TextGrid that was saved as a text file")
        next(values), next(values)
        rows: list[Row] = []
        for _ in range(_whole(next(values)) if next(values) == "exists" else 0):
            kind, tier = next(values), next(values)
            next(values), next(values)
            for _ in range(_whole(next(values))):
                if kind == "IntervalTier":
                    start, end, label = _number(next(values)), _number(next(values)), str(next(values))
                    if label.strip():
                        rows.append({"start": start, "end": end, "tier": tier, "text": label.strip()})
                else:
                    next(values), next(values)
    except StopIteration:
        raise ValueError("it is cut off") from None
    return Segments(rows, [()] * len(rows))


def _textgrid_values(text: str) -> Iterator[str | float]:
    for match in TOKEN.finditer(text):
        if match["number"] is not None:
            yield float(match["number"])
        elif match["text"] is not None:
            yield match["text"].replace('""', '"')
        elif match["flag"] is not None:
            yield match["flag"]


def _number(value: str | float) -> float:
    if not isinstance(value, float):
        raise ValueError(f"it has {value!r} where a number should be")
    return value


def _whole(value: str | float) -> int:
    return int(_number(value))


def parse_eaf(text: str) -> Segments:
    """ELAN's EAF: the annotations with times of their own; those that refer to one are columns of its row.

    Source: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
    """
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff"))
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"it is no EAF: its root is {root.tag!r}")
    times = {slot.get("TIME_SLOT_ID", ""): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    rows: dict[str, Row] = {}
    for tier in root.iter("TIER"):
        aligned = list(tier.iter("ALIGNABLE_ANNOTATION"))
        slots = _slot_times(aligned, times)
        for each in aligned:
            rows[each.get("ANNOTATION_ID", "")] = {
                "start": slots[each.get("TIME_SLOT_REF1", "")],
                "end": slots[each.get("TIME_SLOT_REF2", "")],
                "speaker": tier.get("PARTICIPANT") or None,
                "tier": tier.get("TIER_ID"),
                "text": (each.findtext("ANNOTATION_VALUE") or "").strip(),
            }
    _add_references(root, rows)
    origin, media = _eaf_media(root)
    for row in rows.values():
        row["start"], row["end"] = (None if row[name] is None else row[name] + origin for name in ("start", "end"))
    return _timed(list(rows.values()), media)


def _timed(rows: list[Row], media: Sequence[str] = ()) -> Segments:
    """Segments of one recording; those without any time would pass for all of it."""
    untimed = [number for number, row in enumerate(rows) if row["start"] is None and row["end"] is None]
    return Segments(rows, [media] * len(rows), untimed)


def _slot_times(aligned: Sequence[ElementTree.Element], times: dict[str, str | None]) -> dict[str, float | None]:
    """Seconds of a tier's time slots; those without a time divide the stretch between their neighbours evenly."""
    ends = (each.get(f"TIME_SLOT_REF{end}", "") for each in aligned for end in (1, 2))
    order = list(dict.fromkeys(ends))
    known = [place for place, slot in enumerate(order) if times.get(slot) is not None]
    values = [float(times[order[place]] or 0) / 1000 for place in known]
    return {
        slot: float(np.interp(place, known, values)) if known and known[0] <= place <= known[-1] else None
        for place, slot in enumerate(order)
    }


def _add_references(root: ElementTree.Element, rows: dict[str, Row]) -> None:
    """Put what refers to an annotation, or to what refers to it, in a column named like its tier."""
    referred: dict[str, str] = {}
    references = [
        (str(tier.get("TIER_ID")), each) for tier in root.iter("TIER") for each in tier.iter("REF_ANNOTATION")
    ]
    for _, each in references:
        referred[each.get("ANNOTATION_ID", "")] = each.get("ANNOTATION_REF", "")
    for tier, each in references:
        target = each.get("ANNOTATION_REF", "")
        for _ in references:
            target = referred.get(target, target)
        value = (each.findtext("ANNOTATION_VALUE") or "").strip()
        if target in rows and value:
            column = tier if tier not in ("start", "end", "speaker", "tier", "text") else f"{tier}_tier"
            rows[target][column] = " ".join(filter(None, (rows[target].get(column), value)))


def _eaf_media(root: ElementTree.Element) -> tuple[float, tuple[str, ...]]:
    """Seconds of the media at which the annotation's time begins, and the media's names."""
    media = list(root.iter("MEDIA_DESCRIPTOR"))
    media.sort(key=lambda each: not each.get("MIME_TYPE", "").startswith("audio"))
    names = (each.get(name) for each in media for name in ("RELATIVE_MEDIA_URL", "MEDIA_URL"))
    origin = float(media[0].get("TIME_ORIGIN") or 0) / 1000 if media else 0.0
    return origin, tuple(name for name in names if name)


TIMING = re.compile(r"\s*(\S+)\s*-->\s*(\S+)")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
NAMED = re.compile(r"\[([^\]]+)\]:\s*")
"""How whisperX writes who speaks."""
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
"""Tags, and what SubRip takes over from SubStation: `{\\an8}`."""


def parse_cues(text: str) -> Segments:
    """WebVTT and SubRip: a cue is a row, its voice (`<v Anna>`, or whisperX's `[SPEAKER_00]:`) the speaker."""
    rows: list[Row] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        places = [place for place, line in enumerate(lines) if "-->" in line]
        if not places or lines[0].startswith("NOTE"):
            continue
        for place, end in zip(places, [*places[1:], len(lines)], strict=True):
            said = lines[place + 1 : end]
            if end < len(lines) and said and said[-1].strip().isdecimal():
                # Without an empty line between cues, the number of the next.
                said.pop()
            rows.append(_cue(lines[place], said))
    if not rows and text.strip() and not text.lstrip("\ufeff").startswith("WEBVTT"):
        raise ValueError("it has no cues: lines like 00:00:01.000 --> 00:00:02.500")
    return Segments(rows, [()] * len(rows))


def _cue(line: str, lines: Sequence[str]) -> Row:
    import html

    timing = TIMING.match(line)
    said = " ".join(line.strip() for line in lines if line.strip())
    voice, named = VOICE.search(said), NAMED.match(said)
    if named:
        said = said[named.end() :]
    return {
        "start": timing[1] if timing else line,
        "end": timing[2] if timing else None,
        "speaker": html.unescape(voice[1].strip()) if voice else named[1] if named else None,
        "text": html.unescape(MARKUP.sub("", said)),
    }


AUDACITY = re.compile(r"\d+(?:[.,]\d+)?\t\d+(?:[.,]\d+)?(?:\t.*)?|\\\t.*")


def parse_audacity(text: str) -> Segments | None:
    """Audacity's label track: start, end and label between tabs; lines of frequencies (with a backslash) are left.

    Source: https://manual.audacityteam.org/man/importing_and_exporting_labels.html; None: it is none.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or not all(map(AUDACITY.fullmatch, lines)):
        return None
    cells = [line.split("\t", 2) for line in lines if not line.startswith("\\")]
    rows = [{"start": start, "end": end, "text": "".join(label).strip()} for start, end, *label in cells]
    return Segments(rows, [()] * len(rows))


PARSERS: dict[str, Callable[[str], Segments]] = {
    ".rttm": parse_rttm,
    ".textgrid": parse_textgrid,
    ".eaf": parse_eaf,
    ".vtt": parse_cues,
    ".srt": parse_cues,
}
"""Ending of a file's name, in lower case -> its parser, which raises ValueError."""


def from_json(value: Any) -> Segments | None:
    """The segments in a JSON document of whisper, whisperX, whisper.cpp or Label Studio; None: it is none of them."""
    if isinstance(value, dict) and isinstance(value.get("segments"), list):
        return _whisper(value["segments"], value.get("language"))
    if isinstance(value, dict) and isinstance(value.get("transcription"), list):
        language = (value.get("result") or {}).get("language")
        return _whisper([_of_whisper_cpp(each) for each in value["transcription"]], language)
    tasks = value if isinstance(value, list) else [value]
    if tasks and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        from ser_batch.recordings.label_studio import from_tasks

        return Segments(*from_tasks(tasks))
    if tasks and any(isinstance(task, dict) and "annotation_id" in task for task in tasks):
        from ser_batch.recordings.label_studio import from_small_tasks

        return Segments(*from_small_tasks([task for task in tasks if isinstance(task, dict)]))
    return None


def _whisper(segments: Sequence[Any], language: Any) -> Segments:
    rows = [
        {
            "start": each.get("start"),
            "end": each.get("end"),
            "speaker": each.get("speaker"),
            "text": str(each.get("text") or "").strip(),
            "language": each.get("language") or language,
        }
        for each in segments
        if isinstance(each, dict)
    ]
    return _timed(rows)


def _of_whisper_cpp(segment: Any) -> Row:
    offsets = segment.get("offsets") or {}
    start, end = (None if offsets.get(name) is None else offsets[name] / 1000 for name in ("from", "to"))
    return {"start": start, "end": end, "speaker": segment.get("speaker"), "text": segment.get("text")}
