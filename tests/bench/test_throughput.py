from __future__ import annotations

import pytest

from bench import results
from bench.tables import tables
from bench.throughput import measure_memory, measure_throughput
from ser_batch.errors import InputError
from ser_batch.recordings.find import find_recordings


def test_the_pipeline_stands_beside_the_engine_and_the_decoder(toy_bundle, noises):
    (found,) = measure_throughput(
        toy_bundle, find_recordings([noises]), ["onnxruntime"], workers=[1], batch=2, repeats=2
    )
    assert (found.files, found.failures, found.seconds.n, found.workers) == (3, 0, 2, 1)
    assert found.files_per_second == pytest.approx(3 / found.seconds.median)
    assert found.engine_share == pytest.approx(found.files_per_second / found.engine_clips_per_second)
    assert found.startup_seconds < found.seconds.median and 0 <= found.finish_seconds < found.seconds.median
    assert found.steady_share == pytest.approx(found.steady_files_per_second / found.engine_clips_per_second)
    # The pipeline's processes do all that engine and decoder do alone, and start besides.
    assert found.cpu_seconds["pipeline"] > found.cpu_seconds["decode"] > 0 < found.cpu_seconds["engine"]
    assert found.bottleneck[0] in ("decode", "engine", "write")
    (table,) = tables(results.document("throughput", {}, measurements=[found]))
    assert len(table.rows[0]) == len(table.columns)
    assert found.audio_hours == pytest.approx(3 * 2.5 / 3600) or found.audio_hours == pytest.approx(3 * 3 / 3600)


def test_memory_is_that_of_a_run_of_its_own_on_so_many_files(toy_bundle, noises):
    (found,) = measure_memory(find_recordings([noises]), [4], toy_bundle.root, "onnxruntime:fp32")
    assert found.files == 4 and found.seconds > 0 and found.peak_rss > 1e7
    with pytest.raises(InputError, match="at least 1"):
        next(measure_memory(find_recordings([noises]), [4, 0], toy_bundle.root, "onnxruntime:fp32"))
