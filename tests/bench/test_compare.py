from __future__ import annotations

import pytest

from bench import results
from bench.compare import compare
from ser_batch.errors import InputError
from support.toy_measurements import latency_result, measurement


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
