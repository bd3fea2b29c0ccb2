from __future__ import annotations

import numpy as np
import pytest

from bench.samples import MAX_COV, Series, warnings
from ser_batch.errors import InputError


def test_figures_follow_from_the_raw_values():
    raw = np.random.default_rng(0).gamma(2.0, 0.01, 101).tolist()
    series = Series.of(raw)
    ordered = sorted(raw)
    # 101 values: each percentile is a value, no interpolation needed.
    assert (series.median, series.p90, series.p95, series.p99) == pytest.approx([ordered[i] for i in (50, 90, 95, 99)])
    assert series.n == 101 and series.min == ordered[0] and series.raw == tuple(raw)
    assert series.sd == pytest.approx(np.std(raw, ddof=1)) and series.cov == pytest.approx(series.sd / np.mean(raw))


def test_one_value_has_no_spread_and_none_is_refused():
    one = Series.of([0.5])
    assert (one.sd, one.cov, one.p99) == (0.0, 0.0, 0.5)
    assert warnings({"total": one}) == ["one timing only: no spread is known"]
    with pytest.raises(InputError, match="nothing to summarise"):
        Series.of([])


def stages(**medians: float) -> dict[str, Series]:
    return {name: Series.of([value] * 5) for name, value in medians.items()}


def test_a_steady_compute_bound_series_has_no_warnings():
    assert warnings(stages(total=1.0, compute=0.9, host_to_device=0.05, device_to_host=0.01, enqueue=0.1)) == []


def test_warnings_name_what_is_wrong():
    shaky = Series.of([1.0, 1.0 + 4 * MAX_COV])
    (unstable,) = warnings({"total": shaky})
    assert unstable.startswith("unstable")
    (transfer,) = warnings(stages(total=1.0, compute=0.4, host_to_device=0.3, device_to_host=0.2))
    assert transfer.startswith("transfer-bound")
    (enqueue,) = warnings(stages(total=1.0, compute=0.5, enqueue=0.5))
    assert enqueue.startswith("enqueue-bound")
