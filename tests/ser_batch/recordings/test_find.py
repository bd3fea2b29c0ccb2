from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ser_batch.errors import InputError
from ser_batch.formats import described
from ser_batch.recordings.find import find_recordings
from ser_batch.text import printable
from support.encoded import encode
from support.recordings import touch, write


def files(*roots: str | Path) -> list[str]:
    return [recording.name for recording in find_recordings(roots)]


def test_a_folder_is_searched_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.wav", "a/x.wav", "a/deep/er/y.FLAC", "z.opus", "notes.txt", "a.mp3")
    assert files(tmp_path) == ["a.mp3", "a/deep/er/y.FLAC", "a/x.wav", "b/x.wav", "z.opus"]


def test_every_ending_of_audio_and_video_is_taken(tmp_path: Path) -> None:
    names = [
        *(
            "a.m4a",
            "b.wma",
            "c.mpga",
            "d.mpeg",
            "e.mp2",
            "f.bwf",
            "g.mp4",
            "h.mov",
            "i.mkv",
            "j.3gp",
            "k.webm",
            "l.amr",
        ),
        *("m.AAC", "n.ac3", "o.wv", "p.ape", "q.tta", "r.dsf", "s.dff", "t.avi", "u.flv", "v.mts", "w.opus", "x.caf"),
    ]
    touch(tmp_path, *names)
    assert files(tmp_path) == names


def test_what_holds_audio_is_taken_whatever_its_ending_and_the_rest_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "c.TXT", "d.json", "e.weird", "sub/f", "sub/.hidden", ".g/h.txt")
    write(tmp_path / "1.dat")
    write(tmp_path / "2", kind="mp3")
    encode(tmp_path / "3.ts", "ts", 0.5)
    encode(tmp_path / "sub" / "4.rec", "adts", 0.5)
    encode(tmp_path / "sub" / "5.mp4.part", "m4a", 0.5)
    write(tmp_path / "sub" / "audio.txt")  # not even looked into
    (tmp_path / "7.bin").write_bytes(np.random.default_rng(0).bytes(100_000))
    (tmp_path / "8.dat").write_bytes(b"MAC addresses, and MP+ and RIFF")
    os.mkfifo(tmp_path / "9.pipe")
    found = find_recordings([tmp_path])
    assert [each.name for each in found] == ["1.dat", "2", "3.ts", "sub/4.rec", "sub/5.mp4.part"]
    assert found.left_out == {"txt": 3, "json": 1, "weird": 1, "": 1, "bin": 1, "dat": 1, "pipe": 1}
    assert described(found.left_out).startswith("3 .txt, 1 without an ending, 1 .bin, 1 .dat")
    assert found[1:3].left_out == found.left_out
    globbed = find_recordings([f"{tmp_path}/*"])
    assert [each.name for each in globbed] == ["1.dat", "2", "3.ts"]
    assert globbed.left_out == {"txt": 2, "json": 1, "weird": 1, "bin": 1, "dat": 1, "pipe": 1}


def test_many_endings_are_summed_up() -> None:
    counts = {f"e{number}": 1 for number in range(20)}
    assert described(counts).endswith("and 12 others")


def test_brackets_of_a_folder_that_is_there_are_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "calls [2024]/a.wav", "calls [2024]/b/c.wav", "calls 2/d.wav")
    assert files(f"{tmp_path}/calls [2024]/*.wav") == ["a.wav"]
    assert files(f"{tmp_path}/calls [2024]/**/*.wav") == ["a.wav", "b/c.wav"]
    assert files(f"{tmp_path}/calls [0-9]/*.wav") == ["calls 2/d.wav"]


def test_a_file_named_itself_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "speech.bin", ".hidden.wav")
    assert files(tmp_path / "speech.bin") == ["speech.bin"]
    assert files(tmp_path / ".hidden.wav") == [".hidden.wav"]


def test_hidden_files_and_folders_are_left_out_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "._x.wav", ".cache/y.wav")
    assert files(tmp_path) == ["x.wav"]
    assert files(tmp_path / ".cache") == ["y.wav"]


def test_with_several_roots_names_start_with_the_root_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.wav", "b/x.wav", "c.wav")
    monkeypatch.chdir(tmp_path)
    assert files("b", "a/", "./c.wav") == ["b/x.wav", "a/x.wav", "c.wav"]


def test_a_recording_reached_twice_under_one_name_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/b/x.wav")
    monkeypatch.chdir(tmp_path)
    assert files("a", "a/b", "./a/b/x.wav", ".") == ["a/b/x.wav"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "root/real/x.wav", "elsewhere/y.wav")
    root = tmp_path / "root"
    (root / "real" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "real")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "self").symlink_to(root / "self")
    assert files(root) == ["out/y.wav", "real/x.wav"]


def test_broken_links_and_pipes_with_an_audio_ending_are_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.wav")
    assert files(tmp_path) == ["gone.wav", "pipe.wav"]


def test_a_folder_named_like_audio_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav/y.wav")
    assert files(tmp_path) == ["x.wav/y.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can open every folder")
def test_a_folder_that_cannot_be_opened_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "locked/x.wav", "y.wav")
    (tmp_path / "locked").chmod(0)
    try:
        assert files(tmp_path) == ["locked", "y.wav"]
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_odd_names_become_valid_text_and_still_open(tmp_path: Path) -> None:
    names = [
        b"new\nline.wav",
        b"quote'\".wav",
        b"bad\xff.wav",
        "žluťoučký.wav".encode(),
        b"n" * 251 + b".wav",
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    found = find_recordings([tmp_path])
    assert {recording.name for recording in found} == {
        "new\nline.wav", "quote'\".wav", r"bad\xff.wav", "žluťoučký.wav", "n" * 251 + ".wav",
    }  # fmt: skip
    assert all(Path(recording.path).exists() for recording in found)


def test_names_equal_once_escaped_are_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.wav")).touch()
    (tmp_path / r"a\xff.wav").touch()
    with pytest.raises(InputError, match="one name"):
        find_recordings([tmp_path])


def test_backslashes_are_doubled_only_where_bytes_are_escaped() -> None:
    assert printable(r"a\b.wav") == r"a\b.wav"
    assert printable(os.fsdecode(b"a\\b\xfe.wav")) == r"a\\b\xfe.wav"


def test_nothing_found_and_a_missing_root_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "readme.txt")
    with pytest.raises(InputError, match=r"no audio found; got .* with 1 \.txt"):
        find_recordings([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        find_recordings([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no audio found"):
        find_recordings([])
