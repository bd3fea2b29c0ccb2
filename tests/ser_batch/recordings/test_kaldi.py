"""Kaldi's data folders."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ser_batch.errors import InputError
from ser_batch.recordings.find import find_recordings
from support.recordings import write


def data(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_scp", ".scp")).write_text(text)
    return folder / "segments"


def test_segments_with_wav_scp_and_speakers(tmp_path: Path) -> None:
    path = data(
        tmp_path / "train",
        wav_scp="talk-1 audio/talk 1.flac\ntalk-2\t/x/b.wav\n",
        segments="u1 talk-1 0.50 2.25\nu2 talk-1 2.25 -1\n\nu3  talk-2 1 3 A\n",
        utt2spk="u1 anna\nu3 ben\n",
    )
    found = find_recordings([path], root=tmp_path)
    assert [each.key for each in found] == ["u1", "u2", "u3"]
    assert [each.path for each in found] == [str(tmp_path / "audio/talk 1.flac")] * 2 + ["/x/b.wav"]
    assert [each.span for each in found] == [(0.5, 2.25), (2.25, math.inf), (1.0, 3.0)]
    assert found.extra["speaker"].to_pylist() == ["anna", None, "ben"]
    # Without --root paths start from the folder.
    assert find_recordings([path])[0].path == str(tmp_path / "train" / "audio/talk 1.flac")


def test_a_broken_line_costs_its_row(tmp_path: Path) -> None:
    path = data(
        tmp_path / "d",
        wav_scp="r1 a.wav\nr2 sph2pipe -f wav x.sph |\n",
        segments="u1 r1 0 1\nu2 r2 0 1\nu3 r3 0 1\nu4 r1 0\nu5 r1 2 1\n",
    )
    found = find_recordings([path])
    assert [each.key for each in found] == ["u1", "u2", "u3", "u4", "u5"]
    assert not found[0].problem
    for each, reason in zip(
        list(found)[1:], ["command", "wav.scp does not name; got 'r3'", "has 3 fields", ""], strict=True
    ):
        assert each.problem and reason in each.problem


def test_segments_alone_say_what_is_missing(tmp_path: Path) -> None:
    path = data(tmp_path / "d", segments="u1 r1 0 1\n")
    with pytest.raises(InputError, match=r"the table .*segments has no wav\.scp beside it"):
        find_recordings([path])


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    write(tmp_path / "segments" / "a.wav", 0.5)
    assert [each.name for each in find_recordings([tmp_path / "segments"])] == ["a.wav"]
