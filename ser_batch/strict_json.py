"""Strict JSON to dataclasses: no key passes unread, no value of another type, no key twice, no NaN.

The dataclass is the schema: a field without a default must be there, and its annotation says what it holds.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ser_batch.errors import SerError

Record = TypeVar("Record")
Refusal = Callable[..., SerError]
"""What makes the error to raise: a class of `ser_batch.errors`, or one with a remedy filled in."""
LARGEST = 2**63 - 1
"""Python's integers have no bound; sizes, rates and counts do."""
_NAMES = {int: "an integer", str: "a string", float: "a number", bool: "true or false", type(None): "null"}


def parse(raw: bytes | str, where: str, error: Refusal) -> Any:
    """The plain values of a JSON text.

    Args:
        where: names the text in the error.
        error: what to raise for a text that is not JSON, gives a key twice, or holds NaN or infinity.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not valid JSON", got=problem) from problem


def check_schema(value: Any, known: int, where: str, error: Refusal) -> None:
    """Check the `schema_version` of a value before it is decoded: in another schema, other keys are no surprise.

    Raises:
        error: the value is no object, or its version is not `known`.
    """
    if not isinstance(value, Mapping):
        raise error(f"{where} is not an object", got=_short(value))
    version = value.get("schema_version")
    if type(version) is not int or version != known:
        raise error(f"{where} has a schema version that is not known", got=repr(version), expected=known)


def decode(kind: type[Record], value: Any, where: str, error: Refusal, *, complete: bool = False) -> Record:
    """Plain values as the dataclass `kind`, field by field.

    Args:
        where: names the value in errors; fields are named after it.
        error: what to raise for a key that is unknown or missing, a value of another type, and a value that the
            dataclass itself refuses.
        complete: fields with a default must be given, too, as in a file that a program has written.
    """
    return _Decoder(error, complete).record(kind, value, where)


@dataclasses.dataclass(frozen=True)
class _Decoder:
    error: Refusal
    complete: bool

    def record(self, kind: type[Record], value: Any, where: str) -> Record:
        if not isinstance(value, Mapping):
            raise self.error(f"{where} is not an object", got=_short(value))
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
        needed = {name for name, field in fields.items() if self.complete or _has_no_default(field)}
        unknown, missing = sorted(set(value) - set(fields)), sorted(needed - set(value))
        if unknown:
            what = f"{where} has unknown keys: {', '.join(unknown)}"
            raise self.error(what, expected=f"some of {', '.join(sorted(fields))}")
        if missing:
            raise self.error(f"{where} lacks {', '.join(missing)}")
        hints = typing.get_type_hints(kind)
        values = {name: self.value(hints[name], given, f"{where}: {name}") for name, given in value.items()}
        try:
            return kind(**values)
        except SerError as problem:
            remedy = {} if problem.remedy is None else {"remedy": problem.remedy}
            what = f"{where}: {problem.what}"
            raise self.error(what, got=problem.got, expected=problem.expected, **remedy) from problem

    def value(self, hint: Any, value: Any, where: str) -> Any:
        if hint is Any or hint is object:
            return value
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            return self.record(typing.cast(type, hint), value, where)
        if origin is typing.Literal:
            if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
                raise self.error(where, got=repr(value), expected=f"one of {', '.join(map(repr, arguments))}")
            return value
        if origin in (typing.Union, types.UnionType):
            if value is None and type(None) in arguments:
                return None
            return self.value(next(each for each in arguments if each is not type(None)), value, where)
        if origin in (tuple, list) and isinstance(value, list | tuple):
            return self.sequence(origin, arguments, value, where)
        if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return {key: self.value(arguments[1], each, f"{where}: {key}") for key, each in value.items()}
        return self.plain(hint, value, where)

    def sequence(self, origin: type, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
        inner = arguments[:1] * len(value) if origin is list or arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise self.error(where, got=_short(value), expected=f"{len(inner)} values")
        pairs = enumerate(zip(inner, value, strict=True))
        return origin(self.value(kind, each, f"{where}[{n}]") for n, (kind, each) in pairs)

    def plain(self, hint: Any, value: Any, where: str) -> Any:
        # JSON writes 1.0 as 1 in some tools, so an integer is a number, too; true is neither.
        fits = type(value) in (int, float) if hint is float else isinstance(hint, type) and type(value) is hint
        if not fits or (isinstance(value, int) and abs(value) > LARGEST):
            name = getattr(hint, "__name__", str(hint))
            others = {"tuple": "a list", "dict": "an object", "Mapping": "an object"}
            expected = _NAMES.get(hint) or others.get(name, name)
            raise self.error(f"{where} is of another type", got=_short(value), expected=expected)
        return float(value) if hint is float else value


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError(f"a key is given twice among {[key for key, _ in pairs]}")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
