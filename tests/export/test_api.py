"""`export.export_run` and `export.verify`, and the light import of the package."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import export
import training
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import OutputError, SerError
from support.commands import REPOSITORY


@pytest.mark.usefixtures("exported_before")
def test_a_run_becomes_a_bundle_that_equals_it(toy_run: Path, tmp_path: Path) -> None:
    made: list[str] = []
    bundle = export.export_run(str(toy_run), tmp_path / "bundle", progress=lambda each: made.append(str(each)))
    assert bundle.root == tmp_path / "bundle" and bundle.labels == training.load_run(toy_run).labels
    assert [line.partition(":")[0] for line in made] == ["wav2vec2", "spectrogram"] and "max |Δp| to torch" in made[0]
    found = export.verify(bundle.root, run=toy_run, backends=["onnxruntime"], threads=1)
    assert found.passed and found.failures == () and "torch" in {c.engine for c in found.report.comparisons}
    with pytest.raises(OutputError, match="exists already"):
        export.export_run(toy_run, tmp_path / "bundle")


def test_what_is_no_run_is_refused(tmp_path: Path, toy_bundle: Bundle) -> None:
    with pytest.raises(SerError, match="is not a finished run"):
        export.export_run(tmp_path, tmp_path / "bundle")
    with pytest.raises(SerError, match="is not a finished run"):
        export.verify(toy_bundle.root, run=tmp_path)


@pytest.mark.parametrize("package", ["export", "training"])
def test_importing_the_package_imports_nothing_and_every_name_is_there(package: str) -> None:
    code = f"import sys, {package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert package in done.stdout.split()
    assert not set(done.stdout.split()) & {"numpy", "torch", "onnx", "pyarrow", "click"}
    stub, found = (REPOSITORY / package / "__init__.pyi").read_text(), importlib.import_module(package)
    assert set(re.findall(r"import \w+ as (\w+)", stub)) == set(found.__all__)
    assert all(getattr(found, name) for name in found.__all__)
