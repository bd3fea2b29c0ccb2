"""The report in headless Chromium: no error, no request, no script of a name, everything in reach of a keyboard.

Needs playwright and a Chromium of the system (Debian's package `chromium`) or of playwright itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from ser_batch.arrow import numbers
from ser_batch.cli import main
from support.predictions import softmax, write_predictions
from support.report_tables import HOSTILE, LABELS, recordings, windows

pytest.importorskip("altair")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium to test the report in: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


def contrast(*colours: str) -> float:
    """Of two colours as `rgb(r, g, b)`, as WCAG 2.2 defines it."""
    values = [[int(part) / 255 for part in re.findall(r"\d+", colour)] for colour in colours]
    linear = [[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in each] for each in values]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)


class Opened:
    """A page that was opened from the disk, and everything that it complained of or asked for."""

    def __init__(self, browser: Any, file: Path, scheme: str = "light") -> None:
        self.page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.until("document.documentElement.dataset.ready === 'yes'")
        self.own = file.as_uri()

    def cells(self, key: str) -> list[str]:
        """What is shown in a column, from the top."""
        script = """key => { const heads = [...document.querySelectorAll('#rows th')];
            const place = heads.findIndex(th => th.dataset.key === key);
            const lines = [...document.querySelectorAll('#rows tbody tr:not([aria-hidden])')];
            return lines.map(tr => tr.cells[place].textContent) }"""
        return self.page.evaluate(script, key)

    def wait_for_count(self, text: str) -> None:
        """Wait until the table says that it has so many rows."""
        playwright.expect(self.page.locator("#count")).to_have_text(text)

    def until(self, script: str) -> None:
        """Wait until an expression is true; playwright's own way to wait for one is what the page's policy forbids."""
        for _ in range(200):
            if self.page.evaluate(script):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {script}")

    def check(self, *media: str) -> None:
        """Nothing was complained of, and nothing asked for but the page and `media`."""
        others = [url for url in self.requests if url != self.own and not url.startswith("data:")]
        assert not self.complaints and others == list(media)
        self.page.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Any:
    """Makes a page once for the same arguments, and opens it."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*arguments: object, scheme: str = "light") -> Opened:
        given = tuple(map(str, arguments))
        if given not in made:
            made[given] = tmp_path_factory.mktemp("report") / "report.html"
            assert main(["report", *given, "--out", str(made[given])]) == 0
        return Opened(browser, made[given], scheme)

    return make


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("preds") / "preds.parquet")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("preds") / "other.parquet", shift=2.0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_names_are_text(report, predictions, other, scheme):
    opened = report(predictions, other, "--label-column", "label", "--by", "speaker", scheme=scheme)
    assert opened.cells("file")[0] == HOSTILE
    assert opened.page.evaluate("document.images.length") == 0
    colours = "e => [getComputedStyle(e).color, getComputedStyle(document.documentElement).backgroundColor]"
    ink, paper = opened.page.locator("h1").evaluate(colours)
    drawn = opened.page.locator("figure svg text").first.evaluate("e => getComputedStyle(e).fill")
    assert drawn == ink and contrast(ink, paper) >= 7 and (paper == "rgb(255, 255, 255)") == (scheme == "light")
    opened.check()


def test_the_table_sorts_searches_and_filters_by_keyboard(report, predictions):
    opened = report(predictions, "--label-column", "label", "--by", "speaker")
    page = opened.page
    button = page.get_by_role("button", name="score")
    button.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("columnheader", name="score").get_attribute("aria-sort") == "descending"
    scores = [float(score) for score in opened.cells("score") if score]
    assert scores == sorted(scores, reverse=True)
    page.keyboard.press("Enter")
    assert page.get_by_role("columnheader", name="score").get_attribute("aria-sort") == "ascending"
    page.get_by_label("Search").fill("cannot be DECODED")
    opened.wait_for_count("1 of 61 rows")
    assert opened.cells("file") == ["a/broken.wav"] and opened.cells("status") == ["error"]
    page.get_by_label("Search").fill("")
    page.get_by_label("Status").select_option("ok")
    opened.wait_for_count("60 of 61 rows")
    page.get_by_label("wrong ones only").check()
    assert opened.cells("label") and all(
        a != b for a, b in zip(opened.cells("label"), opened.cells("truth"), strict=True)
    )
    page.get_by_role("region", name="Recordings").focus()
    opened.check()


def test_a_recording_plays_from_its_folder_and_from_within(report, predictions, audio):
    for embedded in (False, True):
        opened = report(predictions, "--audio", audio, *(["--embed-audio", 9] if embedded else []))
        opened.page.get_by_label("Search").fill("a/005.wav")
        opened.page.get_by_role("button", name="Play a/005.wav").press("Enter")
        opened.until("document.getElementById('audio').readyState >= 1")
        assert abs(opened.page.evaluate("document.getElementById('audio').duration") - 0.5) < 0.05
        assert opened.page.locator("#playing").inner_text().startswith("a/005.wav")
        opened.check(*([] if embedded else [(audio / "a" / "005.wav").as_uri()]))


def test_timelines(report, tmp_path):
    opened = report(windows(tmp_path / "windows.parquet"), scheme="dark")
    page = opened.page
    assert page.locator("#timeline-file option").count() == 3
    page.locator("#timeline-file").select_option(label="call-2.wav (40 rows)")
    page.locator("#timeline-summary").filter(has_text="call-2.wav: 40 rows").wait_for()
    # A cell for each label of 38 windows, and one for each that is silent.
    opened.until("document.querySelectorAll('#timeline .mark-rect path').length >= 38 * 3 + 2")
    texts = page.locator("#timeline svg text").all_text_contents()
    assert {"channel 1", "channel 2", "not scored", "seconds", *LABELS} <= set(texts)
    assert page.locator("#timeline-numbers tr").count() == 41
    opened.check()


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_few_elements(report, tmp_path):
    count = 100_000
    rng = np.random.default_rng(0)
    files = [f"archive/2024/station-{row % 17}/recording-{row:06}.wav" for row in range(count)]
    facts = {
        "duration": numbers(rng.uniform(1, 60, count), np.float64),
        "level": numbers(rng.normal(-25, 5, count), np.float32),
    }
    source = write_predictions(
        tmp_path / "many.parquet", LABELS, files, softmax(rng.normal(size=(count, 3))), facts=facts
    )
    opened = report(source)
    assert Path(unquote(urlsplit(opened.own).path)).stat().st_size < 30 * 2**20
    assert opened.page.locator("#rows tbody tr").count() < 100
    opened.page.locator("#rows").evaluate("box => { box.scrollTop = box.scrollHeight }")
    opened.until("document.querySelector('#rows tbody').textContent.includes('recording-099999.wav')")
    assert opened.page.locator("#rows tbody tr").count() < 100
    opened.page.get_by_label("Search").fill("recording-012345")
    opened.wait_for_count("1 of 100,000 rows")
    opened.check()


def test_print_opens_the_numbers(report, predictions):
    opened = report(predictions)
    assert opened.page.locator("figure details[open]").count() == 0
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("figure details[open]").count() == 5
    assert opened.page.locator("#rows tbody tr").count() == 61
    opened.page.emulate_media(media="print")
    assert not opened.page.get_by_label("Search").is_visible()
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("figure details[open]").count() == 0
    opened.check()


def test_each_figure_and_table_has_a_name(report, predictions):
    opened = report(predictions, "--label-column", "label", "--by", "speaker")
    page = opened.page
    pictures = page.locator("figure > [role=img]").all()
    assert len(pictures) == page.locator("figure").count() == 8
    assert all(len(picture.get_attribute("aria-label") or "") > 20 for picture in pictures if picture)
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert page.evaluate("[...document.querySelectorAll('input,select')].every(e => e.labels.length === 1)")
    opened.check()
