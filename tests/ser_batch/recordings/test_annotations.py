"""Segments from other tools: what each format says, and where the audio is found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ser_batch.errors import InputError
from ser_batch.recordings.find import find_recordings
from support.recordings import touch

RTTM = """;; a comment
SPKR-INFO call 1 <NA> <NA> <NA> unknown A <NA> <NA>
SPEAKER call 1 0.50 1.25 <NA> <NA> A <NA> <NA>
SPEAKER call 1 0.50 1.25 <NA> <NA> B <NA> <NA>
SPEAKER other.call 2 3 0.5 <NA> <NA> A 0.9
"""

TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "speaker ""A"""
        xmin = 0
        xmax = 3.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "er sagte ""nö"" ! intervals [2]: xmin = 9"
        intervals [2]:
            xmin = 1.5
            xmax = 2
            text = ""
        intervals [3]:
            xmin = 2
            xmax = 3.5
            text = "two
lines"
    item [2]:
        class = "TextTier"
        name = "points"
        xmin = 0
        xmax = 3.5
        points: size = 1
        points [1]:
            number = 1
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "emotion"
        xmin = 0
        xmax = 3.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "sad"
'''
SHORT = """File type = "ooTextFile"
"TextGrid"

0
3.5
<exists>
1
"IntervalTier"
"words" ! a comment "with quotes"
0
3.5
1
0.25
1e0
"ja"
"""

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/film.mpg" MIME_TYPE="video/mpeg" RELATIVE_MEDIA_URL="./film.mpg"/>
<MEDIA_DESCRIPTOR MEDIA_URL="file:///nowhere/a%20b.wav" MIME_TYPE="audio/x-wav" RELATIVE_MEDIA_URL="./a%20b.wav"/>
</HEADER>
<TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="ts2"/><TIME_SLOT TIME_SLOT_ID="ts3"/>
<TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="3500"/>
</TIME_ORDER>
<TIER TIER_ID="A-words" PARTICIPANT="Anna" LINGUISTIC_TYPE_REF="words">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>one</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
<ANNOTATION_VALUE>two &amp; a half</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
<ANNOTATION_VALUE>three</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER>
<TIER TIER_ID="emotion" PARENT_REF="A-words" LINGUISTIC_TYPE_REF="emotions">
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
<ANNOTATION_VALUE>sad</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
</TIER>
<TIER TIER_ID="sure" PARENT_REF="emotion" LINGUISTIC_TYPE_REF="emotions">
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a4">
<ANNOTATION_VALUE>very</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
</TIER>
</ANNOTATION_DOCUMENT>
"""

VTT = """WEBVTT - a title

NOTE a comment --> no cue

STYLE
::cue { color: red }

1
00:01.000 --> 00:02.500 align:start
<v.loud Anna Maria>Hello <b>you</b> &amp; you</v>
second line

00:00:03.000 --> 01:00:04.000
[SPEAKER_01]: - plain

00:00:03.000 --> 01:00:04.000
at once
"""
SRT = "1\r\n00:00:01,000 --> 00:00:02,500\r\nHallo\r\n\r\n2\r\nsoon --> 00:00:05,000\r\nx\r\n"


def found(folder: Path, name: str, content: str | bytes | Any, **options: Any) -> list[dict[str, Any]]:
    raw = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
    (folder / name).write_bytes(json.dumps(content).encode() if raw is None else raw)
    return rows(find_recordings([folder / name], **options))


def rows(recordings: Any) -> list[dict[str, Any]]:
    ours = [{"path": r.path, "name": r.name, "span": r.span, "problem": r.problem} for r in recordings]
    return [a | b for a, b in zip(ours, recordings.extra.to_pylist(), strict=True)]


def test_rttm(tmp_path: Path) -> None:
    touch(tmp_path, "call.flac", "other.call.wav")
    first, second, third = found(tmp_path, "all.rttm", RTTM)
    assert (first["name"], first["span"], first["speaker"], first["id"]) == (
        "call.flac", (0.5, 1.75), "A", "call.flac@0.5-1.75/A",
    )  # fmt: skip
    assert (second["speaker"], second["id"]) == ("B", "call.flac@0.5-1.75/B")
    assert (third["path"], third["span"], third["channel"]) == (str(tmp_path / "other.call.wav"), (3.0, 3.5), "2")


def test_a_long_textgrid(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    for encoding in ("utf-8", "utf-16", "latin-1"):
        listed = found(tmp_path, "a.TextGrid", TEXTGRID.encode(encoding))
        assert [(row["span"], row["tier"], row["text"]) for row in listed] == [
            ((0.0, 1.5), 'speaker "A"', 'er sagte "nö" ! intervals [2]: xmin = 9'),
            ((2.0, 3.5), 'speaker "A"', "two\nlines"),
            ((0.0, 1.5), "emotion", "sad"),
        ]
        assert [row["id"] for row in listed][::2] == ['a.wav@0-1.5/speaker "A"', "a.wav@0-1.5/emotion"]


def test_a_short_textgrid_compressed(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (row,) = found(tmp_path, "a.textgrid.gz", gzip.compress(SHORT.encode()))
    assert (row["name"], row["span"], row["tier"], row["text"]) == ("a.wav", (0.25, 1.0), "words", "ja")


def test_an_eaf(tmp_path: Path) -> None:
    touch(tmp_path, "a b.wav")
    listed = found(tmp_path, "session.eaf", EAF)
    assert [(row["span"], row["text"], row["emotion"], row["sure"]) for row in listed] == [
        ((0.5, 1.5), "one", "sad", "very"),
        ((1.5, 2.5), "two & a half", None, None),
        ((2.5, 3.5), "three", None, None),
    ]
    assert {(row["name"], row["speaker"], row["tier"]) for row in listed} == {("a b.wav", "Anna", "A-words")}


def test_an_eaf_whose_media_begin_later(tmp_path: Path) -> None:
    touch(tmp_path, "a b.wav")
    shifted = EAF.replace('MIME_TYPE="audio/x-wav"', 'MIME_TYPE="audio/x-wav" TIME_ORIGIN="2000"')
    assert found(tmp_path, "session.eaf", shifted)[0]["span"] == (2.5, 3.5)


def test_webvtt_and_subrip(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    listed = found(tmp_path, "a.vtt", VTT)
    assert [(row["span"], row["speaker"], row["text"]) for row in listed] == [
        ((1.0, 2.5), "Anna Maria", "Hello you & you second line"),
        ((3.0, 3604.0), "SPEAKER_01", "- plain"),
        ((3.0, 3604.0), None, "at once"),
    ]
    again = found(tmp_path, "a.vtt", VTT.replace("[SPEAKER_01]: ", ""))
    assert [row["id"] for row in again][1:] == ["a.wav@3-3604", "a.wav@3-3604~2"]
    first, second = found(tmp_path, "a.de.srt", SRT)
    assert (first["name"], first["span"], first["text"]) == ("a.wav", (1.0, 2.5), "Hallo")
    assert "no proper start; got 'soon'" in second["problem"]


def test_cues_as_tools_write_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    text = "1\n00:00:00,500 --> 00:00:01,500 X1:10\n{\\an8}<i>Na &amp; 7</i>\n2\n00:00:02,000 --> 00:00:03,000\n8\n"
    for newline in ("\n", "\r\n"):
        listed = found(tmp_path, "a.srt", text.replace("\n", newline))
        assert [(row["span"], row["text"]) for row in listed] == [((0.5, 1.5), "Na & 7"), ((2.0, 3.0), "8")]
    voice = found(tmp_path, "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000 line:0 align:start\n<v.loud A &amp; B>Hi</v>\n")
    assert [(row["span"], row["speaker"], row["text"]) for row in voice] == [((1.0, 2.0), "A & B", "Hi")]


def test_a_label_track_of_audacity(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    listed = found(tmp_path, "a.txt", "0.500000\t1.250000\tsad\n\\\t100\t200\n2,0\t3,5\n")
    assert [(row["name"], row["span"], row["text"]) for row in listed] == [
        ("a.wav", (0.5, 1.25), "sad"), ("a.wav", (2.0, 3.5), ""),
    ]  # fmt: skip


def test_whisper_and_its_kin(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    segments = [
        {"id": 0, "start": 0.5, "end": 2, "text": " Hi ", "speaker": "SPEAKER_00", "words": [{"word": "Hi"}]},
        {"id": 1, "start": 2.0, "end": None, "text": "there"},
    ]
    listed = found(tmp_path, "a.json", {"segments": segments, "language": "en"})
    assert [(row["span"], row["speaker"], row["text"], row["language"]) for row in listed] == [
        ((0.5, 2.0), "SPEAKER_00", "Hi", "en"), ((2.0, float("inf")), None, "there", "en"),
    ]  # fmt: skip
    cpp = {"result": {"language": "de"}, "transcription": [{"offsets": {"from": 500, "to": 2000}, "text": " Ja"}]}
    (row,) = found(tmp_path, "a.wav.json", cpp)
    assert (row["name"], row["span"], row["text"], row["language"]) == ("a.wav", (0.5, 2.0), "Ja", "de")


def test_segments_without_times_are_not_the_whole(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a b.wav")
    (row,) = found(tmp_path, "a.json", {"segments": [{"text": "hm"}]})
    assert row["problem"] == "has no times"
    untimed = EAF.replace(' TIME_VALUE="500"', "").replace(' TIME_VALUE="3500"', "")
    assert [row["problem"] for row in found(tmp_path, "session.eaf", untimed)] == ["has no times"] * 3


def region(key: str, kind: str, name: str, **value: Any) -> dict[str, Any]:
    return {"id": key, "type": kind, "from_name": name, "to_name": "audio", "value": value}


TASKS = [
    {
        "id": 7,
        "data": {"audio": "/data/upload/1/0a1b2c3d-call.wav", "title": "x"},
        "annotations": [
            {
                "id": 1,
                "completed_by": {"id": 3, "email": "a@b.c"},
                "result": [
                    region("r1", "labels", "label", start=0.5, end=2, labels=["sad"], channel=0),
                    region("r1", "textarea", "transcription", start=0.5, end=2, text=["oh", "no"]),
                    region("r2", "labels", "label", start=3, end=4.5, labels=["angry", "loud"]),
                    region("w1", "choices", "quality", choices=["good"]),
                ],
            },
            {"id": 2, "was_cancelled": True, "result": []},
        ],
    },
    {
        "id": 8,
        "data": {"audio": "/data/local-files/?d=sub/b.wav"},
        "annotations": [{"id": 4, "completed_by": 5, "result": [region("x", "choices", "emotion", choices=["calm"])]}],
    },
    {"id": 9, "data": {"audio": "https://host/files/c.wav?x=1"}, "annotations": []},
]


def test_label_studio(tmp_path: Path) -> None:
    touch(tmp_path, "call.wav", "sub/b.wav", "c.wav")
    listed = found(tmp_path, "export.json", TASKS)
    assert [(row["name"], row["span"], row["label"], row["id"]) for row in listed] == [
        ("call.wav", (0.5, 2.0), "sad", "7/r1"),
        ("call.wav", (3.0, 4.5), "angry,loud", "7/r2"),
        ("sub/b.wav", None, None, "8/4"),
        ("c.wav", None, None, "9"),
    ]
    assert [(row["text"], row["quality"], row["annotator"], row["emotion"]) for row in listed] == [
        ("oh,no", "good", "a@b.c", None), (None, "good", "a@b.c", None), (None, None, "5", "calm"), (None,) * 4,
    ]  # fmt: skip


def test_label_studio_in_short(tmp_path: Path) -> None:
    touch(tmp_path, "call.wav")
    task = {
        "audio": "/data/upload/1/0a1b2c3d-call.wav", "id": 7, "annotator": 1, "annotation_id": 3, "lead_time": 2.5,
        "label": [{"start": 0.5, "end": 2, "labels": ["sad"]}, {"start": 2, "end": 3, "labels": ["happy"]}],
        "quality": "good",
    }  # fmt: skip
    listed = found(tmp_path, "min.json", [task])
    assert [(row["name"], row["span"], row["label"], row["quality"], row["id"]) for row in listed] == [
        ("call.wav", (0.5, 2.0), "sad", "good", "7/3/0"), ("call.wav", (2.0, 3.0), "happy", "good", "7/3/1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.TextGrid", "", "cut off"),
        ("a.TextGrid", TEXTGRID[:400], "cut off"),
        ("a.TextGrid", SHORT.replace("0.25", '"x"'), "'x' where a number should be"),
        ("a.TextGrid", "ooBinaryFile\x08TextGrid", "cannot be read"),
        ("a.eaf", EAF[:900], "no XML"),
        ("a.eaf", "<html/>", "no EAF"),
        ("a.srt", "nothing like cues", "no cues"),
        ("a.rttm", "SPEAKER call 1 0.5\n", "has 4 fields"),
        ("a.rttm", ";; nothing\n", "lists no recordings"),
        ("a.vtt", "WEBVTT\n", "lists no recordings"),
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"x": 1}', "names no recordings; got columns x"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match=message) as refused:
        found(tmp_path, name, content)
    assert str(refused.value).startswith(f"the table {tmp_path / name} ")


def test_audio_is_found_beside_the_file_or_below_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "notes/x", "audio/deep/a.flac", "notes/.a.wav", "notes/a.txt")
    with pytest.raises(InputError, match=r"has no audio file; looked for a in .*notes.* --root"):
        found(tmp_path / "notes", "a.vtt", VTT)
    (first, *_) = found(tmp_path / "notes", "a.vtt", VTT, root=tmp_path / "audio")
    assert (first["name"], first["path"]) == ("deep/a.flac", str(tmp_path / "audio" / "deep" / "a.flac"))
    touch(tmp_path, "audio/a.wav")
    assert "several audio files" in found(tmp_path / "notes", "a.vtt", VTT, root=tmp_path / "audio")[0]["problem"]
    touch(tmp_path, "notes/talk.wav")
    with pytest.raises(InputError, match="no audio file"):  # a part of a talk is not the talk
        found(tmp_path / "notes", "talk.01.TextGrid", SHORT)


def test_of_many_files_one_may_be_empty_broken_or_without_audio(tmp_path: Path) -> None:
    touch(tmp_path, "1/mic.wav", "2/mic.wav", "3/mic.wav", "4/other.wav")
    for folder, content in (("1", SHORT), ("2", SHORT[:60]), ("3", SHORT.replace('"ja"', '""')), ("4", SHORT)):
        (tmp_path / folder / "mic.TextGrid").write_text(content)
    listed = rows(find_recordings([tmp_path / "*" / "mic.TextGrid"]))
    assert [(row["name"], row["id"], row["problem"][:20]) for row in listed] == [
        ("1/mic.wav", "1/mic.wav@0.25-1/words", ""),
        ("2/mic.TextGrid", "2/mic.TextGrid", "the table " + str(tmp_path)[:10]),
        ("4/mic", "4/mic@0.25-1/words", "has no audio file; l"),
    ]
    assert Path(listed[0]["path"]).samefile(tmp_path / "1" / "mic.wav")


def test_files_of_one_format_need_not_have_the_same_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a b.wav")
    (tmp_path / "a.vtt").write_text(VTT)
    (tmp_path / "b.eaf").write_text(EAF)
    listed = rows(find_recordings([tmp_path / "a.vtt", tmp_path / "b.eaf"]))
    assert [row["text"] for row in listed] == [
        "Hello you & you second line",
        "- plain",
        "at once",
        "one",
        "two & a half",
        "three",
    ]
    assert [row["emotion"] for row in listed] == [None, None, None, "sad", None, None]
