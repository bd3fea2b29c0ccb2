"""`bench latency | throughput | peers | startup | compare | report | smoke`: each parses, measures, prints, writes.

What measures is imported inside the commands, so that `--help` is quick and only `peers` needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ser_batch import command_line

Command = Callable[..., None]
PATH = click.Path(path_type=Path)

_AUDIO = click.argument("audio", nargs=-1, required=True, type=click.Path())
_BUNDLE = click.option("--bundle", type=PATH, help="Model bundle.  [default: the embedded one]")
_BACKENDS = click.option(
    "--backend", "backends", multiple=True, help="NAME or NAME:PRECISION; repeatable.  [default: all]"
)
_THREADS = click.option("--threads", type=int, help="CPU threads of the runtime.  [default: its own choice]")
_JSON = click.option("--json", "json_path", type=PATH, help="Write the result, raw values included, to this file.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """What scoring costs here, and beside what one would pick instead."""


@cli.command()
@_AUDIO
@_BUNDLE
@_BACKENDS
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, help="Clips a batch; repeatable.")
@click.option("--target", "targets", multiple=True, help='A branch or "fused"; repeatable.  [default: each of them]')
@click.option("--warmup", default=3, show_default=True, help="Batches scored first and not counted.")
@click.option("--iterations", default=50, show_default=True, help="Batches timed, at most.")
@click.option("--seconds", default=10.0, show_default=True, help="After which no further batch of one row is timed.")
@click.option("--rate", type=float, help="Also: clips arriving at this rate a second, in queue for a batch.")
@click.option("--offline", type=int, metavar="N", help="Also: N clips that are all there at once.")
@_THREADS
@_JSON
@click.option("--parquet", type=PATH, help="Write the raw values as a Parquet table to this file.")
def latency(
    audio: tuple[str, ...],
    bundle: Path | None,
    backends: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    targets: tuple[str, ...],
    warmup: int,
    iterations: int,
    seconds: float,
    rate: float | None,
    offline: int | None,
    threads: int | None,
    json_path: Path | None,
    parquet: Path | None,
) -> None:
    """Time batches of the clips of AUDIO, one after the other, by backend, branch and batch size."""
    from bench import environment, latency, results, served
    from bench.accuracy import speech_accuracy
    from bench.agreement import agreement
    from bench.backends import check_backends
    from bench.console import finish, progress
    from bench.peak import measure_peaks
    from bench.targets import check_positive
    from ser_batch.inputs.sources import find_audio
    from ser_batch.model.bundle import load_bundle

    surroundings = environment.describe()
    sizes = batch_sizes or latency.BATCH_SIZES
    check_positive(batch_size=sizes, iterations=iterations, warmup=warmup, offline=offline or 1)
    chosen, absent = check_backends(backends)
    sources, model = find_audio(audio), load_bundle(bundle)
    budget = latency.Budget(warmup=warmup, iterations=iterations, seconds=seconds)
    plan = latency.plan(model, sources, chosen, targets=targets, batch_sizes=sizes, threads=threads, budget=budget)
    peaks = measure_peaks()
    found = []
    for measurement in latency.measure(plan, peaks):
        found.append(measurement)
        progress(f"{measurement.target}, {measurement.backend}, batch {measurement.batch}")
    if rate is not None:
        found += served.measure_fixed_rate(plan, rate, clips=iterations * max(sizes))
    if offline is not None:
        found += served.measure_offline(plan, peaks, clips=offline)
    content = {"peaks": peaks, "absent": absent, "agreement": agreement(model, chosen, threads)}
    result = results.document("latency", surroundings, measurements=found, accuracy=speech_accuracy(model), **content)
    finish(result, json_path)
    if parquet:
        results.write_parquet(result, parquet)


@cli.command()
@_AUDIO
@_BUNDLE
@_BACKENDS
@click.option("--workers", type=int, multiple=True, help="Decode processes; repeatable.  [default: one a CPU]")
@click.option("--batch-size", default=16, show_default=True, help="Clips scored together.")
@click.option("--repeats", default=3, show_default=True, help="Passes timed, after one of warm-up.")
@click.option("--files", "counts", type=int, multiple=True, help="Also: memory of a run on so many files; repeatable.")
@_THREADS
@_JSON
def throughput(
    audio: tuple[str, ...],
    bundle: Path | None,
    backends: tuple[str, ...],
    workers: tuple[int, ...],
    batch_size: int,
    repeats: int,
    counts: tuple[int, ...],
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Score AUDIO end to end, from files to Parquet, beside the bare engine and the bare decoder."""
    from bench import environment, results
    from bench.backends import check_backends
    from bench.console import finish
    from bench.targets import check_positive
    from bench.throughput import measure_memory, measure_throughput
    from ser_batch.inputs.sources import find_audio
    from ser_batch.model.bundle import load_bundle
    from ser_batch.run.pipeline import default_workers

    surroundings = environment.describe()
    decoders = workers or (default_workers(),)
    check_positive(workers=decoders, batch_size=batch_size, repeats=repeats, files=counts or (1,))
    chosen, absent = check_backends(backends)
    sources, model = find_audio(audio), load_bundle(bundle)
    measured = measure_throughput(
        model, sources, chosen, workers=decoders, batch=batch_size, repeats=repeats, threads=threads
    )
    content = {"measurements": list(measured), "memory": list(measure_memory(sources, counts, bundle, chosen[0]))}
    finish(results.document("throughput", surroundings, absent=absent, **content), json_path)


@cli.command()
@click.argument("audio", nargs=-1, type=click.Path())
@click.option("--size", default="base", show_default=True, help="Random weights: small, compact or base.")
@click.option("--run", "run_folder", type=PATH, help="The weights of this training run instead.")
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
@_BACKENDS
@click.option(
    "--batch-size", "batch_sizes", type=int, multiple=True, help="Clips a batch; repeatable.  [default: 1, 8]"
)
@click.option("--rounds", default=20, show_default=True, help="Turns of every engine.")
@click.option("--device", default="cpu", show_default=True, help="Of torch: cpu or cuda.")
@_THREADS
@_JSON
def peers(
    audio: tuple[str, ...],
    size: str,
    run_folder: Path | None,
    seed: int,
    backends: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    rounds: int,
    device: str,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Compare torch, torch.compile, transformers' pipeline and every backend: same weights, same clips, in turns.

    The clips are those of AUDIO, or synthetic ones.
    """
    import tempfile

    from bench import environment, results
    from bench.backends import check_backends
    from bench.console import finish
    from bench.peak import measure_peaks
    from bench.targets import check_positive, read_clips
    from ser_batch.inputs.sources import find_audio
    from ser_batch.model.reference import synthetic_clips

    surroundings = environment.describe()
    sizes = batch_sizes or (1, 8)
    check_positive(batch_size=sizes, rounds=rounds)
    chosen, absent = check_backends(backends)
    sources = find_audio(audio) if audio else []
    from bench.peers.compare import compare_peers
    from bench.peers.models import random_model, trained_model
    from bench.peers.torch_engine import check_device

    check_device(device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        model = trained_model(root, run_folder) if run_folder else random_model(root, size, seed, only_context=True)
        rule = model.bundle.manifest.clip
        clips = read_clips(sources, rule, limit=max(sizes))[0] if sources else synthetic_clips(rule)
        found, missing = compare_peers(model, chosen, clips, sizes, device=device, rounds=rounds, threads=threads)
    content = {"model": model.bundle.id, "target": found[0].target, "clips": "AUDIO" if sources else "synthetic"}
    result = results.document(
        "peers", surroundings, candidates=found, peaks=measure_peaks(device), absent={**absent, **missing}, **content
    )
    finish(result, json_path)


@cli.command()
@click.argument("audio", type=PATH)
@_BUNDLE
@click.option("--backend", default="auto", show_default=True, help="Runtime of `ser-batch run`.")
@click.option("--repeats", default=10, show_default=True, help="Processes timed, after one of warm-up.")
@_JSON
def startup(audio: Path, bundle: Path | None, backend: str, repeats: int, json_path: Path | None) -> None:
    """Time `ser-batch --help` and `ser-batch run AUDIO` on one file, from process start to exit."""
    from bench import environment, results
    from bench.backends import check_backends
    from bench.console import finish
    from bench.startup import measure_startup
    from bench.targets import check_positive

    surroundings = environment.describe()
    check_positive(repeats=repeats)
    check_backends([] if backend == "auto" else [backend])
    found = measure_startup(audio, bundle, backend, repeats)
    finish(results.document("startup", surroundings, commands=found), json_path)


@cli.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@_JSON
def compare(first: Path, second: Path, json_path: Path | None) -> None:
    """Print the ratios of SECOND to FIRST, two results of one kind, row by row."""
    import dataclasses

    from bench import results
    from bench.compare import compare as compare_results
    from bench.console import show
    from bench.tables import Table

    found = compare_results(results.read(first), results.read(second))
    rows = [(r.key, f"{r.first:.4g}", f"{r.second:.4g}", r.unit, f"{r.ratio:.3f}") for r in found.ratios]
    show(Table(f"{second} / {first}", ("row", "first", "second", "unit", "ratio"), rows))
    for name, keys in ((first, found.only_first), (second, found.only_second)):
        for key in keys:
            click.echo(f"only in {name}: {key}")
    if json_path:
        results.write(dataclasses.asdict(found), json_path)


@cli.command()
@click.argument("given", metavar="[RESULT]...", nargs=-1, type=PATH)
@click.option("--out", type=PATH, help="HTML page to write.")
@click.option("--docs", is_flag=True, help="Write the generated part of docs/benchmarks.md from bench/results/.")
def report(given: tuple[Path, ...], out: Path | None, docs: bool) -> None:
    """Write an HTML page of RESULTs (default: the committed ones), or the page of the documentation."""
    if not (out or docs):
        raise click.UsageError("nothing to write: give --out PAGE.html, --docs, or both.")
    from bench import page, results
    from bench.report import write_report

    if out:
        found = [(path.name, results.read(path)) for path in given] or results.committed()
        if not found:
            raise click.UsageError(f"no RESULT given, and none committed in {results.FOLDER}")
        write_report(found, out)
    if docs:
        page.write_page()


@cli.command()
@_BUNDLE
@_BACKENDS
@_JSON
def smoke(bundle: Path | None, backends: tuple[str, ...], json_path: Path | None) -> None:
    """Print a few ratios in under a minute beside the committed ones; it informs, and exits 0 whatever they are."""
    from bench import environment, results
    from bench.backends import check_backends
    from bench.console import show
    from bench.smoke import COMMITTED, deltas, smoke_ratios
    from bench.tables import Table
    from ser_batch.model.bundle import load_bundle

    surroundings = environment.describe()
    chosen, _ = check_backends(backends)
    ratios = smoke_ratios(load_bundle(bundle), chosen)
    before = results.read(COMMITTED)["ratios"] if COMMITTED.is_file() else None
    rows = [(n, f"{r:.3f}", "no committed ratio" if d is None else f"{d:+.1%}") for n, r, d in deltas(ratios, before)]
    show(Table("bench smoke", ("ratio", "now", "Δ"), rows))
    if json_path:
        results.write(results.document("smoke", surroundings, ratios=ratios), json_path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or 2 with one line on what is wrong."""
    return command_line.run(cli, "bench", arguments, interrupted="nothing was written")
