from __future__ import annotations

import pytest

from bench.peak import Peak, best, best_rate, measure_peaks, torch_peaks
from ser_batch.errors import EngineError


def test_the_best_peak_is_of_that_precision_and_device():
    peaks = [Peak("a", "fp32", "cpu", 8, 1.0), Peak("b", "fp32", "cpu", 8, 2.0), Peak("b", "fp32", "cuda", 8, 9.0)]
    assert best(peaks, "fp32", "cpu") == peaks[1] and best(peaks, "bf16", "cpu") is None
    calls: list[int] = []
    assert best_rate(lambda: calls.append(1), 10) > 0 and len(calls) == 6


def test_torch_is_measured_in_every_precision():
    pytest.importorskip("torch")
    peaks = torch_peaks("cpu", size=32)
    assert [peak.precision for peak in peaks] == ["fp32", "bf16", "fp16"] and all(peak.flops > 0 for peak in peaks)


def test_a_gpu_that_torch_does_not_see_is_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="sees no CUDA device"):
        torch_peaks("cuda")


def test_peaks_come_from_a_process_of_their_own(monkeypatch):
    peaks = measure_peaks("cpu", small=True)
    assert peaks[0].library == "numpy" and {peak.size for peak in peaks} == {128}
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EngineError, match="cannot be measured on cpu"):
        measure_peaks("cpu")
