"""Arguments and options that several commands of `bench` share."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
AUDIO = click.argument("audio", nargs=-1, required=True, type=click.Path())
BUNDLE = click.option("--bundle", type=PATH, help="Model bundle.  [default: the embedded one]")
BACKENDS = click.option(
    "--backend", "backends", multiple=True, help="NAME or NAME:PRECISION; repeatable.  [default: all]"
)
BACKEND = click.option("--backend", default="onnxruntime", show_default=True, help="NAME or NAME:PRECISION.")
THREADS = click.option("--threads", type=int, help="CPU threads of the runtime.  [default: its own choice]")
JSON = click.option("--json", "json_path", type=PATH, help="Write the result, raw values included, to this file.")
