from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from bench import results
from bench.cli import main
from bench.commands import finish
from bench.results import compare
from ser_batch.errors import InputError, OutputError
from support.toy_measurements import latency_result, measurement


def test_a_result_comes_back_as_it_was_written(tmp_path):
    result = latency_result(measurement(1, 0.01), measurement(8, 0.04))
    results.write(result, tmp_path / "new" / "a.json")
    assert results.read(tmp_path / "new" / "a.json") == result
    assert result["measurements"][1]["stages"]["total"]["raw"] == [0.04] * 3


def test_what_is_written_names_no_folder_of_this_machine(tmp_path):
    reason = "bundle x has no int8 graph. Make it: ser-export quantize /runs/secret/bundle --precision int8"
    surroundings = {"clocks_at_start": {"cpu_source": "/proc/cpuinfo"}}
    result = results.document("startup", surroundings, commands=[{"warnings": ["/a/b.so"]}], absent={"trt": reason})
    results.write(result, tmp_path / "a.json")
    kept = results.read(tmp_path / "a.json")
    assert kept["absent"]["trt"].endswith("quantize .../bundle --precision int8")
    assert kept["commands"] == [{"warnings": [".../b.so"]}]
    assert kept["environment"]["clocks_at_start"] == surroundings["clocks_at_start"]
    assert result["absent"]["trt"] == reason


def test_two_machines_are_named_where_results_are_compared(tmp_path, capsys):
    for name, model in (("a", 1), ("b", 17)):
        result = latency_result(measurement(1, 0.01))
        result["environment"]["cpu"] |= {"family": 25, "model_number": model}
        results.write(result, tmp_path / f"{name}.json")
    assert main(["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json"]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("note: measured on ") and "model 1)" in shown and "model 17)" in shown
    assert main(["compare", f"{tmp_path}/a.json", f"{tmp_path}/a.json"]) == 0
    assert not capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_still_shown(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        finish(latency_result(measurement(1, 0.01)), tmp_path / "file" / "a.json")
    assert "Latency, ms per batch" in capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.json"
    for text in (
        *("{", "[]", '{"kind": "poem"}', '{"kind": "latency", "schema_version": 0}'),
        '{"kind": "latency", "kind": "latency", "schema_version": 1}',
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.json"):
            results.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        results.read(tmp_path / "absent.json")
    with pytest.raises(OutputError):
        results.write(latency_result(measurement(1, 0.01)), path / "below-a-file.json")


def test_files_and_folders_of_results_are_read_in_order_and_none_is_an_error(tmp_path):
    for number, name in enumerate(("b.json", "a.json", "c.json")):
        results.write(results.document("smoke", {}, ratios={"a / b": number}), tmp_path / "folder" / name)
    found = results.read_all([tmp_path / "folder" / "c.json", tmp_path / "folder"])
    assert [name for name, _ in found] == [f"{tmp_path}/folder/{name}.json" for name in "cabc"]
    assert [result["ratios"]["a / b"] for _, result in found] == [2, 1, 0, 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no results to show; got .*empty"):
        results.read_all([tmp_path / "empty"])


def test_the_parquet_table_holds_every_raw_value(tmp_path):
    results.write_parquet(latency_result(measurement(1, 0.01), measurement(8, 0.04)), tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 3
    assert {(row["batch"], row["stage"], row["turn"]) for row in rows} == {
        (batch, stage, turn) for batch in (1, 8) for stage in ("total", "compute") for turn in range(3)
    }
    with pytest.raises(InputError, match="no raw timings"):
        results.write_parquet(results.document("smoke", {}, ratios={}), tmp_path / "b.parquet")


def test_rows_of_a_retrained_bundle_match():
    before = latency_result(measurement(1, 0.02), measurement(2, 0.02))
    after = latency_result(measurement(1, 0.01, "toy-111111111111"), measurement(8, 0.02, "toy-111111111111"))
    found = compare(before, after)
    (ratio,) = found.ratios
    assert (ratio.first, ratio.second, ratio.ratio) == pytest.approx((50, 100, 2))
    assert "batch 1" in ratio.key and "batch 2" in found.only_first[0] and "batch 8" in found.only_second[0]
    with pytest.raises(InputError, match="different kinds"):
        compare(before, results.document("startup", {}, commands=[]))
    with pytest.raises(InputError, match="share no row"):
        compare(before, latency_result(measurement(64, 0.1)))
