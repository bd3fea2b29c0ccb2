"""What the real Python bindings of a TensorRT have, read on any machine: NVIDIA's libraries need not be there.

The bindings import nine C functions. A library of stubs takes their place, so that the module can be imported and its
classes looked at; a process of its own does that, because both TensorRTs export functions of the same names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

_STUBS = """
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *getBuilderPluginRegistry(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }
"""
_READ = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])

def members(owner, path):
    found = {}
    for name in dir(owner):
        value = getattr(owner, name)
        if isinstance(value, property):
            found[name] = ["property" if value.fset is None else "settable", value.fget.__doc__ or ""]
        elif isinstance(value, type):
            found[name] = ["class", ""]
            if value.__module__.startswith(trt.__name__):
                classes[path + name] = members(value, path + name + ".")
        else:
            found[name] = ["method" if callable(value) else "value", getattr(value, "__doc__", None) or ""]
    return found

classes = {}
classes[""] = members(trt, "")
json.dump(classes, sys.stdout)
"""


@dataclass(frozen=True)
class Bindings:
    """The Python bindings of a TensorRT, and the libraries that they load."""

    module: str
    libraries: str
    """The module that brings the real ones."""
    sonames: tuple[str, ...]
    """{}: the major version of the bindings."""


NATIVE = Bindings(
    "tensorrt_bindings", "tensorrt_libs", ("libnvinfer.so.{}", "libnvinfer_plugin.so.{}", "libnvonnxparser.so.{}")
)
RTX = Bindings(
    "tensorrt_rtx_bindings", "tensorrt_rtx_libs", ("libtensorrt_rtx.so.{}", "libtensorrt_onnxparser_rtx.so.{}")
)


class Interface:
    """The classes of a real module: path ("ILogger.Severity"; "": the module) → name → its kind and documentation."""

    def __init__(self, classes: dict[str, dict[str, list[str]]]) -> None:
        self.classes = classes

    def has(self, owner: str, name: str) -> bool:
        return name in self.classes.get(owner, {})

    def kind(self, owner: str, name: str) -> str:
        """ "class", "method", "property", "settable" (a property too) or "value"."""
        return self.classes[owner][name][0]

    def gives(self, owner: str, name: str) -> str | None:
        """The class of a property's value, or of what a method returns; None if it is none of the module's."""
        found = re.search(r"-> (\S+)", self.classes[owner][name][1])
        # The bindings know the parser's errors by the name that they have in C++: nvonnxparser::IParserError.
        last = re.split(r"[.:]", found[1])[-1] if found else ""
        return next((path for path in (last, last.removeprefix("I")) if path and path in self.classes), None)

    def arguments(self, owner: str, name: str) -> list[tuple[int, int]]:
        """For each overload of a method, how many arguments it must and can be given, less `self`."""
        found = []
        for line in self.classes[owner][name][1].splitlines():
            if (call := re.match(rf"(?:\d+\. )?{name}\((self: .*)\) -> ", line)) is not None:
                parameters = self._parameter.findall(call[1])[1:]
                found.append((sum(" = " not in each for each in parameters), len(parameters)))
        return found

    @cached_property
    def _parameter(self) -> re.Pattern[str]:
        return re.compile(r"\w+: (?:\[[^]]*\]|<[^>]*>|[^,\[<])+")


def read_interface(bindings: Bindings, folder: Path) -> Interface:
    """Import `bindings` in a process of its own; the test is skipped where they are not installed."""
    return Interface(json.loads(run_with(bindings, folder, _READ)))


def run_with(bindings: Bindings, folder: Path, script: str) -> str:
    """What a script prints that imports `bindings`, its first argument; stubs are built in `folder` if need be."""
    if importlib.util.find_spec(bindings.module) is None:
        pytest.skip(f"{bindings.module} is not installed: pip install -e '.[dev]', on Linux on x86-64")
    environment = dict(os.environ)
    if importlib.util.find_spec(bindings.libraries) is None:
        build_stubs(bindings, folder)
        environment["LD_LIBRARY_PATH"] = str(folder)
    done = subprocess.run(
        [sys.executable, "-c", script, bindings.module], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_stubs(bindings: Bindings, folder: Path) -> None:
    """Compile libraries of stubs, under the names that `bindings` ask for."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("there is no C compiler (cc) for stubs of NVIDIA's libraries, which are not installed")
    distribution = packages_distributions()[bindings.module][0]
    (folder / "stubs.c").write_text(_STUBS)
    for soname in (each.format(version(distribution).partition(".")[0]) for each in bindings.sonames):
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", folder / soname, folder / "stubs.c"]
        subprocess.run(command, check=True, capture_output=True)
