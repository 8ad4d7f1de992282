"""Plain values for msgpack, and strict reading of them: these documents only ever come from our own supervisor."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from ipc.errors import LocalProtocolError


def wire_text(text: str) -> str | bytes:
    """Text as msgpack can carry it: bytes where it holds surrogate escapes (PEP 383), which are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def wire_texts(texts: Sequence[str]) -> list[str | bytes]:
    """`wire_text` of each."""
    return [wire_text(text) for text in texts]


def refuse(what: str, expected: str, got: object) -> NoReturn:
    """Raise the error that names what was expected, and the type of what was found."""
    raise LocalProtocolError(f"{what}: expected {expected}, got {type(got).__name__}")


def require_map(value: object, what: str, keys: Sequence[str]) -> dict[str, object]:
    """The map, which must hold exactly these keys."""
    if not isinstance(value, Mapping):
        refuse(what, "a map", value)
    if set(value) != set(keys):
        raise LocalProtocolError(f"{what}: expected the keys {sorted(keys)}, got {sorted(map(repr, value))}")
    return {str(key): item for key, item in value.items()}


def text_of(value: object, what: str) -> str:
    """The text, given as such or as the bytes of surrogate escapes."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    refuse(what, "text", value)


def require_text(fields: Mapping[str, object], key: str) -> str:
    """The text under a key."""
    return text_of(fields[key], key)


def require_bool(fields: Mapping[str, object], key: str) -> bool:
    """The boolean under a key."""
    value = fields[key]
    if not isinstance(value, bool):
        refuse(key, "a boolean", value)
    return value


def require_list(fields: Mapping[str, object], key: str) -> list[object]:
    """The list under a key; msgpack may give lists as tuples."""
    value = fields[key]
    if not isinstance(value, list | tuple):
        refuse(key, "a list", value)
    return list(value)


def require_texts(fields: Mapping[str, object], key: str) -> tuple[str, ...]:
    """The texts in the list under a key."""
    return tuple(text_of(item, key) for item in require_list(fields, key))


def require_scalars(fields: Mapping[str, object], key: str) -> tuple[tuple[str, str | int | bool], ...]:
    """The texts, integers and booleans in the map under a key, by their names."""
    value = fields[key]
    if not isinstance(value, Mapping):
        refuse(key, "a map", value)
    found: list[tuple[str, str | int | bool]] = []
    for name, item in value.items():
        if not isinstance(item, str | int | bool):
            refuse(f"{key}.{name}", "text, an integer or a boolean", item)
        found.append((str(name), item))
    return tuple(found)
