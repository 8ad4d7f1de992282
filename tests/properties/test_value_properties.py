"""Values of the component model: any value of any type is the same when it has been made and read."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
            (Option(kind), st.none() | value),
            (Result(kind, String()), st.builds(Ok, value) | st.builds(Err, TEXT)),
            (Result(None, kind), st.just(Ok()) | st.builds(Err, value)),
        ]
        if kind != Integer("u8"):
            found.append((List(kind), st.lists(value, max_size=4)))
        return found

    no_option = inner.filter(lambda part: not isinstance(part[0], Option))
    return st.one_of(
        no_option.flatmap(lambda part: st.sampled_from(one(part))),
        st.lists(inner, min_size=1, max_size=3).flatmap(lambda parts: st.sampled_from(several(parts))),
    )


TYPED = st.recursive(st.sampled_from(LEAVES), _composed, max_leaves=6)


@given(st.data())
def test_what_was_made_reads_the_same(data: st.DataObject) -> None:
    """In memory that is lent for a call, and in the engine's own, which it takes back whole."""
    kind, values = data.draw(TYPED)
    value = data.draw(values)
    lender = Lender()
    assert kind.lift(kind.lower(value, lender), 0) == value
    lender.take_back()
    assert kind.lift(kind.lower(value, lender), 0) == value

    import ctypes

    given_bytes = kind.lower(value, Giver())
    assert kind.lift(given_bytes, 0) == value
    owned = ctypes.create_string_buffer(given_bytes, len(given_bytes))
    delete(ctypes.addressof(owned))
