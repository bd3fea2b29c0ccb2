"""`bench throughput | formats | resume | end-to-end`: from files to rows; like `bench.measure_cli` otherwise."""

from __future__ import annotations

from pathlib import Path

import click

from bench.options import AUDIO, BACKEND, BACKENDS, BATCH_SIZE, BUNDLE, JSON, ROUNDS, RUN, SEED, SIZE, THREADS, WORKERS


@click.command()
@AUDIO
@BUNDLE
@BACKENDS
@click.option("--workers", type=int, multiple=True, help="Decode processes; repeatable.  [default: one a CPU]")
@BATCH_SIZE
@click.option("--repeats", default=3, show_default=True, help="Passes timed, after one of warm-up.")
@click.option("--files", "counts", type=int, multiple=True, help="Also: memory of a run on so many files; repeatable.")
@THREADS
@JSON
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
    from bench.backends import check_backends, check_bundle
    from bench.console import finish
    from bench.targets import check_positive
    from bench.throughput import measure_memory, measure_throughput
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.recordings.sources import find_audio
    from ser_batch.run.pipeline import default_workers

    surroundings = environment.describe()
    decoders = workers or (default_workers(),)
    check_positive(workers=decoders, batch_size=batch_size, repeats=repeats, files=counts or (1,), threads=threads)
    chosen, absent = check_backends(backends)
    sources, model = find_audio(audio), load_bundle(bundle)
    chosen, lacking = check_bundle(model, chosen, backends, threads)
    measured = measure_throughput(
        model, sources, chosen, workers=decoders, batch=batch_size, repeats=repeats, threads=threads
    )
    content = {"measurements": list(measured), "memory": list(measure_memory(sources, counts, bundle, chosen[0]))}
    finish(results.document("throughput", surroundings, absent=absent | lacking, **content), json_path)


@click.command()
@AUDIO
@BUNDLE
@BACKEND
@click.option("--files", default=240, show_default=True, help="Recordings at most, the first that can be read.")
@WORKERS
@BATCH_SIZE
@ROUNDS
@THREADS
@JSON
def formats(
    audio: tuple[str, ...],
    bundle: Path | None,
    backend: str,
    files: int,
    workers: int | None,
    batch_size: int,
    repeats: int,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Score AUDIO end to end in several formats, beside a plain loop over the same files.

    The recordings are transcoded into a temporary folder first (TMPDIR says where).
    """
    import tempfile
    from contextlib import closing

    from bench import environment, results
    from bench.backends import check_backends, open_backend
    from bench.console import finish
    from bench.formats import measure_formats
    from bench.targets import check_positive
    from bench.transcode import check_formats, transcode
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.recordings.sources import find_audio
    from ser_batch.run.pipeline import default_workers

    surroundings = environment.describe()
    decoders = default_workers() if workers is None else workers
    check_positive(files=files, workers=decoders, batch_size=batch_size, repeats=repeats, threads=threads)
    check_backends([backend])
    sources, model = find_audio(audio), load_bundle(bundle)
    able, absent = check_formats()
    with closing(open_backend(model, backend, threads, batch_size)) as engine, tempfile.TemporaryDirectory() as folder:
        archives = transcode(sources, able, Path(folder), files)
        found = measure_formats(model, engine, archives, workers=decoders, batch=batch_size, repeats=repeats)
    finish(results.document("formats", surroundings, measurements=found, absent=absent), json_path)


@click.command()
@AUDIO
@BUNDLE
@BACKEND
@click.option("--files", "counts", type=int, multiple=True, help="In the archive; repeatable.  [default: 1000, 5000]")
@click.option("--repeats", default=3, show_default=True, help="Processes timed that have nothing to do.")
@JSON
def resume(
    audio: tuple[str, ...],
    bundle: Path | None,
    backend: str,
    counts: tuple[int, ...],
    repeats: int,
    json_path: Path | None,
) -> None:
    """Time `ser-batch run`, then `--resume` with nothing to do and with 1 % new files, on links to AUDIO."""
    from bench import environment, results
    from bench.backends import check_backends, check_bundle
    from bench.console import finish, progress
    from bench.resume import COUNTS, measure_resume
    from bench.targets import check_positive
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.recordings.sources import find_audio

    surroundings = environment.describe()
    check_positive(files=counts or COUNTS, repeats=repeats)
    check_backends([backend])
    sources, model = find_audio(audio), load_bundle(bundle)
    check_bundle(model, [backend], [backend])
    steps = []
    for step in measure_resume(sources, counts or COUNTS, model, backend, repeats):
        steps.append(step)
        progress(f"{step.files} files, {step.step}")
    finish(results.document("resume", surroundings, steps=steps), json_path)


@click.command("end-to-end")
@AUDIO
@SIZE
@RUN
@SEED
@BACKENDS
@click.option("--files", default=40, show_default=True, help="Recordings at most, the first that can be read.")
@WORKERS
@BATCH_SIZE
@ROUNDS
@THREADS
@JSON
def end_to_end(
    audio: tuple[str, ...],
    size: str,
    run_folder: Path | None,
    seed: int,
    backends: tuple[str, ...],
    files: int,
    workers: int | None,
    batch_size: int,
    repeats: int,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Take AUDIO to labels by the pipeline, and by loops around torch and around transformers' pipeline, in turns.

    All have the same weights of a context branch. Other labels than torch's are counted; in float32, an error.
    """
    import tempfile

    from bench import environment, results
    from bench.backends import check_backends
    from bench.console import finish
    from bench.targets import check_positive, read_clips
    from ser_batch.recordings.sources import find_audio
    from ser_batch.run.pipeline import default_workers

    surroundings = environment.describe()
    decoders = default_workers() if workers is None else workers
    check_positive(files=files, workers=decoders, batch_size=batch_size, repeats=repeats)
    chosen, absent = check_backends(backends)
    found_audio = find_audio(audio)
    from bench.peers.end_to_end import measure_end_to_end
    from bench.peers.models import context_model

    with tempfile.TemporaryDirectory() as folder:
        model = context_model(Path(folder) / "bundle", size, seed, run_folder)
        clips, sources = read_clips(found_audio, model.bundle.manifest.clip, files)
        found, missing = measure_end_to_end(
            model, chosen, sources, clips, workers=decoders, batch=batch_size, repeats=repeats, threads=threads
        )
    content = {"model": model.bundle.id, "workers": decoders, "absent": absent | missing}
    finish(results.document("end_to_end", surroundings, candidates=found, **content), json_path)
