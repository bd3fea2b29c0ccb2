from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import environment, results
from bench.environment import clocks_line, machine_line, read_clocks
from bench.report import sections, write_html


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(environment, "nvidia_smi", lambda _: [])


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
    # cpufreq has no clock of CPU 2, so the other source is asked for both.
    folder = cpufreq(tmp_path / "cpu", cpu0=1_200_000)
    found = read_clocks(folder, info)
    assert found["cpu_mhz"] == [2000.2, 2002.2] and found["cpu_source"] == str(info)


def test_clocks_that_a_system_does_not_report_are_unknown(two_cpus, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nBogoMIPS : 50\n")
    found = read_clocks(tmp_path / "cpu", tmp_path / "cpuinfo")
    assert found["cpu_mhz"] is None and found["cpu_source"] == "this system reports none"
    assert clocks_line({"clocks_at_start": found, "clocks_at_end": found}) == (
        "CPU clocks unknown, then unknown (this system reports none)"
    )


def test_clocks_of_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
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
    assert shown in sections([("smoke.json", result)])
    write_html([("smoke.json", result)], tmp_path / "page.html")
    assert shown in (tmp_path / "page.html").read_text()


def test_a_result_from_before_clocks_were_read_is_shown_without(tmp_path):
    old = environment.describe()
    del old["clocks_at_start"]
    result = results.document("smoke", old, ratios={"a / b": 0.5})
    assert "clocks_at_end" not in result["environment"]
    assert "CPU clocks" not in sections([("smoke.json", result)])
    write_html([("smoke.json", result)], tmp_path / "page.html")


MILAN = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 2
flags\t\t: fpu avx2 sse

processor\t: 1
model\t\t: 99
"""


def test_one_name_of_several_processors_is_told_apart_by_family_and_model(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(MILAN)
    monkeypatch.setattr(environment, "processor", lambda: "AMD EPYC")
    monkeypatch.setattr(environment, "usable_cpus", lambda: 2)
    cpu = environment._cpu(tmp_path / "cpuinfo")
    kind = {"vendor": "AuthenticAMD", "family": 25, "model_number": 1, "stepping": 2}
    assert cpu == {"model": "AMD EPYC", **kind, "cores": os.cpu_count(), "cores_usable": 2, "isa": ["avx2"]}
    assert machine_line({"cpu": cpu, "gpus": []}) == "AMD EPYC (family 25, model 1), 2 cores; avx2"
    # Results from before it was read, and systems that do not say.
    old = {name: value for name, value in cpu.items() if name not in kind}
    assert machine_line({"cpu": old, "gpus": [{"name": "H100"}]}) == "AMD EPYC, 2 cores; avx2; H100"
    assert set(environment._cpu(tmp_path / "absent")) == set(old)


def test_figures_stand_beside_the_machine_that_they_are_of():
    def of(model: int, *mhz: float) -> dict:
        cpu = {"model": "AMD EPYC", "family": 25, "model_number": model, "cores_usable": 2, "isa": ["avx2"]}
        return {"cpu": cpu, "gpus": [], **({"clocks_at_start": {"cpu_mhz": list(mhz)}} if mhz else {})}

    assert environment.measured_on([("a", of(1, 2000, 2600)), ("b", of(17)), ("c", of(1, 3000))]) == (
        "Measured on AMD EPYC (family 25, model 1), 2 cores; avx2; CPU clocks 2000 to 3000 MHz: a; c. "
        "On AMD EPYC (family 25, model 17), 2 cores; avx2: b."
    )


def test_a_command_is_recorded_without_the_folders_of_its_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["/env/bin/bench", "smoke", "--bundle", "/runs/mine", "--json", f"{tmp_path}/a.json"]
    )
    assert environment.describe()["command"] == "bench smoke --bundle .../mine --json a.json"


def test_the_environment_is_json_and_names_what_counts():
    found = json.loads(json.dumps(environment.describe()))
    assert found["cpu"]["cores_usable"] >= 1 and found["packages"]["numpy"]
    assert {"load_average_at_start", "memory_bytes", "gpus", "git", "command"} <= set(found)
