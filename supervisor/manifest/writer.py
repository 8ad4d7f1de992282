"""The text of a Component.toml that asks for exactly what one run used. Pure.

Paths are written relative to what the host can place: beneath `${component}`, `${tmp}`, or a parameter for the working
directory and for each mounted one; what lies elsewhere keeps its absolute path.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterable, Mapping
from typing import Final

from ipc.policy.patterns import PatternError, parse_pattern, with_any_for_refused
from ipc.struct import Struct
from supervisor.config.units import format_duration, format_size
from supervisor.manifest import checks
from supervisor.manifest.template import PATTERN_CHARACTERS

_SECTIONS: Final = (("filesystem.read", "read"), ("filesystem.write", "write"), ("filesystem.list", "list"))
_UNDECODABLE: Final = re.compile("[\ud800-\udfff]")
_DENIED_SHOWN: Final = 20


class Anchor(Struct, frozen=True):
    """A directory that a manifest names by a variable; `parameter` where the host has to place it."""

    variable: str
    directory: str
    parameter: str = ""
    description: str = ""


class Draft(Struct, frozen=True):
    """What a manifest is written from; paths are real host paths, `denied` is what was wanted and refused."""

    name: str
    version: str
    wasm: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    passed_on: tuple[str, ...]
    """Variables whose values came from the caller's environment: parameters, as a value may be anybody's secret."""
    secrets: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]
    anchors: tuple[Anchor, ...]
    patterns: Mapping[str, tuple[str, ...]]
    denied: tuple[tuple[str, str], ...]
    memory_bytes: int
    timeout_ns: int | None
    fuel: int | None
    output_bytes: int | None
    notes: tuple[str, ...] = ()
    """What else a reader should know, a line each."""
    storage: str = ""
    """The storage quota as it is written; empty where nothing is written to."""


def can_be_a_value(path: str) -> bool:
    """Whether a variable may stand for this path: nothing in it may mean anything in a pattern."""
    plain = not any(character in PATTERN_CHARACTERS for character in path) and "${" not in path
    return plain and checks.check_absolute_path(path) is None


def is_text(text: str) -> bool:
    """Whether TOML, which is UTF-8, can hold it."""
    return _UNDECODABLE.search(text) is None


def parameter_anchors(
    directories: Iterable[tuple[str, str]], taken: Iterable[str], reserved: Iterable[str] = ()
) -> tuple[Anchor, ...]:
    """Return an anchor with a parameter of its own for each (directory, description) that no `taken` one contains.

    `reserved` are names of parameters that something else has.
    """
    reserved = frozenset(reserved)
    anchors: list[Anchor] = []
    held = list(taken)
    for directory, description in directories:
        inside = any(directory == other or directory.startswith(other.rstrip("/") + "/") for other in held)
        if inside or directory == "/" or not can_be_a_value(directory):
            continue
        base = re.sub(r"[^a-z0-9]+", "-", os.path.basename(directory).lower()).strip("-")
        base = base if base and base[0].isalpha() else f"dir-{base}".rstrip("-")
        name, number = base[:60], 1
        while name in reserved or any(anchor.parameter == name for anchor in anchors):
            number += 1
            name = f"{base[:56]}-{number}"
        anchors.append(Anchor(f"${{param.{name}}}", directory, name, description))
        held.append(directory)
    return tuple(anchors)


def anchored(path: str, anchors: Iterable[Anchor]) -> str:
    """Return a path or pattern with the innermost anchor that contains it in place of that directory."""
    best: Anchor | None = None
    for anchor in anchors:
        contains = path == anchor.directory or path.startswith(anchor.directory + "/")
        if contains and (best is None or len(anchor.directory) > len(best.directory)):
            best = anchor
    return path if best is None else best.variable + path[len(best.directory) :]


def manifest_text(draft: Draft) -> str:
    """Return the whole file."""
    shown = draft.denied[:_DENIED_SHOWN]
    used = [anchor for anchor in draft.anchors if anchor.parameter and _is_used(anchor, draft)]
    patterns, unwritten = _written_patterns(draft)
    parts = [
        "# Written by airssys from what one run used. It is a request: review it, then run its directory.",
        *(f"# Refused in that run, and not asked for: {verb} {_comment(path)}" for verb, path in shown),
        *([f"# … and {more} more"] if (more := len(draft.denied) - len(shown)) else []),
        *(f"# {note}" for note in (*draft.notes, *unwritten)),
        "schema = 1",
        "",
        "[component]",
        f"name = {_string(draft.name)}",
        f"version = {_string(draft.version)}",
        f"wasm = {_string(draft.wasm)}",
    ]
    if draft.arguments:
        parts.append(f"args = {_strings(_argument(text, draft.anchors) for text in draft.arguments)}")
    environment = {name: _argument(value, draft.anchors) for name, value in draft.environment}
    environment.update((name, f"${{param.{parameter_of(name)}}}") for name in draft.passed_on)
    parts += _table("component.env", environment)
    mounts = {guest: anchored(host, draft.anchors) for guest, host in draft.mounts}
    parts += _table("component.mounts", mounts, quoted=True)
    if used or draft.passed_on:
        parts += ["", "[parameters]"]
        as_outside = 'type = "string", description = "as in the environment"'
        parts += [f"{parameter_of(name)} = {{ {as_outside} }}" for name in draft.passed_on]
        for anchor in used:
            default, description = _string(anchor.directory), _string(anchor.description)
            parts.append(
                f'{anchor.parameter} = {{ type = "directory", default = {default}, description = {description} }}'
            )
    if any(patterns.values()):
        parts += ["", "[capabilities.filesystem]"]
        for verb, found in patterns.items():
            parts += _list(verb, found) if found else []
    if draft.secrets:
        parts += ["", "[capabilities.secrets]", f"env = {_strings(draft.secrets)}"]
    parts += ["", "[quota]", f"memory = {_string(format_size(draft.memory_bytes))}"]
    if draft.storage:
        parts.append(f"storage = {_string(draft.storage)}")
    limits = {
        "timeout": None if draft.timeout_ns is None else _string(format_duration(draft.timeout_ns)),
        "fuel": None if draft.fuel is None else str(draft.fuel),
        "output": None if draft.output_bytes is None else _string(format_size(draft.output_bytes)),
    }
    if any(limits.values()):
        parts += ["", "[limits]", *(f"{key} = {value}" for key, value in limits.items() if value is not None)]
    return "\n".join(parts) + "\n"


def _is_used(anchor: Anchor, draft: Draft) -> bool:
    texts = [
        *(host for _, host in draft.mounts),
        *(text for found in draft.patterns.values() for text in found),
        *(text for text in draft.arguments if text.startswith("/")),
        *(value for _, value in draft.environment if value.startswith("/")),
    ]
    return any(anchored(text, draft.anchors).startswith(anchor.variable) for text in texts)


def _argument(text: str, anchors: tuple[Anchor, ...]) -> str:
    placed = anchored(text, anchors) if text.startswith("/") else text
    if placed == text:
        return _literal(text)
    variable, close, rest = placed.partition("}")
    return variable + close + _literal(rest)


def _literal(text: str) -> str:
    return text.replace("${", "$${")


def parameter_of(name: str) -> str:
    """Return the parameter's name for a variable of the environment, which may begin with what a parameter's can't."""
    return name if checks.check_parameter_name(name) is None else f"env{name}"


def _written_patterns(draft: Draft) -> tuple[dict[str, list[str]], list[str]]:
    """Return verb → the patterns as they are written, and a note on each that none can be written for."""
    written: dict[str, list[str]] = {}
    notes = []
    for action, verb in _SECTIONS:
        found: dict[str, None] = {}
        for text in draft.patterns.get(action, ()):
            # What neither a pattern nor TOML, which is UTF-8, may hold stands for any one of its kind.
            pattern = with_any_for_refused(text, undecodable=True)
            try:
                parse_pattern(pattern)
            except PatternError as error:
                notes.append(
                    f"Not asked for, as no pattern can name it ({error.reason}): {verb} {_comment(text[:200])}"
                )
            else:
                found[anchored(pattern, draft.anchors)] = None
        written[verb] = list(found)
    return written, notes


def _table(name: str, entries: Mapping[str, str], quoted: bool = False) -> list[str]:
    if not entries:
        return []
    return [
        "",
        f"[{name}]",
        *(f"{_string(key) if quoted else key} = {_string(value)}" for key, value in entries.items()),
    ]


def _list(key: str, values: Iterable[str]) -> list[str]:
    texts = [_string(value) for value in values]
    if len(texts) == 1:
        return [f"{key} = [{texts[0]}]"]
    return [f"{key} = [", *(f"    {text}," for text in texts), "]"]


def _strings(values: Iterable[str]) -> str:
    return f"[{', '.join(_string(value) for value in values)}]"


def _string(text: str) -> str:
    """A basic string of TOML 1.0: JSON's escapes are among its own; what a reader couldn't see is escaped too."""
    quoted = json.dumps(_UNDECODABLE.sub("?", text), ensure_ascii=False)
    return "".join(character if character.isprintable() else f"\\U{ord(character):08X}" for character in quoted)


def _comment(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")
