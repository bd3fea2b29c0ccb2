from __future__ import annotations

import numpy as np
import pytest

from bench.timing import MAX_COV, Series, interleave, take, warnings
from ser_batch.errors import EngineError, InputError


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


def test_batches_start_again_after_the_last_clip():
    clips = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(take(clips, 2, 1), clips[[2, 0]])
    assert take(clips, 5, 0).flags.c_contiguous


class Steady:
    """An engine whose runs take a known time on a clock of its own."""

    precision, device = "fp32", "cpu"

    def __init__(self, clock: list[float], seconds: float, value: float = 0.5) -> None:
        self.name, self.clock, self.seconds, self.value = "steady", clock, seconds, value

    def run(self, waveform):
        self.clock[0] += self.seconds
        return {"only": np.full((len(waveform), 2), self.value, np.float32)}

    def close(self) -> None: ...


def test_engines_take_turns_and_ratios_are_to_the_first():
    clock = [0.0]
    engines = {"slow": Steady(clock, 0.4), "fast": Steady(clock, 0.1)}
    found = interleave(
        engines, "only", np.zeros((2, 8), np.float32), 2, rounds=4, clock=lambda: clock[0], pause=lambda _: None
    )
    assert [(c.label, c.speedup, c.clips_per_second) for c in found] == [
        ("slow", pytest.approx(1), pytest.approx(5)),
        ("fast", pytest.approx(4), pytest.approx(20)),
    ]
    assert clock[0] == pytest.approx((1 + 2 + 4) * 0.5)


def test_an_engine_that_computes_something_else_is_no_peer():
    clock = [0.0]
    engines = {"one": Steady(clock, 1), "other": Steady(clock, 1, value=0.6)}
    with pytest.raises(EngineError, match="other does not compute what the others do"):
        interleave(engines, "only", np.zeros((1, 8), np.float32), 1)
    with pytest.raises(InputError):
        interleave({}, "only", np.zeros((1, 8), np.float32), 1)
