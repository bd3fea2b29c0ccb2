"""`ser-export onnx | quantize | trt | verify`: each command parses, calls one library function and prints.

The library is imported inside the commands: `--help` is fast, and `verify` needs no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ser_batch import command_line
from ser_batch.command_line import USAGE
from ser_batch.errors import SerError
from ser_batch.verification.cli import EXIT_CODES, HELP, verify_bundle, verify_options

if TYPE_CHECKING:
    from export.onnx import Exported
    from export.precision import Lowered
    from export.tensorrt import Progress

Command = Callable[..., Any]

BUILD_CODES = f"""\b
Exit codes:
  0    the engines were built and added to the bundle
  {USAGE}    it could not be done: the message says why
"""


def _numbers(_: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise click.BadParameter(f"{value!r} is not of the form 1,8,64.", param=parameter)
    return tuple(int(part) for part in parts)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Trained runs to bundles, and the proof that a bundle equals what was trained."""


def _precision_options(required: bool) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        calibration = click.option(
            "--calibration", type=click.Path(path_type=Path), help="Folder or glob of recorded speech, for int8."
        )
        names = click.Choice(["fp32", "fp16", "bf16", "int8"])
        return click.option(
            "--precision", "precisions", multiple=True, required=required, type=names, help="Of the graphs; repeatable."
        )(calibration(command))

    return decorate


@cli.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write, a directory.")
@click.option("--name", help="Name of the bundle.  [default: the run's recipe]")
@click.option("--licence", help="Licence note of the weights.  [default: what the run's corpus asks]")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSON of ser-batch evaluate on other speech, by an earlier export of RUN, for the model card; repeatable.",
)
@click.option(
    "--robustness",
    type=click.Path(path_type=Path),
    help="JSON of ser-train robustness, by an earlier export of RUN, for the model card.",
)
@_precision_options(required=False)
def onnx(
    run: Path,
    out: Path,
    name: str | None,
    licence: str | None,
    overwrite: bool,
    evaluations: tuple[Path, ...],
    robustness: Path | None,
    precisions: tuple[str, ...],
    calibration: Path | None,
) -> int:
    """Export RUN, a finished folder of `ser-train run`, to a bundle of ONNX graphs, and verify that.

    The graphs are in fp32; --precision adds others made from them.
    """
    _need_torch()
    from export.assemble import assemble
    from export.candidates import extend_with
    from export.precision import check_request, quantize
    from ser_batch.verification.speech import find_speech
    from training.runs import load_run

    check_request(precisions, calibration)
    if calibration is not None:
        find_speech(calibration)  # if there is none, the bundle should not be made first
    show = lambda export: click.echo(_export_line(export))  # noqa: E731
    assembled = assemble(
        load_run(run),
        out,
        name=name,
        licence=licence,
        overwrite=overwrite,
        evaluations=evaluations,
        robustness=robustness,
        progress=show,
    )
    if precisions:
        quantize(
            assembled.bundle,
            precisions,
            calibration=calibration,
            progress=lambda lowered: click.echo(_lowered_line(lowered)),
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{assembled.bundle.id}: {size / 1e6:.2f} MB in {out}")
    return verify_bundle(
        out,
        backends=(),
        audio=None,
        labels="ravdess",
        threads=None,
        json_file=None,
        extend=extend_with(run, None, None),
    )


@cli.command(epilog=EXIT_CODES)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@_precision_options(required=True)
@click.option("--convolutions", is_flag=True, help="int8: convolutions, too. Judge it by verify --audio.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a copy of the bundle here, and leave BUNDLE alone.")
@click.option("--replace", is_flag=True, help="Make graphs again that are there.")
def quantize(
    bundle: Path | None,
    precisions: tuple[str, ...],
    **options: Any,
) -> int:
    """Add graphs of other precisions to BUNDLE (default: a copy of the embedded one, at --out).

    Each is made from the fp32 graph, checked on the reference clips, and read by every runtime alike. The front-end and
    the softmax stay in fp32. int8 is calibrated on recorded speech, which needs no labels.
    """
    from export.precision import quantize as add_precisions
    from ser_batch.bundle.bundle import load_bundle

    if bundle is None and options["out"] is None:
        raise SerError("the embedded bundle is a part of the program", remedy="Give --out, where a copy goes.")
    model = load_bundle(bundle)
    made = add_precisions(model, precisions, **options, progress=lambda lowered: click.echo(_lowered_line(lowered)))
    click.echo(f"{made.id} in {made.root}")
    return 0


@cli.command(epilog=EXIT_CODES, help=f"{HELP}\nThe same as `ser-batch verify`, and --run.")
@verify_options
@click.option("--run", type=click.Path(path_type=Path), help="The trained run: compare with torch itself, too.")
def verify(run: Path | None, **options: Any) -> int:
    """Verify a bundle in the runtimes that are installed, in torch and in emulated precisions."""
    from export.candidates import extend_with

    extend = extend_with(run, list(options["backends"]) or None, options["threads"])
    return verify_bundle(**options, extend=extend)


@cli.command(epilog=BUILD_CODES)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--precision", default="fp32", show_default=True, metavar="P", help="Of the graphs the bundle has.")
@click.option("--batch", "batches", default="1,8,64", show_default=True, callback=_numbers, help="Batch sizes.")
@click.option("--runtime", default="auto", show_default=True, help="trt, trt-rtx, or the first that is installed.")
@click.option("--gpu", "gpus", multiple=True, help="trt-rtx: a generation or compute capability; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a copy of the bundle here, and leave BUNDLE alone.")
@click.option("--replace", is_flag=True, help="Build engines again that are there.")
def trt(bundle: Path | None, batches: tuple[int, ...], gpus: tuple[str, ...], **options: Any) -> int:
    """Compile BUNDLE (default: a copy of the embedded one, at --out) with TensorRT, and add the engines to it.

    Native TensorRT (trt) compiles for the GPU it finds. TensorRT for RTX (trt-rtx) compiles ahead of time, without a
    GPU: by default for ampere, ada and blackwell in one engine. A batch size is a profile of its own; ser-batch pads
    a batch to the next one and cuts a larger batch.
    """
    if bundle is None and options["out"] is None:
        raise SerError("the embedded bundle is a part of the program", remedy="Give --out, where a copy goes.")
    from export.tensorrt import build_engines
    from ser_batch.bundle.bundle import load_bundle

    with _build_progress() as progress:
        built = build_engines(load_bundle(bundle), batches=batches, gpus=gpus, progress=progress, **options)
    for branch, size in built.sizes.items():
        click.echo(f"{branch}: {size / 1e6:.2f} MB, {built.seconds[branch]:.1f} s")
    click.echo(f"{built.bundle.id}: {built.sidecar.built_for}, in {built.bundle.root / built.sidecar.folder}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see `EXIT_CODES`) is returned."""
    return command_line.run(cli, "ser-export", arguments, interrupted="what was finished before stays")


def _need_torch() -> None:
    from importlib.util import find_spec

    missing = [package for package in ("torch", "transformers", "onnx", "onnxscript") if find_spec(package) is None]
    if missing:
        raise SerError(
            "an export needs what trained the model",
            got=f"no {', '.join(missing)}",
            remedy="Install it: pip install 'ser-batch[export,cpu]'.",
        )


def _export_line(export: Exported) -> str:
    """One line on an exported branch."""
    return (
        f"{export.name}: {export.nodes} nodes, {export.path.stat().st_size / 1e6:.2f} MB, max |Δp| to torch "
        f"{export.max_difference:.1e}, {export.seconds:.1f} s"
    )


def _lowered_line(lowered: Lowered) -> str:
    """One line on a graph of lower precision."""
    return (
        f"{lowered.branch} {lowered.precision}: {lowered.nodes} nodes, {lowered.size / 1e6:.2f} MB, max |Δp| to torch "
        f"{lowered.max_difference:.1e} on the reference clips"
    )


@contextmanager
def _build_progress() -> Iterator[Progress | None]:
    """A bar on a terminal: the steps of what the builder is at."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starts")
        yield lambda branch, phase, done, steps: bar.update(
            task, description=f"{branch}: {phase}", completed=done, total=steps or None
        )
