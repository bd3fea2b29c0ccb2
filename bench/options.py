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
WORKERS = click.option("--workers", type=int, help="Decode processes.  [default: one a CPU]")
BATCH_SIZE = click.option("--batch-size", default=16, show_default=True, help="Clips scored together.")
ROUNDS = click.option("--repeats", default=3, show_default=True, help="Rounds timed, after one of warm-up.")
THREADS = click.option("--threads", type=int, help="CPU threads of the runtime.  [default: its own choice]")
SIZE = click.option("--size", default="base", show_default=True, help="Random weights: small, compact or base.")
RUN = click.option("--run", "run_folder", type=PATH, help="The weights of this training run instead.")
SEED = click.option("--seed", default=0, show_default=True, help="Of the random weights.")
JSON = click.option("--json", "json_path", type=PATH, help="Write the result, raw values included, to this file.")
