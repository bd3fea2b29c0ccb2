from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import pyarrow.parquet as pq
import pytest

from bench import environment, page, results
from bench.accuracy import Accuracy, speech_accuracy
from bench.agreement import Agreement
from bench.compare import compare
from bench.console import finish
from bench.interleave import Candidate
from bench.latency import CLOSED, Measurement
from bench.peak import Peak, best, best_rate
from bench.peers.graphs import Graph
from bench.plots import plots
from bench.report import write_report
from bench.samples import Series
from bench.smoke import deltas
from bench.startup import Startup
from bench.tables import markdown, tables
from ser_batch.errors import InputError, OutputError
from support.certificates import entry_of, speech_of, write_certificate


def measurement(batch: int, seconds: float, bundle: str = "toy-000000000000") -> Measurement:
    total = Series.of([seconds] * 3)
    return Measurement(
        bundle=bundle,
        backend="onnxruntime",
        precision="fp32",
        device="cpu",
        target="fused",
        batch=batch,
        mode=CLOSED,
        warmup=3,
        stages={"total": total, "compute": total},
        clips_per_second=batch / seconds,
        real_time_factor=3 * batch / seconds,
        flops_per_clip=2_000_000_000,
        peak_share=0.5,
        peak_rss=2**20,
        device_memory=None,
        warnings=["unstable: <b>"],
    )


def latency(*measurements: Measurement) -> results.Document:
    peaks = [Peak("numpy", "fp32", "cpu", 8, 1e9)]
    content = {"agreement": {"onnxruntime fp32": Agreement(6, 1e-6, 0)}, "absent": {"warp": "not installed"}}
    return results.document("latency", environment.describe(), measurements=list(measurements), peaks=peaks, **content)


def test_a_result_comes_back_as_it_was_written(tmp_path):
    result = latency(measurement(1, 0.01), measurement(8, 0.04))
    results.write(result, tmp_path / "new" / "a.json")
    assert results.read(tmp_path / "new" / "a.json") == result
    assert result["measurements"][1]["stages"]["total"]["raw"] == [0.04] * 3


def test_a_result_that_cannot_be_written_is_still_shown(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        finish(latency(measurement(1, 0.01)), tmp_path / "file" / "a.json")
    assert "Latency, ms a batch" in capsys.readouterr().out


def test_what_is_no_result_is_refused(tmp_path):
    path = tmp_path / "a.json"
    for text in ("{", "[]", '{"kind": "poem"}', '{"kind": "latency", "schema_version": 0}'):
        path.write_text(text)
        with pytest.raises(InputError):
            results.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        results.read(tmp_path / "absent.json")
    with pytest.raises(OutputError):
        results.write(latency(measurement(1, 0.01)), path / "below-a-file.json")


def test_the_parquet_table_holds_every_raw_value(tmp_path):
    results.write_parquet(latency(measurement(1, 0.01), measurement(8, 0.04)), tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 3
    assert {(row["batch"], row["stage"], row["turn"]) for row in rows} == {
        (batch, stage, turn) for batch in (1, 8) for stage in ("total", "compute") for turn in range(3)
    }
    with pytest.raises(InputError, match="no raw timings"):
        results.write_parquet(results.document("smoke", {}, ratios={}), tmp_path / "b.parquet")


def test_compare_matches_rows_of_a_retrained_bundle():
    before = latency(measurement(1, 0.02), measurement(2, 0.02))
    after = latency(measurement(1, 0.01, "toy-111111111111"), measurement(8, 0.02, "toy-111111111111"))
    found = compare(before, after)
    (ratio,) = found.ratios
    assert (ratio.first, ratio.second, ratio.ratio) == pytest.approx((50, 100, 2))
    assert "batch 1" in ratio.key and "batch 2" in found.only_first[0] and "batch 8" in found.only_second[0]
    with pytest.raises(InputError, match="different kinds"):
        compare(before, results.document("startup", {}, commands=[]))
    with pytest.raises(InputError, match="share no row"):
        compare(before, latency(measurement(64, 0.1)))


def test_the_report_is_one_page_with_its_plots(tmp_path):
    write_report([("a.json", latency(measurement(1, 0.01), measurement(8, 0.04)))], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/svg+xml;base64,") == 3
    assert (
        "onnxruntime, fp32, fused, batch 8, closed loop: unstable: &lt;b&gt;" in text
        and "left out: warp: not installed" in text
    )
    assert "http" not in text.replace("http-equiv", "")


def test_plots_go_by_batch_size_and_name_the_sizes():
    ((_, first), (_, second), _) = plots(latency(measurement(8, 0.04), measurement(1, 0.01), measurement(64, 0.3)))
    ticks = re.findall(r"<!-- ([0-9.]+) -->", first.decode())
    assert {"1", "8", "64"} <= set(ticks)
    ordered = plots(latency(measurement(1, 0.01), measurement(8, 0.04), measurement(64, 0.3)))
    assert len(first) == len(ordered[0][1]) and curve(second) == curve(ordered[1][1])


def curve(svg: bytes) -> str:
    """The longest path of `svg` that is a plain line."""
    return max(re.findall(r'd="([ML0-9. \n]+)" clip-path', svg.decode()), key=len)


def test_device_memory_is_shown_where_an_engine_tells_it():
    on_gpu = replace(measurement(8, 0.04), device="cuda", device_memory=3 * 2**20)
    table = tables(latency(measurement(1, 0.01), on_gpu))[0]
    column = table.columns.index("device memory")
    assert [row[column] for row in table.rows] == ["–", "3 MiB"]
    assert "device memory" not in tables(latency(measurement(1, 0.01)))[0].columns


def test_precision_stands_against_accuracy_where_the_bundle_has_a_certificate(toy_bundle, tmp_path):
    assert speech_accuracy(toy_bundle) == {}
    bundle = replace(toy_bundle, root=tmp_path)
    member, digest = next(iter(bundle.manifest.files.items()))
    entry = entry_of(
        backend="onnxruntime", precision="fp32", graphs={member: digest}, speech=speech_of(200, 3, accuracy=0.75)
    )
    stale = replace(entry, precision="int8", graphs={member: "0"})
    without_speech = replace(entry, precision="bf16", speech=None)
    certificate = write_certificate(bundle, entry, stale, without_speech)
    found = speech_accuracy(bundle)
    assert found == {"onnxruntime fp32": Accuracy("toys", 200, 0.75, 3)}
    result = latency(measurement(1, 0.01)) | {"accuracy": {k: asdict(a) for k, a in found.items()}}
    assert [title for title, _ in plots(result)][2:] == [
        "Precision against accuracy",
        "Precision against agreement with the reference",
    ]
    certificate.write_text("{}")
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        speech_accuracy(bundle)


def test_markdown_has_a_cell_for_every_column():
    for table in tables(latency(measurement(1, 0.01))):
        widths = {line.count(" | ") for line in markdown(table).splitlines()}
        assert widths == {len(table.columns) - 1}


def test_every_kind_of_result_has_a_section_and_missing_ones_say_so(tmp_path):
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
    text = page.region([(f"{d['kind']}.json", d) for d in documents])
    assert text.count("No result committed yet") == len(results.KINDS) - 3
    assert "| ser-batch --help | 0.150 |" in text and "| a / b | 0.500 |" in text and "| torch eager fp32 |" in text


def test_graphs_of_peers_are_shown_where_a_result_knows_of_them():
    graph = Graph("optimum-onnx 0.1.0", "16 kHz, z-normed", 438, 18)
    before = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2")
    assert [table.title for table in tables(before)] == ["Peers, branch wav2vec2 of toy"]
    after = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2", graphs=[graph])
    assert tables(after)[1].rows == [("optimum-onnx 0.1.0", "16 kHz, z-normed", "438", "18")]


def test_only_the_generated_region_of_the_page_changes(tmp_path):
    target = tmp_path / "benchmarks.md"
    target.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    results.write(latency(measurement(1, 0.01)), tmp_path / "results" / "a.json")
    page.write_page(target, tmp_path / "results")
    once = target.read_text()
    page.write_page(target, tmp_path / "results")
    assert target.read_text() == once
    assert once.startswith("before\n") and once.endswith("after\n") and "old" not in once and "onnxruntime fp32" in once
    target.write_text("no marks")
    with pytest.raises(InputError, match="no generated region"):
        page.write_page(target, tmp_path / "results")


def test_the_page_of_the_documentation_is_what_the_committed_results_give():
    text = page.PAGE.read_text()
    generated = text[text.index(page.BEGIN) + len(page.BEGIN) : text.index(page.END)].strip()
    assert generated == page.region(results.committed())


def test_the_environment_is_json_and_names_what_counts():
    found = json.loads(json.dumps(environment.describe()))
    assert found["cpu"]["cores_usable"] >= 1 and found["packages"]["numpy"]
    assert {"load_average_at_start", "memory_bytes", "gpus", "git", "command"} <= set(found)


def test_the_best_peak_is_of_that_precision_and_device():
    peaks = [Peak("a", "fp32", "cpu", 8, 1.0), Peak("b", "fp32", "cpu", 8, 2.0), Peak("b", "fp32", "cuda", 8, 9.0)]
    assert best(peaks, "fp32", "cpu") == peaks[1] and best(peaks, "bf16", "cpu") is None
    calls: list[int] = []
    assert best_rate(lambda: calls.append(1), 10) > 0 and len(calls) == 6


def test_smoke_shows_changes_from_what_is_committed():
    now = {"a": 1.1, "new": 2.0}
    assert deltas(now, {"a": 1.0, "gone": 3.0}) == [("a", 1.1, pytest.approx(0.1)), ("new", 2.0, None)]
    assert deltas(now, None) == [("a", 1.1, None), ("new", 2.0, None)]
