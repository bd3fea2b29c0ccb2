from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import environment, results
from bench.backends import Accuracy
from bench.cli import main
from bench.report import REGIONS, plots, renew_page, sections, write_html
from bench.startup import Startup
from bench.timing import Candidate, Series
from ser_batch.errors import InputError
from support.toy_measurements import latency_result, measurement, peers_result

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- generated: results; edits here are lost -->", "<!-- end of results -->"


def test_the_html_report_is_one_page_with_its_plots(tmp_path):
    result = latency_result(measurement(1, 0.01), measurement(8, 0.04))
    write_html([("folder/a.json", result)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/svg+xml;base64,") == 3
    assert "<h2>a.json: latency</h2>" in text
    assert "onnxruntime, fp32, fused, batch 8, closed loop: unstable: &lt;b&gt;" in text
    assert "left out: warp: not installed" in text
    assert "http" not in text.replace("http-equiv", "")


def test_every_kind_of_result_has_a_section_and_missing_ones_are_named():
    surroundings = environment.describe()
    series = Series.of([0.1, 0.2])
    startup = Startup("ser-batch --help", series, 2**20, [])
    peer = Candidate("torch eager fp32", "cpu", "wav2vec2", 1, series, 6.7, 1.0, 0.0, 2, [])
    content = {"candidates": [peer], "peaks": [], "absent": {}, "model": "toy", "target": "wav2vec2"}
    documents = [
        results.document("startup", surroundings, commands=[startup]),
        results.document("peers", surroundings, **content),
        results.document("smoke", surroundings, ratios={"a / b": 0.5}),
    ]
    text = sections([(f"{d['kind']}.json", d) for d in documents])
    assert text.count("No result yet") == len(set(results.KINDS) - {"adaptation"}) - 3
    assert "| ser-batch --help | 0.150 |" in text and "| a / b | 0.500 |" in text and "| torch eager fp32 |" in text


def test_what_was_left_out_is_said_once():
    text = sections([("a.json", peers_result(("torch eager fp32", 4))), ("b.json", peers_result(("x", 1), ("y", 2)))])
    assert text.endswith(
        "## Left out\n\n- `trt`: no driver (in 2 of 2 results)\n"
        "- `openvino:int8`: the bundle has no int8 graph (in 2 of 2 results)"
    )
    assert text.count("no driver") == 1 and text.count("<details>") == text.count("</details>") == 2


def test_only_the_generated_regions_of_a_page_change(tmp_path):
    target = tmp_path / "benchmarks.md"
    scaling = "<!-- generated: scaling; too -->\nold\n<!-- end of scaling -->"
    target.write_text(f"before\n{BEGIN}\nold\n{END}\nbetween\n{scaling}\nafter\n")
    results.write(latency_result(measurement(1, 0.01)), tmp_path / "results" / "a.json")
    renewal = ["report", str(tmp_path / "results"), "--docs", str(target)]
    assert main(renewal) == 0
    once = target.read_text()
    assert main(renewal) == 0
    assert target.read_text() == once
    assert once.startswith(f"before\n{BEGIN}\n\n## Latency") and once.endswith("<!-- end of scaling -->\nafter\n")
    assert f"{END}\nbetween\n<!-- generated: scaling; too -->\n\n| what |" in once
    assert "old" not in once and "onnxruntime fp32" in once and f"`{tmp_path}/results/a.json`: " in once


@pytest.mark.parametrize("text", ["no marks", BEGIN, f"{BEGIN}\n{END}\n{BEGIN}\n", BEGIN.replace("results", "poems")])
def test_a_page_without_sound_regions_is_refused_and_left_alone(text, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(InputError, match=r"page\.md has no generated region, or a damaged one"):
        renew_page(tmp_path / "page.md", [("a.json", latency_result(measurement(1, 0.01)))])
    assert (tmp_path / "page.md").read_text() == text
    with pytest.raises(InputError, match="cannot be read"):
        renew_page(tmp_path / "absent.md", [])


@pytest.mark.parametrize(
    ("page", "name"), [("benchmarks.md", "answer"), ("benchmarks.md", "results"), ("scaling.md", "scaling")]
)
def test_the_pages_of_the_documentation_are_what_the_committed_results_give(page, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, _, after = (ROOT / "docs" / page).read_text().partition(f"<!-- generated: {name};")
    generated, end, _ = after.partition("-->")[2].partition(f"<!-- end of {name} -->")
    assert end and generated.strip() == REGIONS[name](results.read_all([Path("bench/results")]))


def test_plots_go_by_batch_size_and_name_the_sizes():
    shuffled = latency_result(measurement(8, 0.04), measurement(1, 0.01), measurement(64, 0.3))
    ((_, first), (_, second), _) = plots(shuffled)
    ticks = re.findall(r"<!-- ([0-9.]+) -->", first.decode())
    assert {"1", "8", "64"} <= set(ticks)
    ordered = plots(latency_result(measurement(1, 0.01), measurement(8, 0.04), measurement(64, 0.3)))
    assert len(first) == len(ordered[0][1]) and curve(second) == curve(ordered[1][1])


def curve(svg: bytes) -> str:
    """The longest path of `svg` that is a plain line."""
    return max(re.findall(r'd="([ML0-9. \n]+)" clip-path', svg.decode()), key=len)


def test_precision_stands_against_accuracy_where_a_result_has_it():
    accuracy = {"onnxruntime fp32": asdict(Accuracy("toys", 200, 0.75, 3))}
    result = latency_result(measurement(1, 0.01)) | {"accuracy": accuracy}
    assert [title for title, _ in plots(result)][2:] == [
        "Precision against accuracy",
        "Precision against agreement with the reference",
    ]
