from __future__ import annotations

from pathlib import Path

import pytest

from ser_batch.text import (
    aligned,
    markdown_table,
    printable,
    shareable_command,
    shareable_path,
    shareable_text,
    terminal_safe,
)


def test_undecodable_names_are_escaped_and_stay_apart() -> None:
    assert printable("a/é.wav") == "a/é.wav"
    assert printable("a/\udcff\\.wav") == "a/\\xff\\\\.wav"


def test_nothing_reaches_the_terminal_that_moves_its_cursor() -> None:
    assert terminal_safe("red \x1b[31m\n") == "red \\x1b[31m\\n"
    assert terminal_safe("ärger 怒り") == "ärger 怒り"


def test_columns_line_up() -> None:
    assert aligned([("a", "1"), ("long", "22")]) == "a      1\nlong  22"


def test_a_bar_within_a_cell_of_a_markdown_table_stays_one() -> None:
    assert markdown_table(["a", "b"], [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_a_command_for_others_keeps_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        "bench",
        "latency",
        "../shared/ravdess",
        f"{tmp_path}/out/a b.json",
        "/opt/runs/x/",
        "--bundle=/opt/runs/b",
    ]
    assert shareable_command([*given, "--corpus", "-", "s3://b/x", "~me"]) == (
        "bench latency ../shared/ravdess 'out/a b.json' .../x --bundle=.../b --corpus - s3://b/x '~me'"
    )
    assert shareable_path(str(tmp_path)) == "." and shareable_path("/") == "/"


def test_a_message_for_others_keeps_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"'/a/b c' (/opt/x/lib.so): ser-export quantize {tmp_path}/bundles/default --precision int8"
    assert shareable_text(text) == "'.../b c' (.../lib.so): ser-export quantize bundles/default --precision int8"
    for kept in ("files/s, 1/2 and / alone", "https://a.b/c", "s3://bucket/x", "../up/here ./x", "a:b/c"):
        assert shareable_text(kept) == kept
