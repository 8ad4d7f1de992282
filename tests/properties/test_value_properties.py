"""Values of the component model: any value of any type is the same when it has been made and read, also as JSON."""

from __future__ import annotations

import ctypes
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.abi import Signature
from worker.json_values import JsonError, arguments_of, from_json, json_text, to_json
from worker.value_memory import Giver, Lender, delete
from worker.value_types import (
    Bool,
    Bytes,
    Char,
    Enum,
    Err,
    Flags,
    Float,
    Integer,
    List,
    Ok,
    Option,
    Record,
    Result,
    Some,
    String,
    Tuple,
    Type,
    Variant,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NAMES = ("a", "b-c", "d")
Typed = tuple[Type, st.SearchStrategy[Any]]


def _integer(name: str) -> Typed:
    bits = int(name[1:])
    low, high = (0, (1 << bits) - 1) if name[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
    return Integer(name), st.integers(low, high)


LEAVES: list[Typed] = [
    *map(_integer, ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")),
    (Bool(), st.booleans()),
    (Float("f64"), st.floats(allow_nan=False)),
    (Float("f32"), st.floats(allow_nan=False, width=32)),
    (Char(), st.characters(exclude_categories=("Cs",))),
    (String(), TEXT),
    (Bytes(), st.binary(max_size=3000)),
    (Enum(NAMES), st.sampled_from(NAMES)),
    (Flags(NAMES), st.frozensets(st.sampled_from(NAMES))),
]


def _composed(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def several(parts: list[Typed]) -> list[Typed]:
        kinds, values = tuple(kind for kind, _ in parts), [value for _, value in parts]
        names = [f"n{i}" for i in range(len(parts))]
        cases = [st.tuples(st.just(name), value) for name, value in zip(names, values, strict=True)]
        return [
            (Tuple(kinds), st.tuples(*values)),
            (Record(tuple(zip(names, kinds, strict=True))), st.tuples(*values)),
            (
                Variant((*zip(names, kinds, strict=True), ("none", None))),
                st.one_of(*cases, st.just(("none", None))),
            ),
        ]

    def one(part: Typed) -> list[Typed]:
        kind, value = part
        found: list[Typed] = [
            (Option(kind), st.none() | (st.builds(Some, value) if isinstance(kind, Option) else value)),
            (Result(kind, String()), st.builds(Ok, value) | st.builds(Err, TEXT)),
            (Result(None, kind), st.just(Ok()) | st.builds(Err, value)),
        ]
        if kind != Integer("u8"):
            found.append((List(kind), st.lists(value, max_size=4)))
        return found

    return st.one_of(
        inner.flatmap(lambda part: st.sampled_from(one(part))),
        st.lists(inner, min_size=1, max_size=3).flatmap(lambda parts: st.sampled_from(several(parts))),
    )


TYPED = st.recursive(st.sampled_from(LEAVES), _composed, max_leaves=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_what_was_made_reads_the_same(data: st.DataObject) -> None:
    """In memory that is lent for a call, and in the engine's own, which it takes back whole."""
    kind, values = data.draw(TYPED)
    value = data.draw(values)
    lender = Lender()
    assert kind.lift(kind.lower(value, lender), 0) == value
    lender.take_back()
    assert kind.lift(kind.lower(value, lender), 0) == value

    given_bytes = kind.lower(value, Giver())
    assert kind.lift(given_bytes, 0) == value
    owned = ctypes.create_string_buffer(given_bytes, len(given_bytes))
    delete(ctypes.addressof(owned))


@given(st.data())
def test_what_was_printed_reads_the_same(data: st.DataObject) -> None:
    """For any type: one line of text, which is JSON, and is the value again as an argument."""
    kind, values = data.draw(TYPED)
    value = data.draw(values)
    text = json_text(value, kind)
    assert "\n" not in text
    assert arguments_of(f"[{text}]".encode(), Signature((kind,), None, ("value",))) == (value,)


@given(st.data())
def test_other_json_is_refused_in_words_or_is_a_value(data: st.DataObject) -> None:
    """Whatever JSON is given for whatever type: an error that names its place, or a value that goes there and back."""
    kind, _ = data.draw(TYPED)
    found = data.draw(JSON)
    try:
        value = from_json(found, kind, "value")
    except JsonError:
        with pytest.raises(JsonError, match=r"^value"):
            from_json(found, kind, "value")
    else:
        assert from_json(json.loads(json.dumps(to_json(value, kind))), kind, "value") == value


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_floats_that_json_has_no_numbers_for(name: str, value: float) -> None:
    """They are strings, both ways."""
    text = json_text(value, Float(name))
    assert text.startswith('"')
    again = from_json(json.loads(text), Float(name), "value")
    assert again == value or (math.isnan(again) and math.isnan(value))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_an_f32_is_short_and_exact(value: float) -> None:
    """It has nine digits at most, and is the same number when it is read as an f32."""
    shown = to_json(value, Float("f32"))
    assert struct.pack("<f", shown) == struct.pack("<f", value)
