"""`bench latency | peers | startup | training`: each parses, measures, prints and writes.

What measures is imported inside the commands, so that `--help` is quick and only `peers` and `training` need torch.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.options import AUDIO, BACKENDS, BUNDLE, JSON, PATH, RUN, SEED, SIZE, THREADS


@click.command()
@AUDIO
@BUNDLE
@BACKENDS
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, help="Clips a batch; repeatable.")
@click.option("--target", "targets", multiple=True, help='A branch or "fused"; repeatable.  [default: each of them]')
@click.option("--warmup", default=3, show_default=True, help="Batches scored first and not counted.")
@click.option("--iterations", default=50, show_default=True, help="Batches timed, at most.")
@click.option("--seconds", default=10.0, show_default=True, help="After which no further batch of one row is timed.")
@click.option("--rate", type=float, help="Also: clips arriving at this rate a second, in queue for a batch.")
@click.option("--offline", type=int, metavar="N", help="Also: N clips that are all there at once.")
@THREADS
@JSON
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
    from bench.backends import check_backends, check_bundle
    from bench.console import finish, progress
    from bench.peak import measure_peaks
    from bench.targets import check_above_zero, check_positive
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.recordings.sources import find_audio

    surroundings = environment.describe()
    sizes = batch_sizes or latency.BATCH_SIZES
    check_positive(batch_size=sizes, iterations=iterations, warmup=warmup, offline=offline, threads=threads)
    check_above_zero(rate=rate, seconds=seconds)
    chosen, absent = check_backends(backends)
    sources, model = find_audio(audio), load_bundle(bundle)
    chosen, lacking = check_bundle(model, chosen, backends, threads)
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
    content = {"peaks": peaks, "absent": absent | lacking, "agreement": agreement(model, chosen, threads)}
    result = results.document("latency", surroundings, measurements=found, accuracy=speech_accuracy(model), **content)
    finish(result, json_path)
    if parquet:
        results.write_parquet(result, parquet)


@click.command()
@click.argument("audio", nargs=-1, type=click.Path())
@SIZE
@RUN
@SEED
@BACKENDS
@click.option(
    "--batch-size", "batch_sizes", type=int, multiple=True, help="Clips a batch; repeatable.  [default: 1, 8]"
)
@click.option("--rounds", default=20, show_default=True, help="Turns of every engine.")
@click.option("--device", default="cpu", show_default=True, help="Of torch: cpu or cuda.")
@click.option("--optimum", type=PATH, metavar="PYTHON", help="Also optimum's export, made by this Python that has it.")
@THREADS
@JSON
def peers(
    audio: tuple[str, ...],
    size: str,
    run_folder: Path | None,
    seed: int,
    backends: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    rounds: int,
    device: str,
    optimum: Path | None,
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
    from ser_batch.bundle.reference import synthetic_clips
    from ser_batch.recordings.sources import find_audio

    surroundings = environment.describe()
    sizes = batch_sizes or (1, 8)
    check_positive(batch_size=sizes, rounds=rounds, threads=threads)
    chosen, absent = check_backends(backends)
    sources = find_audio(audio) if audio else []
    from bench.peers.compare import compare_peers, exported_graphs
    from bench.peers.models import context_model
    from bench.peers.optimum_engine import check_python, export_by_optimum
    from bench.peers.torch_engine import check_device

    check_device(device)
    if optimum:
        check_python(optimum)
    with tempfile.TemporaryDirectory() as folder:
        model = context_model(Path(folder) / "bundle", size, seed, run_folder)
        rule = model.bundle.manifest.clip
        clips = read_clips(sources, rule, limit=max(sizes))[0] if sources else synthetic_clips(rule)
        context = next(iter(model.branches.values()))
        theirs = export_by_optimum(optimum, context, Path(folder) / "optimum") if optimum else None
        found, missing = compare_peers(
            model, chosen, clips, sizes, device=device, rounds=rounds, threads=threads, optimum=theirs
        )
        graphs = exported_graphs(model, found[0].target, theirs)
    content = {"model": model.bundle.id, "target": found[0].target, "clips": "AUDIO" if sources else "synthetic"}
    result = results.document(
        "peers",
        surroundings,
        candidates=found,
        graphs=graphs,
        peaks=measure_peaks(device),
        absent={**absent, **missing},
        **content,
    )
    finish(result, json_path)


@click.command()
@click.argument("audio", type=PATH)
@BUNDLE
@click.option("--backend", default="auto", show_default=True, help="Runtime of `ser-batch run`.")
@click.option("--repeats", default=10, show_default=True, help="Processes timed, after one of warm-up.")
@JSON
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


@click.command()
@click.option("--size", default="compact", show_default=True, help="Random weights: small, compact or base.")
@click.option("--clips", default=64, show_default=True, help="Clips an epoch.")
@click.option("--epochs", default=3, show_default=True, help="Epochs timed, after one of warm-up.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@JSON
def training(size: str, clips: int, epochs: int, device: str, json_path: Path | None) -> None:
    """Time epochs of training of each branch, and the features that are computed once before."""
    from bench import environment, results
    from bench.console import finish
    from bench.targets import check_positive

    surroundings = environment.describe()
    check_positive(clips=clips, epochs=epochs)
    from bench.peers.training import measure_training

    found = list(measure_training(size, clips=clips, epochs=epochs, device=device))
    finish(results.document("training", surroundings, branches=found), json_path)
