from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ser_batch.errors import BundleError, InputError
from ser_batch.strict_json import check_schema, decode, parse


@dataclass(frozen=True)
class Inner:
    rate: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Record:
    name: str
    count: int
    inner: Inner
    sizes: tuple[int, ...] = ()
    pair: tuple[str, int] | None = None
    files: dict[str, str] = field(default_factory=dict)
    note: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError("a count is negative", got=self.count, remedy="Count again.")


GOOD = {"name": "n", "count": 1, "inner": {"rate": 2}, "sizes": [1, 2], "pair": ["x", 3], "files": {"a": "b"}}


def test_plain_values_become_the_dataclass() -> None:
    found = decode(Record, GOOD, "record", BundleError)
    assert found == Record("n", 1, Inner(2.0), (1, 2), ("x", 3), {"a": "b"})
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": 1}, "record has unknown keys: other; expected some of count, "),
        ({"name": 3}, "record: name is of another type; got 3; expected a string"),
        ({"count": True}, "record: count is of another type; got True; expected an integer"),
        ({"count": 2**70}, "record: count is of another type"),
        ({"count": 1.0}, "record: count is of another type"),
        ({"inner": {"rate": "fast"}}, "record: inner: rate is of another type; got 'fast'; expected a number"),
        ({"inner": {"rate": 1, "kind": "c"}}, "record: inner: kind; got 'c'; expected one of 'a', 'b'"),
        ({"inner": {}}, "record: inner lacks rate"),
        ({"inner": [1]}, "record: inner is not an object"),
        ({"sizes": [1, "2"]}, r"record: sizes\[1\] is of another type"),
        ({"sizes": 1}, "record: sizes is of another type; got 1; expected a list"),
        ({"pair": ["x"]}, "record: pair; got .*; expected 2 values"),
        ({"files": {"a": 1}}, "record: files: a is of another type"),
        ({"count": -1}, "record: a count is negative; got -1. Count again."),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        decode(Record, GOOD | change, "record", BundleError)


@pytest.mark.parametrize("raw", [b"{", b"\xff", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000])
def test_what_is_not_json_is_refused(raw: bytes | str) -> None:
    with pytest.raises(InputError, match="it is not valid JSON"):
        parse(raw, "it", InputError)


def test_a_complete_value_leaves_nothing_to_defaults() -> None:
    whole = {**GOOD, "inner": {"rate": 2, "kind": "b"}, "note": None}
    assert decode(Record, whole, "record", BundleError, complete=True).inner.kind == "b"
    with pytest.raises(BundleError, match="record lacks note"):
        decode(Record, GOOD, "record", BundleError, complete=True)
    with pytest.raises(BundleError, match="record: inner lacks kind"):
        decode(Record, whole | {"inner": {"rate": 2}}, "record", BundleError, complete=True)


@pytest.mark.parametrize("value", [{}, {"schema_version": 2}, {"schema_version": True}, {"schema_version": "1"}])
def test_another_schema_is_refused_before_its_keys_are_looked_at(value: dict[str, Any]) -> None:
    check_schema({"schema_version": 1, "other": 2}, 1, "it", InputError)
    with pytest.raises(InputError, match=r"it has a schema version that is not known; got .*; expected 1"):
        check_schema(value, 1, "it", InputError)
    with pytest.raises(InputError, match="it is not an object"):
        check_schema([value], 1, "it", InputError)
