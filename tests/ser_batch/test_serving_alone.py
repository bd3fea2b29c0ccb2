"""The main job runs where torch, torchaudio, transformers and scikit-learn cannot be imported.

CI also runs this file in an environment where none of them is installed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_batch.bundle.bundle import default_root, load_bundle

TRAINING_ONLY = ("torch", "torchaudio", "transformers", "sklearn", "onnx", "training", "export", "bench")

GUARDED = f"""
import importlib.abc, json, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {TRAINING_ONLY!r}:
            raise ImportError(f"serving imported {{name}}")
sys.meta_path.insert(0, Refuse())
from ser_batch.cli import main
try:
    main()
finally:
    loaded = sorted(name for name in sys.modules if name.split(".")[0] in {TRAINING_ONLY!r})
    print("LOADED", json.dumps(loaded), file=sys.stderr)
"""


def guarded(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", GUARDED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    loaded = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert loaded and json.loads(loaded[-1].removeprefix("LOADED ")) == [], done.stderr
    return done


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "audio"
    (folder / "deep").mkdir(parents=True)
    for name, rate in (("a.wav", 48_000), ("deep/a.flac", 16_000), ("deep/b.ogg", 44_100)):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(2 * rate).astype(np.float32), rate)
    return folder


def test_the_main_job_needs_nothing_of_training(audio: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "preds.parquet"
    done = guarded("run", audio, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["file"] for row in rows] == ["a.wav", "deep/a.flac", "deep/b.ogg"]
    for row in rows:
        total = sum(row[f"p_{label}"] for label in load_bundle().labels)
        assert row["status"] == "ok" and row["label"] in load_bundle().labels and total == pytest.approx(1, abs=1e-5)


def test_info_and_help_need_nothing_of_training() -> None:
    assert guarded("--help").returncode == 0
    done = guarded("info")
    assert done.returncode == 0 and load_bundle().id in done.stdout


def test_the_embedded_bundle_is_small_enough_to_ship() -> None:
    size = sum(path.stat().st_size for path in default_root().rglob("*") if path.is_file())
    assert size < 32e6
