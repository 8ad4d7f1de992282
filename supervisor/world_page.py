"""The reference page of the world of actors, docs/reference/actor-world.md, made of its WIT text. Pure.

Reads the part of WIT that our own text is written in (one declaration a line or a block, `///` before it), not any WIT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ipc.struct import Struct

_HEAD = """# The world of an actor

<!-- Made of wit/airssys-core.wit by scripts/generate-docs: change it there, or in supervisor/world_page.py. -->

`wit/airssys-core.wit`, package `{package}`, world `{world}`: what a long-lived component offers, and what it may
ask of its host. It is built with any tool of the [component model](https://component-model.bytecodealliance.org/);
[the tutorial](../tutorial/components-that-talk.md) does it in C, Python and JavaScript,
[the guide](../how-to/write-an-actor.md) in any language. `airssys schema wit` prints it. It may import WASI 0.2, too:
files come through the warden, as for every component.
What `initialize` gets are the parameters of the manifest, and what `metadata` says others see from then on.

Everything that a component is refused is an error value, never a trap. What it may do is asked for in its
[Component.toml](component-toml.md#capabilities) and decided in the broker, which knows who speaks by the connection's
key. A call that takes longer than the host allows, or that traps, ends the instance.

| language | tool | an error is |
|---|---|---|
| C | zig cc and wasm-tools, with `wit/c/actor.h` | `result.failed` and `result.error` |
| Python | componentize-py | raised: `componentize_py_types.Err(value)` |
| JavaScript | componentize-qjs | thrown, by the host as by you: `{{ tag: 'failed', val: 'why' }}` |
"""


class Declaration(Struct, frozen=True):
    """A function, type or block of WIT: its head, what was said before it, and its members."""

    name: str
    kind: str
    text: str
    said: str
    members: tuple[Declaration, ...] = ()


def declarations_of(wit: str) -> tuple[Declaration, ...]:
    """Return the declarations of a WIT text, without `use`."""
    return tuple(_declarations(iter(wit.splitlines())))


def _declarations(lines: Iterator[str]) -> Iterator[Declaration]:
    said: list[str] = []
    for raw in lines:
        line = raw.strip()
        if line == "}":
            return
        if line.startswith("///"):
            said.append(line.removeprefix("///").strip())
            continue
        if line and not line.startswith("use "):
            yield _declaration(line, " ".join(said), lines)
        said = []


def _declaration(line: str, said: str, lines: Iterator[str]) -> Declaration:
    block = re.fullmatch(r"(interface|world|record|variant) ([\w-]+) \{", line)
    if block:
        return Declaration(block[2], block[1], line.removesuffix(" {"), said, tuple(_declarations(lines)))
    text = line.rstrip(",;")
    if named := re.fullmatch(r"(package|type|enum|import|export) ([\w:@.-]+).*", text):
        return Declaration(named[2], named[1], text, said)
    name, _, rest = text.partition(": ")
    return Declaration(name, "function" if rest.startswith("func(") else "member", text, said)


def world_page(wit: str) -> str:
    """Return the page."""
    every = declarations_of(wit)
    by_name = {each.name: each for each in every if each.kind == "interface"}
    package = next(each.name for each in every if each.kind == "package")
    world = next(each for each in every if each.kind == "world")
    parts = [_HEAD.format(package=package, world=world.name)]
    for title, kind in (("What an actor offers", "export"), ("What it may ask", "import")):
        parts.append(f"## {title}\n")
        parts += [_interface(by_name[each.name]) for each in world.members if each.kind == kind]
    parts.append("## Types\n")
    parts += [_type(each) for each in by_name["types"].members]
    return "\n".join(parts)


def _interface(interface: Declaration) -> str:
    rows = [f"| `{_cell(each.text)}` | {_cell(each.said)} |" for each in interface.members]
    head = f"### {interface.name}\n\n{interface.said}\n\n| function | |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _type(type_: Declaration) -> str:
    if not type_.members:
        return f"### {type_.name}\n\n{type_.said}\n\n`{type_.text}`\n"
    word = "case" if type_.kind == "variant" else "field"
    rows = [f"| `{_cell(each.text)}` | {_cell(each.said)} |" for each in type_.members]
    return f"### {type_.name}\n\n{type_.said} A {type_.kind}:\n\n| {word} | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
