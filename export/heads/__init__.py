"""Heads: what a run on somebody else's frozen encoder trained itself, published without that encoder.

Each folder beside this file holds the heads of one run, and comes with the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.api import export_run, need_torch
from ser_batch.bundle import Bundle
from ser_batch.bundle.writing import MODEL_CARD_FILE
from ser_batch.errors import ExportError, OutputError

if TYPE_CHECKING:
    from export.onnx import Exported
    from export.precision import Lowered

WHISPER = Path(__file__).parent / "whisper"
"""The heads of a run of the recipe `whisper`."""
NOTE = (
    "> This folder holds what was trained for the model below, without the encoder that it is trained on: "
    "`ser-export onnx FOLDER --out BUNDLE` takes that from the hub, or from the folder that `--backbone` names.\n\n"
)
HUB_NAME = r"[\w-][\w.-]*/[\w.-]+"


def export_whisper(
    out: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] | None = None,
    name: str | None = None,
    overwrite: bool = False,
    precisions: Sequence[str] = (),
    calibration: str | os.PathLike[str] | None = None,
    progress: Callable[[Exported | Lowered], None] | None = None,
) -> Bundle:
    """Make a bundle of Whisper base and the heads that come with the package; nothing is trained.

    The arguments are those of `export.api.export_run`; `backbone` is a folder with openai/whisper-base, and None takes
    it from the hub.

    Raises:
        SerError: as `export_run`; or the package holds no heads, or the encoder cannot be had or is another one.
    """
    return export_run(
        whisper_heads(),
        out,
        backbone=backbone,
        name=name,
        overwrite=overwrite,
        precisions=precisions,
        calibration=calibration,
        progress=progress,
    )


def whisper_heads() -> Path:
    """The folder of the heads for Whisper base; ExportError if they do not come with this version of the package."""
    if not WHISPER.is_dir():
        raise ExportError(
            "this version of ser-batch comes without heads for Whisper base",
            got=f"no folder {WHISPER}",
            remedy="Train them yourself (ser-train run whisper), then ser-export onnx RUN --out BUNDLE.",
        )
    return WHISPER


def keep_heads(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    licence: str | None = None,
) -> None:
    """Keep what a finished run has trained, without its frozen encoder, and with a model card.

    `export.api.export_run` makes a bundle of it wherever that encoder can be had.

    Args:
        run: folder of the run.
        out: folder of the heads.
        backbone: what the hub calls the encoder; None: the run's configuration says so.
        licence: of the weights; None: what the run's corpora ask, where that is known.

    Raises:
        SerError: torch is missing, the run is not finished, `out` exists, or the encoder has no name on the hub.
    """
    need_torch()
    from export.assemble import card_of
    from export.model_card import licence_note
    from training import runs

    folder = Path(out)
    if os.path.lexists(folder):
        raise OutputError(f"{folder} exists already", remedy="Choose another --out, or delete it yourself.")
    trained = runs.load_run(Path(run))
    public = backbone or trained.config.context.backbone
    if not re.fullmatch(HUB_NAME, public) or Path(public).exists():
        raise ExportError(
            "heads are loaded where the folder of their encoder is not",
            got=f"the encoder {public}",
            expected="its name on the hub, such as openai/whisper-base",
            remedy="Give it with --backbone.",
        )
    named = trained.on(public)
    card = card_of(named, licence_note(named.provenance, licence))
    runs.keep_heads(named, folder)
    title, _, rest = card.partition("\n\n")
    (folder / MODEL_CARD_FILE).write_text(f"{title}\n\n{NOTE}{rest}", encoding="utf-8")
