"""Types and signatures as a person reads them: WIT's words, with records and variants written out where they stand."""

from __future__ import annotations

from worker.abi import Signature
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


def words_of(kind: Type) -> str:
    """Return a type in words, such as `list<option<u32>>`."""
    match kind:
        case Integer(name) | Float(name):
            return name
        case Bool():
            return "bool"
        case Char():
            return "char"
        case String():
            return "string"
        case Bytes():
            return "list<u8>"
        case List(element):
            return f"list<{words_of(element)}>"
        case Option(payload):
            return f"option<{words_of(payload)}>"
        case Tuple(elements):
            return f"tuple<{', '.join(map(words_of, elements))}>"
        case Record(fields):
            return f"record {{ {', '.join(f'{name}: {words_of(one)}' for name, one in fields)} }}"
        case Variant(cases):
            shown = (name if one is None else f"{name}({words_of(one)})" for name, one in cases)
            return f"variant {{ {', '.join(shown)} }}"
        case Enum(names):
            return f"enum {{ {', '.join(names)} }}"
        case Flags(names):
            return f"flags {{ {', '.join(names)} }}"
        case Result(None, None):
            return "result"
        case Result(ok, None) if ok is not None:
            return f"result<{words_of(ok)}>"
        case Result(ok, err):
            return f"result<{'_' if ok is None else words_of(ok)}, {'_' if err is None else words_of(err)}>"
    raise AssertionError(f"a type of its own: {type(kind).__name__}")


def signature_words(signature: Signature) -> str:
    """Return a signature in words, such as `func(a: s32, b: s32) -> s32`."""
    parameters = ", ".join(
        f"{name}: {words_of(kind)}" for name, kind in zip(signature.names, signature.parameters, strict=True)
    )
    returns = "" if signature.result is None else f" -> {words_of(signature.result)}"
    return f"func({parameters}){returns}"
