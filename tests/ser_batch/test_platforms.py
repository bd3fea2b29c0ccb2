"""What runs where people are: other systems, closed streams, small or read-only file systems, users without a home."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.bundle.bundle import Bundle

UNIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses", "readline", "posixshmem")
IMPORT_ALL = f"""
import importlib, json, pkgutil, sys
sys.modules.update(dict.fromkeys({UNIX_ONLY!r}))
import ser_batch
ours, imported, failed = "ser_batch", [], {{}}
for module in pkgutil.walk_packages(ser_batch.__path__, "ser_batch."):
    if module.name == "ser_batch.__main__":
        continue
    try:
        importlib.import_module(module.name)
        imported.append(module.name)
    except ImportError as error:
        failed[module.name] = error.name
print(json.dumps([imported, failed]))
"""
FEWEST = "workers=1, backend='onnxruntime'"
"""Options of a run that imports and starts no more than it must; without them it imports every runtime."""
OPTIONAL = {"ray", "altair", "jinja2"}
"""Packages of extras that a module may need at once."""


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "audio" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32), 16_000)
    return path


def labelled(out: Path) -> bool:
    rows = pq.read_table(out).to_pylist()
    return [row["status"] for row in rows] == ["ok"]


def test_every_module_is_imported_without_what_only_unix_has() -> None:
    done = run(sys.executable, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    imported, failed = json.loads(done.stdout)
    assert set(failed.values()) <= OPTIONAL, failed
    assert {"ser_batch.cli", "ser_batch.output.stores", "ser_batch.decode.pool", "ser_batch.pipeline.run"} <= set(
        imported
    )


@pytest.mark.parametrize(
    ("closed", "options"), [("2>&-", FEWEST), ("<&-", FEWEST), (">&-", FEWEST), ("<&- >&- 2>&-", "")]
)
def test_the_library_decodes_where_standard_streams_are_closed(
    closed: str, options: str, clip: Path, toy_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    code = f"import sys, ser_batch; ser_batch.run(sys.argv[1], out=sys.argv[2], bundle=sys.argv[3], {options})"
    given = (sys.executable, code, clip, out, toy_bundle.root)
    done = run("sh", "-c", f'exec "$0" -c "$1" "$2" "$3" "$4" {closed}', *given)
    assert done.returncode == 0, done.stderr
    assert labelled(out)


def test_an_environment_with_nothing_in_it(clip: Path, toy_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    done = run(sys.executable, "-m", "ser_batch", "run", clip, "--out", out, "--bundle", toy_bundle.root, env={})
    assert done.returncode == 0, done.stderr
    assert labelled(out)


def test_a_user_without_a_name_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    from ser_batch import machine

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert not machine.cache_folder().exists()
    assert not machine.data_folder().exists()


def test_a_container_under_a_number(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    user = ("unshare", "-U", "--map-user=12345", "env", "-i")
    if shutil.which("unshare") is None or run(*user, sys.executable, "-c", "").returncode:
        pytest.skip("there are no users without a name here")
    done = run(*user, sys.executable, "-c", "import pathlib; pathlib.Path.home()")
    assert "home directory" in done.stderr
    done = run(*user, sys.executable, "-m", "ser_batch", "run", clip, "--out", out)
    assert done.returncode == 0, done.stderr
    assert labelled(out)
    if importlib.util.find_spec("openvino"):
        code = "from ser_batch.engines.openvino import _core; _core()"
        assert run(*user, sys.executable, "-c", code).returncode == 0


def in_a_namespace(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A shell script among mounts of its own; skips where that is not allowed."""
    if os.name != "posix" or shutil.which("unshare") is None or run("unshare", "-m", "true").returncode:
        pytest.skip("mounts need unshare, and the right to")
    done = run("unshare", "-m", "sh", "-c", f"set -e; {script}", sys.executable, *arguments)
    if "mount" in done.stderr and "denied" in done.stderr:
        pytest.skip("mounts are not allowed")
    return done


def test_a_container_with_64_mb_of_shared_memory_and_nothing_else_to_write(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "result" / "out.parquet"
    out.parent.mkdir()
    # As of `docker run --read-only --shm-size 64m -v result:…`: what the run writes is its output alone.
    script = f"""
        mount -t tmpfs -o size=64m none /dev/shm
        mount -o remount,ro,bind / /
        for folder in /tmp /root; do mount --bind $folder $folder; mount -o remount,ro,bind $folder; done
        mount --bind {out.parent} {out.parent}; mount -o remount,rw,bind {out.parent}
        if touch {tmp_path}/x 2>/dev/null; then echo "not read-only"; exit 9; fi
        HOME=/root "$0" -B -m ser_batch run "$1" --out "$2" --workers 4
    """
    done = in_a_namespace(script, clip, out)
    if done.returncode == 9 or "mount:" in done.stderr:
        pytest.skip(f"no such mounts here: {done.stdout or done.stderr}")
    assert done.returncode == 0, done.stderr
    assert labelled(out)


def test_an_output_that_cannot_be_written_is_said_before_any_work(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ro"
    folder.mkdir()
    done = in_a_namespace(
        f'mount -t tmpfs -o ro none {folder}; "$0" -m ser_batch run "$1" --out "$2"', clip, folder / "out.parquet"
    )
    if "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
