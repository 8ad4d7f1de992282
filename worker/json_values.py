"""JSON for values of the component model, by their types: what `airssys call` takes and prints.

A record is an object with exactly its fields, a variant `{"case": payload}` (a case without one its bare name, as an
enum's), a result `{"ok": …}` or `{"error": …}`, `list<u8>` base64 or an array of numbers (base64 when printed), flags
an array of names, an option null or its payload; that of an option in an option `{"some": …}`. Floats that JSON has no
numbers for are "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Any, Final

from worker.abi import Signature
from worker.type_words import words_of
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

_SHOWN_CHARACTERS: Final = 60
_TYPE_CHARACTERS: Final = 200
_NO_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonError(ValueError):
    """What was given is no value of its type; the text says where, what was expected, and what was found."""


def arguments_of(text: bytes, signature: Signature) -> tuple[Any, ...]:
    """Read a JSON array as the arguments of a function; raises JsonError."""
    found = _parse(text)
    if type(found) is not list:
        raise JsonError(f"the arguments are a JSON array, such as [1, 2]; this is {_shown(found)}")
    if len(found) != len(signature.parameters):
        wanted = len(signature.parameters)
        raise JsonError(f"it takes {wanted} argument{'' if wanted == 1 else 's'}, not {len(found)}")
    pairs = zip(signature.names, signature.parameters, found, strict=True)
    return tuple(from_json(one, kind, name) for name, kind, one in pairs)


def json_text(value: Any, kind: Type | None) -> str:
    """Return what a function has returned as one JSON document; that of nothing is null."""
    return json.dumps(None if kind is None else to_json(value, kind), ensure_ascii=False, allow_nan=False)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_Object.of_pairs, parse_constant=_refuse_constant, parse_int=_integer
        )
    except JsonError:
        raise
    except UnicodeDecodeError:
        raise JsonError("the arguments are not UTF-8") from None
    except RecursionError:
        raise JsonError("the arguments are nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"the arguments are not JSON: {error}") from None


class _Object(dict[str, Any]):
    """An object of JSON, in which no name comes twice."""

    @classmethod
    def of_pairs(cls, pairs: list[tuple[str, Any]]) -> _Object:
        made = cls(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise JsonError(f"an object has {_shown(twice)} twice")
        return made


def _refuse_constant(name: str) -> Any:
    raise JsonError(f'{name} is no JSON; for a float write "{name}", with quotes')


def _integer(digits: str) -> int:
    if len(digits) > 400:  # more than any float has; int() refuses thousands of digits with an error of its own
        raise JsonError("a number has more than 400 digits")
    return int(digits)


def _shown(value: Any) -> str:
    if isinstance(value, str | list | dict) and len(value) > _SHOWN_CHARACTERS:
        unit = {str: "characters", list: "elements"}.get(type(value), "members")
        name = {str: "a string", list: "an array"}.get(type(value), "an object")
        return f"{name} of {len(value)} {unit}"
    try:
        text = json.dumps(value)
    except RecursionError:
        return "something deep"
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _wrong(path: str, expected: str, found: Any) -> JsonError:
    return JsonError(f"{path}: expected {expected}, found {_shown(found)}")


def from_json(found: Any, kind: Type, path: str) -> Any:
    """Return the value of a type that parsed JSON stands for; `path` says where it is. Raises JsonError."""
    match kind:
        case Bool():
            if type(found) is not bool:
                raise _wrong(path, "true or false", found)
            return found
        case Integer():
            low, high = kind.bounds
            if type(found) is not int or not low <= found <= high:
                raise _wrong(path, f"a whole number from {low} to {high} ({kind.name})", found)
            return found
        case Float():
            return _float(found, kind, path)
        case Char():
            if type(found) is not str or len(found) != 1 or 0xD800 <= ord(found) <= 0xDFFF:
                raise _wrong(path, "a string of one character (char)", found)
            return found
        case String():
            return _string(found, path)
        case Bytes():
            return _bytes(found, path)
        case List(element):
            if type(found) is not list:
                raise _wrong(path, f"an array ({_named(kind)})", found)
            return [from_json(one, element, f"{path}[{number}]") for number, one in enumerate(found)]
        case Tuple(elements):
            if type(found) is not list or len(found) != len(elements):
                raise _wrong(path, f"an array of {len(elements)} ({_named(kind)})", found)
            pairs = enumerate(zip(found, elements, strict=True))
            return tuple([from_json(one, element, f"{path}[{number}]") for number, (one, element) in pairs])
        case Record(fields):
            return _record(found, kind, fields, path)
        case Option(payload):
            if found is None:
                return None
            if not kind.is_nested:
                return from_json(found, payload, path)
            if not isinstance(found, dict) or list(found) != ["some"]:
                raise _wrong(path, f'null or {{"some": …}} ({_named(kind)})', found)
            return Some(from_json(found["some"], payload, f"{path}.some"))
        case Variant(cases):
            return _variant(found, kind, cases, path)
        case Enum(names):
            if type(found) is not str or found not in names:
                raise _wrong(path, f"one of {_names(names)}", found)
            return found
        case Flags(names):
            return _flags(found, names, path)
        case Result():
            return _result(found, kind, path)
    raise AssertionError(f"a type of its own: {type(kind).__name__}")


def _named(kind: Type) -> str:
    words = words_of(kind)
    return words if len(words) <= _TYPE_CHARACTERS else words[: _TYPE_CHARACTERS - 1] + "…"


def _names(names: tuple[str, ...]) -> str:
    text = ", ".join(f'"{name}"' for name in names)
    return text if len(text) <= _TYPE_CHARACTERS else text[: _TYPE_CHARACTERS - 1] + "…"


def _string(found: Any, path: str) -> str:
    if type(found) is not str:
        raise _wrong(path, "a string", found)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise _wrong(path, "a string without half a surrogate pair", found) from None
    return found


def _float(found: Any, kind: Float, path: str) -> float:
    if type(found) is str and found in _NO_NUMBERS:
        return _NO_NUMBERS[found]
    if type(found) in (int, float):
        try:
            value = float(found)
            if kind.name == "f32":
                (value,) = struct.unpack("<f", struct.pack("<f", value))
        except OverflowError:
            value = math.inf
        # A number of JSON is finite: one that isn't any more is too large.
        if math.isfinite(value):
            return value
    raise _wrong(path, f'a number that {kind.name} can hold, "NaN", "Infinity" or "-Infinity"', found)


def _bytes(found: Any, path: str) -> bytes:
    if type(found) is str:
        try:
            return base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            raise _wrong(path, "base64 with its padding, or an array of numbers (list<u8>)", found) from None
    if type(found) is not list:
        raise _wrong(path, "base64 in a string, or an array of numbers (list<u8>)", found)
    for number, one in enumerate(found):
        if type(one) is not int or not 0 <= one <= 255:
            raise _wrong(f"{path}[{number}]", "a whole number from 0 to 255 (u8)", one)
    return bytes(found)


def _record(found: Any, kind: Record, fields: tuple[tuple[str, Type], ...], path: str) -> tuple[Any, ...]:
    if not isinstance(found, dict):
        raise _wrong(path, f"an object ({_named(kind)})", found)
    names = tuple(name for name, _ in fields)
    if missing := [name for name in names if name not in found]:
        raise JsonError(f"{path}: the field {_shown(missing[0])} is missing ({_named(kind)})")
    if unknown := [name for name in found if name not in names]:
        raise JsonError(f"{path}: no field {_shown(unknown[0])}; there are {_names(names)}")
    return tuple([from_json(found[name], one, f"{path}.{name}") for name, one in fields])


def _variant(found: Any, kind: Variant, cases: tuple[tuple[str, Type | None], ...], path: str) -> tuple[str, Any]:
    if type(found) is str:
        name, payload, given = found, None, False
    elif isinstance(found, dict) and len(found) == 1:
        ((name, payload),) = found.items()
        given = True
    else:
        raise _wrong(path, f'{{"CASE": payload}}, or the name of a case without one ({_named(kind)})', found)
    for case, one in cases:
        if case != name:
            continue
        if one is None:
            if payload is not None:
                raise _wrong(f"{path}.{case}", f'nothing (the case is written "{case}")', payload)
            return case, None
        if not given:
            raise _wrong(path, f'{{"{case}": payload}}, with {_named(one)}', found)
        return case, from_json(payload, one, f"{path}.{case}")
    raise JsonError(f"{path}: no case {_shown(name)}; there are {_names(tuple(case for case, _ in cases))}")


def _flags(found: Any, names: tuple[str, ...], path: str) -> frozenset[str]:
    if type(found) is not list or any(type(one) is not str or one not in names for one in found):
        raise _wrong(path, f"an array of some of {_names(names)}", found)
    return frozenset(found)


def _result(found: Any, kind: Result, path: str) -> Ok | Err:
    if not isinstance(found, dict) or list(found) not in (["ok"], ["error"]):
        raise _wrong(path, f'{{"ok": …}} or {{"error": …}} ({_named(kind)})', found)
    ((name, payload),) = found.items()
    one = kind.ok if name == "ok" else kind.err
    if one is None and payload is not None:
        raise _wrong(f"{path}.{name}", "null, which stands for nothing", payload)
    value = None if one is None else from_json(payload, one, f"{path}.{name}")
    return Ok(value) if name == "ok" else Err(value)


def to_json(value: Any, kind: Type) -> Any:
    """Return what `json.dumps` makes a value's JSON of."""
    match kind:
        case Float():
            return _of_float(value, kind)
        case Bytes():
            return base64.b64encode(value).decode()
        case List(element):
            return [to_json(one, element) for one in value]
        case Tuple(elements):
            return [to_json(one, element) for one, element in zip(value, elements, strict=True)]
        case Record(fields):
            return {name: to_json(one, field) for one, (name, field) in zip(value, fields, strict=True)}
        case Option(payload):
            if value is None:
                return None
            return {"some": to_json(value.value, payload)} if kind.is_nested else to_json(value, payload)
        case Variant(cases):
            case, payload = value
            one = dict(cases)[case]
            return case if one is None else {case: to_json(payload, one)}
        case Flags(names):
            return [name for name in names if name in value]
        case Result(ok, err):
            name, one = ("ok", ok) if isinstance(value, Ok) else ("error", err)
            return {name: None if one is None else to_json(value.value, one)}
    return value


def _of_float(value: float, kind: Float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if kind.name == "f32":
        # The shortest number that is this one as an f32: 0.1, where its own 64 bits read 0.10000000149011612.
        for digits in range(6, 9):
            short = float(f"{value:.{digits}g}")
            if struct.pack("<f", short) == struct.pack("<f", value):
                return short
    return value
