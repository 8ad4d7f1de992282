"""JSON for arguments: each mistake is told by its place, what was expected and what was found."""

from __future__ import annotations

import pytest

from worker.abi import Signature
from worker.exported import Exported, NoSuchFunctionError, find
from worker.json_values import JsonError, arguments_of
from worker.type_words import signature_words, words_of
from worker.value_types import (
    Bool,
    Bytes,
    Char,
    Enum,
    Flags,
    Float,
    Integer,
    List,
    Option,
    Record,
    Result,
    String,
    Tuple,
    Type,
    Variant,
)

U8 = Integer("u8")
POINT = Record((("x", Integer("s32")), ("y", Option(Float("f64")))))
SHAPE = Variant((("circle", Float("f64")), ("none", None)))


def read(text: str, kind: Type) -> object:
    """Return the one argument that a text is."""
    return arguments_of(f"[{text}]".encode(), Signature((kind,), None, ("it",)))[0]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (U8, "256", "it: expected a whole number from 0 to 255 (u8), found 256"),
        (U8, "true", "it: expected a whole number"),
        (U8, "1.0", "it: expected a whole number"),
        (U8, "1" * 5000, "a number has more than 400 digits"),
        (Bool(), "0", "it: expected true or false, found 0"),
        (Float("f32"), "1e39", "it: expected a number that f32 can hold"),
        (Float("f64"), "1e999", "it: expected a number that f64 can hold"),
        (Float("f64"), "NaN", 'for a float write "NaN", with quotes'),
        (Char(), '"ab"', "it: expected a string of one character"),
        (Char(), '"\\ud800"', "it: expected a string of one character"),
        (String(), '"\\ud800"', "without half a surrogate pair"),
        (Bytes(), '"a"', "it: expected base64"),
        (Bytes(), "[1, 256]", "it[1]: expected a whole number from 0 to 255"),
        (List(POINT), '[{"x": 1, "y": null}, {"x": "1", "y": 2}]', "it[1].x: expected a whole number"),
        (POINT, '{"x": 1}', 'it: the field "y" is missing (record { x: s32, y: option<f64> })'),
        (POINT, '{"x": 1, "y": 1, "z": 1}', 'it: no field "z"; there are "x", "y"'),
        (POINT, '{"x": 1, "x": 2, "y": 1}', 'an object has "x" twice'),
        (Tuple((U8, U8)), "[1]", "it: expected an array of 2"),
        (SHAPE, '"circle"', 'it: expected {"circle": payload}, with f64'),
        (SHAPE, '{"none": 1}', "it.none: expected nothing"),
        (SHAPE, '"square"', 'it: no case "square"; there are "circle", "none"'),
        (SHAPE, '{"circle": 1, "none": null}', 'it: expected {"CASE": payload}'),
        (Enum(("a", "b")), '"c"', 'it: expected one of "a", "b", found "c"'),
        (Flags(("a", "b")), '["c"]', 'it: expected an array of some of "a", "b"'),
        (Flags(("a", "b")), "[[]]", "it: expected an array of some of"),
        (Option(Option(U8)), "3", 'it: expected null or {"some": …}'),
        (Result(U8, None), '{"ok": 1, "error": null}', 'it: expected {"ok": …} or {"error": …}'),
        (Result(U8, None), '{"error": 1}', "it.error: expected null"),
        (String(), "[" * 100_000, "nested too deeply"),
        (String(), "{", "the arguments are not JSON"),
    ],
)
def test_what_is_wrong_is_told(kind: Type, text: str, words: str) -> None:
    """The message is one line, short, and has these words."""
    with pytest.raises(JsonError) as caught:
        read(text, kind)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_the_arguments_are_an_array_of_as_many_as_are_taken() -> None:
    """Anything else is refused, text that isn't UTF-8 among it."""
    signature = Signature((U8, U8), None, ("a", "b"))
    for text, words in ((b"1", "a JSON array"), (b"[1]", "takes 2 arguments, not 1"), (b"\xff", "not UTF-8")):
        with pytest.raises(JsonError, match=words):
            arguments_of(text, signature)
    assert arguments_of(b"[1, 2]", signature) == (1, 2)


def test_both_forms_of_bytes_and_of_a_case() -> None:
    """Base64 and an array of numbers are the same bytes; a case without a payload may be written with null."""
    assert read('"AP8="', Bytes()) == read("[0, 255]", Bytes()) == b"\0\xff"
    assert read('"none"', SHAPE) == read('{"none": null}', SHAPE) == ("none", None)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Bytes(), "list<u8>"),
        (List(Option(String())), "list<option<string>>"),
        (Tuple((Bool(), Char())), "tuple<bool, char>"),
        (SHAPE, "variant { circle(f64), none }"),
        (Flags(("a", "b")), "flags { a, b }"),
        (Result(None, None), "result"),
        (Result(U8, None), "result<u8>"),
        (Result(None, U8), "result<_, u8>"),
        (Result(U8, String()), "result<u8, string>"),
    ],
)
def test_types_read_as_in_wit(kind: Type, words: str) -> None:
    """Their words are WIT's."""
    assert words_of(kind) == words
    assert signature_words(Signature((kind,), kind, ("a",))) == f"func(a: {words}) -> {words}"


def test_a_version_of_an_interface_may_be_named() -> None:
    """Two versions of one interface are told apart by their full names alone."""
    nothing = Signature(())
    both = [Exported(f"a:b/c@{version}", "f", nothing) for version in ("1.0.0", "2.0.0")]
    assert find(both, "a:b/c@2.0.0", "f") is both[1]
    for asked in ("a:b/c", "c", ""):
        with pytest.raises(NoSuchFunctionError, match="several"):
            find(both, asked, "f")
    with pytest.raises(NoSuchFunctionError, match="exports no functions"):
        find([], "", "f")


def test_long_signatures_are_cut() -> None:
    """A signature of many types has some lines at most, and says that it goes on."""
    wide = Exported("", "f", Signature((Tuple((U8,) * 5000),), None, ("a",)))
    assert len(wide.words) < 2100
    assert wide.words.endswith("…")
