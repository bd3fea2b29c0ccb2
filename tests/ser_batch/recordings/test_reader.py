"""Tables as spreadsheets, scripts and other tools save them."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import os
import subprocess
import sys
import unicodedata
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import InputError
from ser_batch.recordings.endings import TABLES, is_table
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.reader import FORMATS, PROBLEM, read_table
from support.recordings import touch


def rows(path: Path) -> list[dict[str, Any]]:
    return read_table(str(path)).to_pylist()


def save(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


TEXT = "path,label\nmüde.wav,sad\nb.wav,calm\n"
EXPECTED = [{"path": "müde.wav", "label": "sad"}, {"path": "b.wav", "label": "calm"}]


def test_the_endings_of_tables_are_those_that_are_read() -> None:
    assert set(FORMATS) == TABLES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_encodings_and_line_ends_are_found(
    tmp_path: Path, encoding: str, delimiter: str, newline: str
) -> None:
    text = TEXT.replace(",", delimiter).replace("\n", newline)
    assert rows(save(tmp_path / "l.csv", text, encoding)) == EXPECTED


def test_windows_letters_that_latin_1_lacks_are_read(tmp_path: Path) -> None:
    assert rows(save(tmp_path / "l.csv", "path\n„a“ – €.wav\n", "cp1252")) == [{"path": "„a“ – €.wav"}]


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", lambda raw: pa.compress(raw, "zstd", asbytes=True))],
)
def test_compressed_tables_are_read(tmp_path: Path, ending: str, compress: Any) -> None:
    (tmp_path / f"l.csv{ending}").write_bytes(compress(TEXT.encode()))
    assert is_table(f"l.csv{ending}") and not is_table(f"l.wav{ending}")
    assert rows(tmp_path / f"l.csv{ending}") == EXPECTED
    (tmp_path / f"l.jsonl{ending}").write_bytes(compress(b'{"path": "b.wav"}\n'))
    assert rows(tmp_path / f"l.jsonl{ending}") == [{"path": "b.wav"}]


def test_damaged_compression_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress(TEXT.encode() * 99)[:60])
    with pytest.raises(InputError, match=r"the table .*l\.csv\.gz cannot be read"):
        read_table(str(tmp_path / "l.csv.gz"))


def test_what_spreadsheets_leave_around_a_table_is_no_part_of_it(tmp_path: Path) -> None:
    text = "\n\nsep=;\n path ; label ;;\na.wav;sad;;\nb.wav\n;;;\n"
    found = rows(save(tmp_path / "l.csv", text))
    assert found[:2] == [{"path": "a.wav", "label": "sad"}, {"path": "b.wav", "label": ""}]
    numbered = rows(save(tmp_path / "i.csv", ",path\n0,a.wav\n1,b.wav\n"))  # as pandas saves an index
    assert numbered == [{"column_1": 0, "path": "a.wav"}, {"column_1": 1, "path": "b.wav"}]


def test_quoted_cells_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    text = 'path,text\n"a,1.wav","He said\n""no"", twice"\nb.wav,x\n'
    assert rows(save(tmp_path / "l.csv", text)) == [
        {"path": "a,1.wav", "text": 'He said\n"no", twice'},
        {"path": "b.wav", "text": "x"},
    ]


def test_quotation_marks_in_a_tsv_are_text_where_they_quote_nothing(tmp_path: Path) -> None:
    text = 'path\tsentence\na.wav\t"Hello\nb.wav\tshe said\nc.wav\tbye"\n'
    found = rows(save(tmp_path / "l.tsv", text))
    assert [(row["path"], row["sentence"]) for row in found] == [
        ("a.wav", '"Hello'), ("b.wav", "she said"), ("c.wav", 'bye"'),
    ]  # fmt: skip


def test_a_row_with_too_many_cells_is_a_problem_of_its_own(tmp_path: Path) -> None:
    found = find_recordings([save(tmp_path / "l.csv", "path,age\na.wav,7\nb.wav,8,9\nc.wav,10\n")])
    assert [(each.name, "has 3 cells" in each.problem) for each in found] == [
        ("a.wav", False), ("b.wav", True), ("c.wav", False),
    ]  # fmt: skip
    assert found.extra is not None and found.extra["age"].to_pylist() == [7, 8, 10]


def test_types_are_guessed_from_all_rows(tmp_path: Path) -> None:
    many = "".join(f"{k}.wav,{k}\n" for k in range(150_000))  # more than one block of the parser
    table = read_table(str(save(tmp_path / "l.csv", f"path,n\n{many}z.wav,none of these\n")))
    assert (len(table), table["n"].type) == (150_001, pa.string())


@pytest.mark.parametrize(
    "name",
    [
        "path",
        "Path",
        "PATH",
        "file",
        "file_name",
        "File Name",
        "filename",
        "audio_filepath",
        "audio",
        "wav",
        "filepath",
    ],
)
def test_columns_that_name_files(tmp_path: Path, name: str) -> None:
    (found,) = find_recordings([save(tmp_path / "l.csv", f"n,{name}\n1,a.wav\n")])
    assert (found.name, found.path) == ("a.wav", str(tmp_path / "a.wav"))


def test_the_preferred_column_names_the_file_and_others_are_handed_through(tmp_path: Path) -> None:
    found = find_recordings([save(tmp_path / "l.csv", "audio,path,filename\nx,a.wav,y\n")])
    assert found[0].name == "a.wav"
    assert found.extra is not None and found.extra.to_pylist() == [{"audio": "x", "filename": "y"}]


def test_json_lines_an_array_and_broken_lines(tmp_path: Path) -> None:
    lines = '{"path": "a.wav", "n": 1}\n\n{"path": "b.wav", "n": "x"}\n'
    assert rows(save(tmp_path / "l.jsonl", lines)) == [{"path": "a.wav", "n": "1"}, {"path": "b.wav", "n": "x"}]
    array = json.dumps([{"path": "a.wav", "n": [1]}, {"path": "b.wav"}])
    assert rows(save(tmp_path / "l.json", array)) == [{"path": "a.wav", "n": [1]}, {"path": "b.wav", "n": None}]
    assert rows(save(tmp_path / "manifest.json", '{"path": "a.wav"}\n{"path": "b.wav"}\n', "utf-16")) == [
        {"path": "a.wav"}, {"path": "b.wav"},
    ]  # fmt: skip
    exported = find_recordings([save(tmp_path / "hf.jsonl", '{"audio": {"path": "a.wav", "bytes": null}, "n": 1}\n')])
    assert (exported[0].path, exported.content(exported[0])) == (str(tmp_path / "a.wav"), None)
    broken = find_recordings([save(tmp_path / "b.jsonl", '{"path": "a.wav"}\n{"path": \n[1]\n{"path": "c.wav"}\n')])
    assert [each.name for each in broken] == ["a.wav", "b.jsonl#1", "b.jsonl#2", "c.wav"]
    assert ["JSON" in each.problem for each in broken] == [False, True, True, False]


def test_json_as_pandas_and_datasets_write_it(tmp_path: Path) -> None:
    expected = [{"path": "a.wav", "n": 1}, {"path": "b.wav", "n": 2}]
    for value in (
        {"path": {"0": "a.wav", "1": "b.wav"}, "n": {"0": 1, "1": 2}},
        {"path": ["a.wav", "b.wav"], "n": [1, 2]},
        {"version": "1.0", "data": expected},
    ):
        assert rows(save(tmp_path / "l.json", json.dumps(value))) == expected
    assert rows(save(tmp_path / "l.json", '["a.wav", "b.wav"]')) == [{"path": "a.wav"}, {"path": "b.wav"}]


def test_ids_that_look_like_dates_stay_as_they_are(tmp_path: Path) -> None:
    values = [{"path": "a.wav", "id": "2021-05-03", "label": "2021-05-03"}, {"path": "b.wav", "id": "2021-05-04"}]
    path = save(tmp_path / "l.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, values)))
    assert rows(path) == [values[0], {**values[1], "label": None}]


def test_what_a_type_would_change_stays_text(tmp_path: Path) -> None:
    number = "123456789012345678901234567890"
    assert rows(save(tmp_path / "l.jsonl", f'{{"path": "a.wav", "id": {number}}}\n')) == [
        {"path": "a.wav", "id": number}
    ]
    half = '{"path": "a.wav", "text": "cut \\ud83d"}\n{"path": "b.wav", "text": "x"}\n'
    assert [row["text"] for row in rows(save(tmp_path / "l.jsonl", half))] == ["cut ?", "x"]
    assert rows(save(tmp_path / "l.csv", "path,label\na.wav,s\0d\n")) == [{"path": "a.wav", "label": "s\0d"}]


@pytest.mark.parametrize("above", ["Calls in May\n", "Calls;;\n;;\n", "# made by x, on Monday\n", "\ufeff\n\nCalls\n"])
def test_titles_may_stand_above_a_table(tmp_path: Path, above: str) -> None:
    text = above + '"File Name";label;n\na.wav;sad;1\n'
    assert rows(save(tmp_path / "l.csv", text)) == [{"File Name": "a.wav", "label": "sad", "n": 1}]


def test_only_titles_are_looked_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got columns name, type, label"):
        find_recordings([save(tmp_path / "l.csv", "name,type,label\nx,audio,sad\n")])
    assert rows(save(tmp_path / "l.csv", "path\na.wav\naudio,x\n"))[0] == {"path": "a.wav", PROBLEM: None}


def test_a_quotation_mark_that_is_never_closed_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quotation mark that is never closed; got line 2 below"):
        rows(save(tmp_path / "l.csv", 'path,text\na.wav,"x"\nb.wav,"y\nc.wav,z\n'))
    inches = rows(save(tmp_path / "l.csv", 'path,text\na.wav,7" disk\n'))
    assert inches == [{"path": "a.wav", "text": '7" disk'}]


@pytest.mark.parametrize("ending", [".pls", ".stm", ".ass", ".ods"])
def test_tables_of_kinds_that_are_not_read_are_no_audio(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match=f"is of a kind that is not read; got {ending}; expected CSV"):
        find_recordings([save(tmp_path / f"l{ending}", "a.wav")])


def test_what_is_no_table_at_all_is_refused_in_a_few_words(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"RIFF\x1b[2J,WAVE" + bytes(range(1, 255)) * 99)
    with pytest.raises(InputError) as refused:
        find_recordings([tmp_path / "l.csv"])
    assert len(str(refused.value)) < 2000 and "\x1b" not in str(refused.value)


def test_a_sheet_of_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["notes", "nothing here"])
    sheet = book.create_sheet("calls")
    sheet.append([])
    sheet.append(["File Name", "ID", "start", "end", "age", "share", "spoken", None])
    sheet.append(["a.wav", 7, 0.5, time(0, 0, 2), 30, 0.25, "ja", None])
    sheet.append(["b.wav", None, None, timedelta(seconds=90), None, 1, None, None])
    book.save(tmp_path / "l.xlsx")
    found = find_recordings([tmp_path / "l.xlsx"])
    assert [(each.name, each.key, each.span) for each in found] == [
        ("a.wav", "7", (0.5, 2.0)), ("b.wav", "b.wav@0-90", (0.0, 90.0)),
    ]  # fmt: skip
    assert found.extra is not None
    assert found.extra.drop_columns(["id", "start", "end"]).to_pylist() == [
        {"age": 30, "share": 0.25, "spoken": "ja"}, {"age": None, "share": 1.0, "spoken": None},
    ]  # fmt: skip


def test_titles_may_stand_above_a_sheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Calls in May"], [], ["No.", "File Name", "label"], [1, "a.wav", "sad"]):
        book.active.append(row)
    book.save(tmp_path / "l.xlsx")
    assert rows(tmp_path / "l.xlsx") == [{"No.": 1, "File Name": "a.wav", "label": "sad"}]


def test_without_openpyxl_a_workbook_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "l.xlsx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"pip install 'ser-batch\[xlsx\]'"):
        read_table(str(tmp_path / "l.xlsx"))


def test_lists_of_paths_playlists_and_kaldi(tmp_path: Path) -> None:
    playlist = "\ufeff#EXTM3U\n#EXTINF:123,A title\nmüde.wav\n\nfile:///tmp/a%20b.wav\nhttp://host/x.wav\n"
    found = find_recordings([save(tmp_path / "l.m3u8", playlist)])
    assert [each.path for each in found][:2] == [str(tmp_path / "müde.wav"), "/tmp/a b.wav"]
    assert "address in the web" in found[2].problem
    found = find_recordings([save(tmp_path / "wav.scp", "u1 a.wav\nu2\t/x/b c.wav\nu3 sox d.wav -t wav - |\n")])
    assert [(each.key, each.path) for each in found][:2] == [("u1", str(tmp_path / "a.wav")), ("u2", "/x/b c.wav")]
    assert "command" in found[2].problem and found[2].key == "u3"
    assert rows(save(tmp_path / "l.txt", TEXT.replace(",", "\t"), "utf-16")) == EXPECTED  # Excel's "Unicode text"
    assert [row["path"] for row in rows(save(tmp_path / "p.lst", "\ufeffa, b.wav\r\n\r\nc.wav"))] == [
        "a, b.wav",
        "c.wav",
    ]


def test_shapes_of_embedded_audio(tmp_path: Path) -> None:
    def found(name: str, **columns: Any) -> Any:
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        return find_recordings([tmp_path / f"{name}.parquet"])

    binary = found("binary", audio=pa.array([b"one", b"two"], pa.large_binary()), n=[1, 2])
    assert [binary.content(each) for each in binary] == [b"one", b"two"]
    assert [each.name for each in binary] == ["binary.parquet#0", "binary.parquet#1"]
    bare = found("bare", audio=[{"bytes": b"one"}])
    assert bare.content(bare[0]) == b"one"
    paths = found("paths", audio=[{"path": "a.wav"}, {"path": "b.wav"}], n=[1, 2])
    assert [(each.name, each.path) for each in paths] == [(n, str(tmp_path / n)) for n in ("a.wav", "b.wav")]
    assert [each.name for each in found("text", audio=["a.wav"])] == ["a.wav"]
    other = found("other", speech=[{"bytes": b"one", "path": "a.wav"}])
    assert other.content(other[0]) == b"one"
    (tmp_path / "there.wav").write_bytes(b"beside")
    some = found("some", audio=[{"bytes": b"one", "path": "a.wav"}, {"bytes": None, "path": "there.wav"}])
    assert [some.content(each) for each in some] == [b"one", b"beside"]
    for name, audio in (("array", {"array": [0.0], "sampling_rate": 16_000}), ("list", [0.0, 0.1])):
        with pytest.raises(InputError, match=f"the table .*{name}.parquet .*'audio'"):
            found(name, audio=[audio])


def test_names_written_elsewhere_are_found_here(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    touch(tmp_path, "sub/a.wav", apart, "c.wav", r"d\e.wav")
    names = ["sub\\a.wav", composed, " c.wav ", r"d\e.wav", "nothing\\x.wav"]
    pq.write_table(pa.table({"path": names}), tmp_path / "l.parquet")
    found = list(find_recordings([tmp_path / "l.parquet"]))
    assert [each.name for each in found] == names  # as the table has them
    assert [Path(each.path).exists() for each in found] == [True] * 4 + [False]
    assert found[4].path == str(tmp_path / "nothing\\x.wav")


def test_paths_start_from_the_root_that_is_given(tmp_path: Path) -> None:
    save(tmp_path / "l.csv", "path\na.wav\n/abs/b.wav\ns3://b/c.wav\n")
    found = find_recordings([tmp_path / "l.csv"], root=tmp_path / "elsewhere")
    assert [each.path for each in found] == [str(tmp_path / "elsewhere" / "a.wav"), "/abs/b.wav", "s3://b/c.wav"]
    assert find_recordings([tmp_path / "l.csv"], root="s3://x/y")[0].path == "s3://x/y/a.wav"
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match="root is for tables"):
        find_recordings([tmp_path / "a.wav"], root=tmp_path)


def test_tables_behind_a_glob_in_a_folder_with_brackets(tmp_path: Path) -> None:
    touch(tmp_path, "calls [1]/a.wav", "calls [1]/sub/b.wav")
    save(tmp_path / "calls [1]" / "l.csv", "path\na.wav\n")
    assert [each.path for each in find_recordings([f"{tmp_path}/calls [1]/*.csv"])] == [
        str(tmp_path / "calls [1]" / "a.wav")
    ]
    assert [each.name for each in find_recordings([f"{tmp_path}/calls [1]/*.wav"])] == ["a.wav"]
    assert [each.name for each in find_recordings([f"{tmp_path}/calls [1]/**/*.wav"])] == ["a.wav", "sub/b.wav"]
    assert [each.name for each in find_recordings([f"{tmp_path}/calls [[]1]/*.wav"])] == ["calls [1]/a.wav"]


def test_several_tables_may_differ_in_order_and_types(tmp_path: Path) -> None:
    save(tmp_path / "1.csv", "path,age\na.wav,7\n")
    save(tmp_path / "2.csv", "age,path\nunknown,b.wav\n")
    found = find_recordings([tmp_path / "*.csv"])
    assert [each.name for each in found] == ["a.wav", "b.wav"]
    assert found.extra is not None and found.extra["age"].to_pylist() == ["7", "unknown"]
    save(tmp_path / "3.csv", "path,sex\nc.wav,f\n")
    with pytest.raises(InputError, match="other columns"):
        find_recordings([tmp_path / "*.csv"])


NAMES = """
import os, sys
from ser_batch.recordings.find import find_recordings
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
found = find_recordings([sys.argv[1]])
assert [os.path.exists(each.path) for each in found] == [True, False]
assert [each.name for each in found] == ["\\U0001f600.wav", "\\xe9.wav"]
"""


def test_names_are_found_where_the_locale_is_ascii(tmp_path: Path) -> None:
    touch(tmp_path, "😀.wav")
    table = save(tmp_path / "👀.csv", "path\n😀.wav\né.wav\n")
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", NAMES, table], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_marks_of_byte_order_are_no_part_of_names(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(codecs.BOM_UTF8 + b"a.wav\n")
    assert rows(tmp_path / "l.txt") == [{"path": "a.wav"}]
