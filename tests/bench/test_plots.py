from __future__ import annotations

import re
from dataclasses import asdict

from bench.backends import Accuracy
from bench.plots import plots
from support.toy_measurements import latency_result, measurement


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
