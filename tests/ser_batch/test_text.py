from __future__ import annotations

from ser_batch.text import aligned, markdown_table, printable, terminal_safe


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
