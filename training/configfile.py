"""Recipes on disk: TOML (and a run's own config.json) to configuration dataclasses, with no key let through unread."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from ser_batch.errors import SerError, TrainingError
from training.config import RunConfig

RECIPES = Path(__file__).parent / "configs"
"""Where the named recipes lie."""
BEFORE: dict[str, Any] = {
    "spectrogram.norm": "post",
    "spectrogram.positions": "none",
    "spectrogram.residual_mean": False,
    "spectrogram.balance": False,
    "spectrogram.mel.reference": "full scale",
    "context.level": "full scale",
    "context_stage.decay": "all",
    "spectrogram_stage.decay": "all",
    "fusion_stage.decay": "all",
}
"""What runs did before a field existed, where its default is something else."""


def load_config(recipe: str | Path, **overrides: Any) -> RunConfig:
    """The configuration of a named recipe ("paper"), of a .toml file, or of a run's config.json.

    `overrides` replace top-level fields. Raises TrainingError for an unknown recipe, key or value.
    """
    path = Path(recipe)
    if not path.suffix:
        path = RECIPES / f"{recipe}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise TrainingError(f"no recipe {recipe}", expected=f"one of {known}, or a .toml file")
    try:
        raw = json.loads(path.read_text()) if path.suffix == ".json" else tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # ValueError: not JSON, not TOML, not even text
        raise TrainingError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise TrainingError(f"{path} is not a table", got=type(raw).__name__)
    if path.suffix == ".json":  # a run's own, which has its recipe's name
        _fill_in(raw)
    else:
        raw = {"recipe": re.sub(r"[^\w.-]+", "-", path.stem)} | raw
    return from_dict(RunConfig, raw | overrides, where=path.name)


def _fill_in(raw: dict[str, Any]) -> None:
    """Add what a run's config.json does not say since the run was begun before there was such a field."""
    for name, value in BEFORE.items():
        *tables, field = name.split(".")
        place: Any = raw
        for table in tables:
            place = place.get(table) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.setdefault(field, value)


def from_dict(kind: Any, raw: Any, where: str) -> Any:
    """`raw` plain values as the dataclass `kind`, field by field; `where` names the place in error messages."""
    if not isinstance(raw, dict):
        raise TrainingError(f"{where} is not a table", got=repr(raw))
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(raw) - names)
    if unknown:
        raise TrainingError(f"{where} has no field {unknown[0]!r}", expected=f"one of {', '.join(sorted(names))}")
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}") from error
    except SerError as error:
        raise TrainingError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise TrainingError(where, got=repr(value), expected=f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise TrainingError(where, got=value, expected=f"{len(inner)} values")
        return tuple(_value(i, v, where) for i, v in zip(inner, value, strict=True))
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where)
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(hint, type) or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TrainingError(where, got=repr(value), expected=getattr(hint, "__name__", str(hint)))
    return value
