from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import clocks, environment, page, report, results
from bench.clocks import clocks_line, read_clocks


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(clocks, "nvidia_smi", lambda _: [])


def cpufreq(folder: Path, **khz: int) -> Path:
    for cpu, clock in khz.items():
        file = folder / cpu / "cpufreq" / "scaling_cur_freq"
        file.parent.mkdir(parents=True)
        file.write_text(f"{clock}\n")
    return folder


def test_cpufreq_is_asked_first_and_only_of_the_cpus_in_use(two_cpus, tmp_path):
    folder = cpufreq(tmp_path / "cpu", cpu0=1_200_000, cpu1=9_000_000, cpu2=3_400_500)
    assert read_clocks(folder, tmp_path / "cpuinfo") == {
        "cpu_mhz": [1200, 3400.5],
        "cpu_source": str(folder),
        "gpus": [],
    }


def test_cpuinfo_is_asked_next(two_cpus, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("".join(f"processor\t: {n}\nmodel name\t: X\ncpu MHz\t\t: {2000.25 + n}\n\n" for n in range(3)))
    # A CPU in use whose clock is not stated is no reason to leave it out.
    folder = cpufreq(tmp_path / "cpu", cpu0=1_200_000)
    found = read_clocks(folder, info)
    assert found["cpu_mhz"] == [2000.2, 2002.2] and found["cpu_source"] == str(info)


def test_what_is_not_stated_is_said_and_not_made_up(two_cpus, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nBogoMIPS : 50\n")
    found = read_clocks(tmp_path / "cpu", tmp_path / "cpuinfo")
    assert found["cpu_mhz"] is None and found["cpu_source"] == "not stated by this system"
    assert clocks_line({"clocks_at_start": found, "clocks_at_end": found}) == (
        "CPU clocks unknown, then unknown (not stated by this system)"
    )


def test_gpus_are_told_as_nvidia_smi_tells_them(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '1980 MHz, 2619 MHz, 1980 MHz'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = read_clocks()
    assert found["gpus"] == [{"clocks.sm": "1980 MHz", "clocks.mem": "2619 MHz", "clocks.max.sm": "1980 MHz"}]
    slower = {**found, "gpus": [{**found["gpus"][0], "clocks.sm": "1200 MHz"}]}
    line = clocks_line({"clocks_at_start": found, "clocks_at_end": slower})
    assert line is not None and line.endswith("GPU clock 1980 MHz, then 1200 MHz")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert read_clocks()["gpus"] == []


def test_a_result_holds_the_clocks_of_both_ends_and_the_pages_show_them(tmp_path, monkeypatch):
    readings = iter([2600.0, 1400.0])
    monkeypatch.setattr(
        environment, "read_clocks", lambda: {"cpu_mhz": [next(readings)], "cpu_source": "test", "gpus": []}
    )
    result = results.document("smoke", environment.describe(), ratios={})
    assert json.loads(json.dumps(result))["environment"]["clocks_at_end"]["cpu_mhz"] == [1400]
    shown = "CPU clocks 2600 MHz, then 1400 MHz (test)"
    assert shown in page.region([("smoke.json", result)])
    report.write_report([("smoke.json", result)], tmp_path / "page.html")
    assert shown in (tmp_path / "page.html").read_text()


def test_a_result_from_before_clocks_were_read_is_shown_without(tmp_path):
    old = environment.describe()
    del old["clocks_at_start"]
    result = results.document("smoke", old, ratios={"a / b": 0.5})
    assert "clocks_at_end" not in result["environment"]
    assert "CPU clocks" not in page.region([("smoke.json", result)])
    report.write_report([("smoke.json", result)], tmp_path / "page.html")
