"""`ser-export`: each command parses, calls one library function and prints.

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
    from export.tensorrt import Progress
    from ser_batch.bundle import Bundle

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


def _bundle_options(command: Command) -> Command:
    """The options of what makes a bundle of a run, or of heads."""
    out = click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write, a directory.")
    backbone = click.option(
        "--backbone", help="Folder or hub name of the encoder of heads.  [default: the hub's that they were trained on]"
    )
    name = click.option("--name", help="Name of the bundle.  [default: the run's recipe]")
    overwrite = click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
    return out(backbone(name(overwrite(_precision_options(required=False)(command)))))


@cli.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path))
@_bundle_options
@click.option("--licence", help="Licence note of the weights.  [default: what the run's corpus asks]")
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
@click.option(
    "--trust",
    type=click.Path(path_type=Path),
    help="JSON of the figure on unseen corpora, for the manifest.  [default: what ser-train loco left in RUN]",
)
def onnx(run: Path, out: Path, **options: Any) -> int:
    """Export RUN, a finished folder of `ser-train run`, to a bundle of ONNX graphs, and verify that.

    RUN may also be what `ser-export heads` kept of one. The graphs are in fp32; --precision adds others made from them.
    """
    from export.api import export_run

    return _verified(export_run(run, out, **options, progress=click.echo), run, options["backbone"])


@cli.command(epilog=EXIT_CODES)
@_bundle_options
def whisper(out: Path, **options: Any) -> int:
    """Make a bundle of Whisper base and this project's heads for it, and verify that. Nothing is trained.

    The encoder, openai/whisper-base, is taken from the hub or from a folder (--backbone) with its config.json and
    model.safetensors. The bundle's own card says what it was measured to do.
    """
    from export.heads import export_whisper, whisper_heads

    return _verified(export_whisper(out, **options, progress=click.echo), whisper_heads(), options["backbone"])


def _verified(bundle: Bundle, run: Path, backbone: str | None) -> int:
    """Say how large the bundle is, and verify it in every runtime and against the run in torch."""
    from export.api import extend_with

    out = bundle.root
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{bundle.id}: {size / 1e6:.2f} MB in {out}")
    extend = extend_with(run, None, None, backbone)
    code = verify_bundle(out, backends=(), audio=None, labels="ravdess", threads=None, json_file=None, extend=extend)
    if code == 0:
        click.echo(f"next: ser-batch run AUDIO --bundle {out} --out preds.parquet")
    return code


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the heads to write.")
@click.option("--backbone", help="What the hub calls the encoder.  [default: the run's configuration says so]")
@click.option("--licence", help="Licence note of the weights.  [default: what the run's corpora ask]")
def heads(run: Path, out: Path, **options: Any) -> int:
    """Keep what RUN, a finished folder of `ser-train run`, trained itself, without its frozen encoder.

    A few MB, with a model card and the encoder's SHA-256: `ser-export onnx OUT` makes a bundle of it where that
    encoder can be had.
    """
    from export.heads import keep_heads

    keep_heads(run, out, **options)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{out}: {size / 1e6:.2f} MB")
    click.echo(f"next: ser-export onnx {out} --out my-bundle")
    return 0


@cli.command(epilog=EXIT_CODES)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@_precision_options(required=True)
@click.option("--convolutions", is_flag=True, help="int8: convolutions, too. Judge it by verify --audio.")
@click.option(
    "--spare",
    "spared",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="int8: products of each branch that stay as they are, the costliest in accuracy.",
)
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
    made = add_precisions(model, precisions, **options, progress=click.echo)
    click.echo(f"{made.id} in {made.root}")
    return 0


@cli.command(epilog=EXIT_CODES, help=f"{HELP}\nThe same as `ser-batch verify`, and --run.")
@verify_options
@click.option("--run", type=click.Path(path_type=Path), help="The trained run: compare with torch itself, too.")
@click.option("--backbone", help="Folder or hub name of the encoder, where --run names heads.")
def verify(run: Path | None, backbone: str | None, **options: Any) -> int:
    """Verify a bundle in the runtimes that are installed, in torch and in emulated precisions."""
    from export.api import extend_with

    extend = extend_with(run, list(options["backends"]) or None, options["threads"], backbone)
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
    """Compile BUNDLE (default: the embedded one) with TensorRT, and add the engines to it.

    Engines of the embedded bundle go to a copy of it in the user's data folder ($XDG_DATA_HOME/ser-batch, or
    ~/.local/share/ser-batch); `ser-batch run --backend trt` finds them there.

    Native TensorRT (trt) compiles for the GPU it finds. TensorRT for RTX (trt-rtx) compiles ahead of time, without a
    GPU: by default for ampere, ada and blackwell in one engine. A batch size is a profile of its own; ser-batch pads
    a batch to the next one and cuts a larger batch.
    """
    from export.tensorrt import build_engines
    from ser_batch.bundle.bundle import load_bundle

    with _build_progress() as progress:
        built = build_engines(load_bundle(bundle), batches=batches, gpus=gpus, progress=progress, **options)
    for branch, size in built.sizes.items():
        click.echo(f"{branch}: {size / 1e6:.2f} MB, {built.seconds[branch]:.1f} s")
    click.echo(f"{built.bundle.id}: {built.sidecar.built_for}, in {built.bundle.root / built.sidecar.folder}")
    click.echo(built.next_step)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see `EXIT_CODES`) is returned."""
    return command_line.run(cli, "ser-export", arguments, interrupted="what was finished before stays")


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
