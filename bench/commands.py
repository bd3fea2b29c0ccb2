"""The commands of `bench` that measure: each parses, measures, prints tables and, with --json, writes its result.

What measures is imported inside the commands, so that `--help` is quick and only the peers and training need torch.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.results import Document
    from ser_batch.bundle.bundle import Bundle
    from ser_batch.recordings.recording import Recording

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


def _above_zero(name: str, default: float | None, metavar: str, text: str) -> Callable[..., Any]:
    def check(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
        if value is not None and not 0 < value < math.inf:
            raise click.BadParameter(f"{value} is not above 0")
        return value

    return click.option(
        name, type=float, default=default, show_default=True, metavar=metavar, callback=check, help=text
    )


def _find_audio(_: click.Context, __: click.Parameter, given: Sequence[str]) -> Sequence[Recording]:
    from ser_batch.recordings.find import find_recordings

    return find_recordings(given) if given else []


def _load_bundle(_: click.Context, __: click.Parameter, path: Path | None) -> Bundle:
    from ser_batch.bundle.bundle import load_bundle

    return load_bundle(path)


def _count(name: str, default: int | None, text: str, shown: str | bool = True) -> Callable[..., Any]:
    return click.option(name, type=COUNT, metavar="N", default=default, show_default=shown, help=text)


def _counts(name: str, parameter: str, text: str, shown: str | bool = False) -> Callable[..., Any]:
    text = f"{text}; repeatable."
    return click.option(name, parameter, type=COUNT, metavar="N", multiple=True, show_default=shown, help=text)


AUDIO = click.argument("recordings", metavar="AUDIO...", nargs=-1, required=True, callback=_find_audio)
SOME_AUDIO = click.argument("recordings", metavar="[AUDIO]...", nargs=-1, callback=_find_audio)
BUNDLE = click.option(
    "--bundle", type=PATH, callback=_load_bundle, show_default="the embedded one", help="Folder of the model bundle."
)
BACKENDS = click.option(
    *("--backend", "backends"),
    metavar="NAME[:PRECISION]",
    multiple=True,
    show_default="all that run here",
    help="Runtime to measure; repeatable.",
)
BACKEND = click.option(
    "--backend", metavar="NAME[:PRECISION]", default="onnxruntime", show_default=True, help="Runtime to measure."
)
WORKERS = _count("--workers", None, "Decode processes.", "one per CPU")
BATCH = click.option(
    "--batch-size", "batch", type=COUNT, metavar="N", default=16, show_default=True, help="Clips scored together."
)
REPEATS = _count("--repeats", 3, "Rounds timed, after one of warm-up.")
THREADS = _count("--threads", None, "CPU threads of the runtime.", "its own choice")
SIZE = click.option("--size", default="base", show_default=True, help="Size of the model: small, compact or base.")
RUN = click.option("--run", "run_folder", type=PATH, help="Take the weights of this training run, not random ones.")
SEED = click.option("--seed", default=0, show_default=True, help="Seed of the random weights.")
DEVICE = click.option("--device", default="cpu", show_default=True, help="Device of torch: cpu or cuda.")
JSON = click.option("--json", "json_path", type=PATH, help="Write the result, raw values included, to this file.")
PARQUET = click.option("--parquet", type=PATH, help="Write the raw values as a Parquet table to this file.")


def measurement(*options: Callable[..., Any]) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """Turn a function that returns the content of a result into a command that prints the result and may write it.

    The name of the function is the kind of the result, its docstring the help of the command.
    """

    def decorate(measure: Callable[..., dict[str, Any]]) -> click.Command:
        def command(json_path: Path | None, parquet: Path | None = None, **given: Any) -> None:
            from bench import environment, results

            surroundings = environment.describe()
            result = results.document(measure.__name__, surroundings, **measure(**given))
            finish(result, json_path)
            if parquet:
                results.write_parquet(result, parquet)

        for option in reversed((*options, JSON)):
            command = option(command)
        return click.command(measure.__name__.replace("_", "-"), help=measure.__doc__)(command)

    return decorate


def finish(result: Document, json_path: Path | None) -> None:
    """Print a result's tables, and its warnings to stderr; then write it, so that no full disk hides it."""
    from bench.results import warnings_of, write
    from bench.tables import show, tables

    for table in tables(result):
        show(table)
    for warning in warnings_of(result):
        click.echo(f"note: {warning}", err=True)
    if json_path:
        write(result, json_path)


@measurement(
    *(SOME_AUDIO, BUNDLE, BACKENDS, _counts("--batch-size", "batch_sizes", "Clips per batch", "1, 2, 4, 8, 16")),
    click.option("--target", "targets", multiple=True, show_default="all", help='A branch or "fused"; repeatable.'),
    _count("--warmup", 3, "Batches that are scored first and do not count."),
    _count("--iterations", 50, "Batches timed, at most."),
    _above_zero("--seconds", 10.0, "S", "Stop timing a row of the table after S seconds."),
    _above_zero("--rate", None, "R", "Also time clips that arrive at R per second."),
    click.option("--offline", type=COUNT, metavar="N", help="Also time N clips that are all there at once."),
    *(THREADS, PARQUET),
)
def latency(
    recordings: Sequence[Recording],
    bundle: Bundle,
    backends: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    rate: float | None,
    offline: int | None,
    targets: tuple[str, ...],
    threads: int | None,
    **budget: Any,
) -> dict[str, Any]:
    """Time batches of the clips of AUDIO, one after the other, by backend, branch and batch size.

    Without AUDIO, the bundle's reference clips are timed: synthetic sounds, and no stage from files.
    """
    from bench.backends import agreement, check_bundle, speech_accuracy
    from bench.latency import BATCH_SIZES, Budget, make_plan, measure
    from bench.load import measure_fixed_rate, measure_offline
    from bench.peak import measure_peaks

    sizes = batch_sizes or BATCH_SIZES
    chosen, absent = check_bundle(bundle, backends, threads)
    options = {"targets": targets, "threads": threads, "budget": Budget(**budget)}
    plan = make_plan(bundle, recordings, chosen, batch_sizes=sizes, **options)
    peaks = measure_peaks()
    found = list(measure(plan, peaks))
    if rate is not None:
        found += measure_fixed_rate(plan, rate, clips=plan.budget.iterations * max(sizes))
    if offline is not None:
        found += measure_offline(plan, peaks, clips=offline)
    accuracy = {"agreement": agreement(bundle, chosen, threads), "accuracy": speech_accuracy(bundle)}
    return {"clips": plan.source, "measurements": found, "peaks": peaks, "absent": absent, **accuracy}


@measurement(
    *(SOME_AUDIO, BUNDLE, BACKENDS, _counts("--batch-size", "batch_sizes", "Clips per batch", "8")),
    click.option("--target", show_default="the context branch", help="The branch that is timed."),
    *(_count("--rounds", 20, "Turns that every engine gets."), THREADS),
)
def precisions(
    recordings: Sequence[Recording],
    bundle: Bundle,
    backends: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    threads: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Time a bundle's runtimes and precisions on the same batches, in turns, each against the first.

    The clips are those of AUDIO, or the bundle's reference clips. Name one in fp32 first: the others are checked by it.
    """
    from bench.backends import check_bundle
    from bench.precisions import measure_precisions

    chosen, absent = check_bundle(bundle, backends, threads)
    content = measure_precisions(bundle, chosen, recordings, batch_sizes or (8,), threads=threads, **options)
    return {**content, "absent": absent}


@measurement(
    *(AUDIO, BUNDLE, BACKENDS, _counts("--workers", "workers", "Decode processes", "one per CPU"), BATCH),
    _count("--repeats", 3, "Passes timed, after one of warm-up."),
    _counts("--files", "counts", "Also measure the memory of a run on N files"),
    THREADS,
)
def throughput(
    recordings: Sequence[Recording],
    bundle: Bundle,
    backends: tuple[str, ...],
    counts: tuple[int, ...],
    threads: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Score AUDIO end to end, from files to Parquet, beside the engine alone and the decoder alone."""
    from bench.backends import check_bundle
    from bench.throughput import measure_memory, measure_throughput

    chosen, absent = check_bundle(bundle, backends, threads)
    found = list(measure_throughput(bundle, recordings, chosen, threads=threads, **options))
    memory = list(measure_memory(recordings, counts, bundle.root, chosen[0]))
    return {"measurements": found, "memory": memory, "absent": absent}


@measurement(
    *(AUDIO, BUNDLE, BACKEND, _count("--files", 240, "Use the first N recordings that can be read.")),
    *(WORKERS, BATCH, REPEATS, THREADS),
)
def formats(
    recordings: Sequence[Recording],
    bundle: Bundle,
    backend: str,
    files: int,
    batch: int,
    threads: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Score AUDIO end to end in several formats, beside a plain loop over the same files.

    The recordings are transcoded into a temporary folder first (TMPDIR says where).
    """
    from bench.archive import check_formats, transcode
    from bench.backends import check_backends, open_backend
    from bench.formats import measure_formats

    check_backends([backend])
    able, absent = check_formats()
    with closing(open_backend(bundle, backend, threads, batch)) as engine, tempfile.TemporaryDirectory() as folder:
        archives = transcode(recordings, able, Path(folder), files)
        found = measure_formats(bundle, engine, archives, batch=batch, **options)
    return {"measurements": found, "absent": absent}


@measurement(
    *(AUDIO, BUNDLE, BACKEND, _counts("--files", "counts", "Files in the archive", "1000, 5000")),
    _count("--repeats", 3, "Processes with nothing to do that are timed."),
)
def resume(
    recordings: Sequence[Recording], bundle: Bundle, backend: str, counts: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """Time `ser-batch run`, then `--resume` with nothing to do and with 1 % new files, on links to AUDIO."""
    from bench.backends import check_backends, open_backend
    from bench.resume import COUNTS, measure_resume

    check_backends([backend])
    open_backend(bundle, backend).close()
    return {"steps": list(measure_resume(recordings, counts or COUNTS, bundle, backend, repeats))}


@measurement(
    click.argument("audio", metavar="FILE", type=PATH),
    BUNDLE,
    click.option("--backend", default="auto", show_default=True, help="Runtime of `ser-batch run`."),
    _count("--repeats", 10, "Processes timed, after one of warm-up."),
)
def startup(audio: Path, bundle: Bundle, backend: str, repeats: int) -> dict[str, Any]:
    """Time `ser-batch --help` and `ser-batch run FILE`, from process start to exit."""
    from bench.backends import check_backends
    from bench.startup import measure_startup

    check_backends([] if backend == "auto" else [backend])
    return {"commands": measure_startup(audio, bundle, backend, repeats)}


@measurement(
    *(SOME_AUDIO, SIZE, RUN, SEED, BACKENDS, _counts("--batch-size", "batch_sizes", "Clips per batch", "1, 8")),
    *(_count("--rounds", 20, "Turns that every engine gets."), DEVICE),
    click.option("--optimum", type=PATH, metavar="PYTHON", help="Also compare optimum's export, made by this Python."),
    THREADS,
)
def peers(
    recordings: Sequence[Recording], backends: tuple[str, ...], batch_sizes: tuple[int, ...], **options: Any
) -> dict[str, Any]:
    """Compare torch, torch.compile, transformers' pipeline and every backend: same weights, same clips, in turns.

    The clips are those of AUDIO, or synthetic ones.
    """
    from bench.backends import check_backends

    chosen, absent = check_backends(backends)
    from bench.peers.compare import measure_peers

    content = measure_peers(chosen, recordings, batch_sizes or (1, 8), **options)
    return {**content, "absent": absent | content["absent"]}


@measurement(
    *(AUDIO, SIZE, RUN, SEED, BACKENDS, _count("--files", 40, "Use the first N recordings that can be read.")),
    *(WORKERS, BATCH, REPEATS, THREADS),
)
def end_to_end(
    recordings: Sequence[Recording],
    size: str,
    run_folder: Path | None,
    seed: int,
    backends: tuple[str, ...],
    files: int,
    workers: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Label AUDIO with the pipeline, and with loops around torch and around transformers' pipeline, in turns.

    All have the same weights of a context branch. Labels that differ from torch's are counted; in float32 they are an
    error.
    """
    from bench.archive import read_clips
    from bench.backends import check_backends
    from bench.throughput import default_workers

    chosen, absent = check_backends(backends)
    from bench.peers.end_to_end import measure_end_to_end
    from bench.peers.models import context_model

    workers = workers or default_workers()
    with tempfile.TemporaryDirectory() as folder:
        model = context_model(Path(folder) / "bundle", size, seed, run_folder)
        clips, chosen_recordings = read_clips(recordings, model.bundle.manifest.clip, files)
        found, missing = measure_end_to_end(model, chosen, chosen_recordings, clips, workers=workers, **options)
    content = {"model": model.bundle.id, "workers": workers}
    return {**content, "candidates": found, "absent": absent | missing}


@measurement(
    click.option("--size", default="compact", show_default=True, help="Size of the model: small, compact or base."),
    click.option("--recipe", help="Instead of a size: a recipe's name or .toml file, with its augmentation."),
    click.option("--backbone", help="Folder or hub name of the recipe's speech encoder.  [default: the recipe's]"),
    *(
        _count("--clips", 64, "Recordings per epoch."),
        _count("--epochs", 3, "Epochs timed, after one of warm-up."),
        DEVICE,
    ),
)
def training(size: str, **options: Any) -> dict[str, Any]:
    """Time epochs of training of each branch, and the features that are computed once before.

    `bench compare BEFORE.json AFTER.json` says what a change did to them.
    """
    from bench.peers.training import measure_training

    return {"branches": list(measure_training(size, **options))}


@measurement(
    click.option(
        "--corpus",
        "corpora",
        nargs=3,
        multiple=True,
        required=True,
        metavar="NAME PREDICTIONS LABELS",
        help="A labelled corpus; LABELS is a table, a corpus (ravdess), or - for given_label; repeatable.",
    ),
    _count("--draws", 10, "Draws of each kind, and of the labelled rows."),
)
def adaptation(corpora: Sequence[tuple[str, str, str]], draws: int) -> dict[str, Any]:
    """Measure what `ser-batch adapt` gains on labelled corpora: whole, mostly neutral, of one-sided speakers."""
    from bench.adaptation import measure_adaptation, read_corpus

    found = [measure_adaptation(read_corpus(name, predictions, labels), draws) for name, predictions, labels in corpora]
    return {"corpora": list(chain.from_iterable(found))}


MEASUREMENTS = (latency, precisions, throughput, formats, resume, peers, end_to_end, startup, training, adaptation)
