"""The world of actors is one thing in its WIT text, on its page, in the C header and in the guests built from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import wasmtime
from wasmtime.component import Component
from wasmtime.component import _types as types

from supervisor.manifest import parse_manifest
from supervisor.manifest.findings import uncovered_imports
from supervisor.world_page import Declaration, declarations_of, world_page

ROOT = Path(__file__).resolve().parents[2]
WIT = (ROOT / "wit/airssys-core.wit").read_text()
HEADER = (ROOT / "wit/c/actor.h").read_text()
PACKAGE = "airssys:core/{}@1.0.0"
ACTORS = [*(ROOT / "examples").glob("*/*.wasm"), *(ROOT / "tests/guests/actors").glob("*.wasm")]


def members(kind: str) -> dict[str, dict[str, str]]:
    """Return interface → function → its text, of those that the world imports or exports."""
    every = {each.name: each for each in declarations_of(WIT)}
    return {
        PACKAGE.format(each.name): {function.name: function.text for function in every[each.name].members}
        for each in every["actor"].members
        if each.kind == kind
    }


def test_the_page_is_made_of_the_text() -> None:
    """docs/reference/actor-world.md is what scripts/generate-docs makes, and has a row for each function and type."""
    page = (ROOT / "docs/reference/actor-world.md").read_text()
    assert page == f"{world_page(WIT).rstrip()}\n"
    for functions in (*members("import").values(), *members("export").values()):
        for text in functions.values():
            assert f"| `{text}` |" in page


def test_nothing_is_without_a_word() -> None:
    """Each interface, function, type, field and case says what it is for."""

    def silent(declarations: tuple[Declaration, ...]) -> list[str]:
        found = [
            each.name for each in declarations if not each.said and each.kind not in ("package", "import", "export")
        ]
        return found + [name for each in declarations if each.kind != "world" for name in silent(each.members)]

    assert silent(tuple(each for each in declarations_of(WIT) if each.kind != "world")) == []


def test_the_header_imports_and_exports_the_world() -> None:
    """wit/c/actor.h has each function of the world by its full name, and no other."""
    found = re.findall(r'ACTOR_IMPORT\("([\w-]+)", "([\w-]+)"\)', HEADER)
    imported = {(PACKAGE.format(interface), function) for interface, function in found}
    assert imported == {(name, function) for name, functions in members("import").items() for function in functions}
    exported = set(re.findall(r'ACTOR_EXPORT\("([\w-]+)"\)', HEADER))
    (functions,) = members("export").values()
    assert exported == set(functions)
    assert "@1.0.0" in HEADER
    assert set(re.findall(r"airssys:core/[\w-]*@([\d.]+)", HEADER)) <= {"1.0.0"}


def test_the_headers_errors_are_the_texts() -> None:
    """The enumeration of error kinds has the cases of the variant, in its order; so have health and levels."""
    types = {each.name: each for each in declarations_of(WIT) if each.kind == "interface"}["types"].members
    cases = {each.name: each for each in types}
    kinds = re.search(r"enum actor_error_kind \{(.*?)\};", HEADER, re.DOTALL)
    assert kinds
    named = re.findall(r"ACTOR_(\w+),", kinds[1])
    expected = [case.text.partition("(")[0] for case in cases["error"].members]
    assert [name.lower().replace("_", "-") for name in named] == expected
    for enum, marker in (("health-status", "actor_health"), ("log-level", "actor_level")):
        words = re.findall(r"[\w-]+", cases[enum].text.partition("{")[2])
        names = re.search(rf"enum {marker} \{{(.*?)\}};", HEADER)
        assert names
        listed = [name.strip().lower().removeprefix("actor_").removeprefix("health_") for name in names[1].split(",")]
        assert listed == words


def fields_of(declaration: Declaration) -> tuple[tuple[str, str], ...]:
    """Return the members of a record or variant, or the words of an enum, each with its type's text."""
    if declaration.kind == "enum":
        return tuple((word, "") for word in re.findall(r"[\w-]+", declaration.text.partition("{")[2]))
    parts = [re.fullmatch(r"([\w-]+)(?:: (.*)|\((.*)\))?", member.text) for member in declaration.members]
    return tuple((part[1], part[2] or part[3] or "") for part in parts if part)


def text_of(type_: object, named: dict[tuple[tuple[str, str], ...], str]) -> str:
    """Return a type as our WIT writes it; records, variants and enums are found by what they are made of."""

    def inner(other: object) -> str:
        return "_" if other is None else text_of(other, named)

    match type_:
        case types.ListType():
            return "payload" if isinstance(type_.element, types.U8) else f"list<{inner(type_.element)}>"
        case types.OptionType():
            return f"option<{inner(type_.payload)}>"
        case types.ResultType():
            return f"result<{inner(type_.ok)}, {inner(type_.err)}>"
        case types.TupleType():
            return f"tuple<{', '.join(map(inner, type_.elements))}>"
        case types.RecordType():
            return named[tuple((name, inner(field)) for name, field in type_.fields)]
        case types.VariantType():
            return named[tuple((name, "" if case is None else inner(case)) for name, case in type_.cases)]
        case types.EnumType():
            return named[tuple((name, "") for name in type_.names)]
        case _:
            return type(type_).__name__.lower()


def functions_of(extern: types.ComponentExtern, engine: wasmtime.Engine) -> dict[str, str]:
    """Return the functions of an imported or exported interface, as WIT writes them."""
    declared = {each.name: each for each in declarations_of(WIT) if each.kind == "interface"}["types"].members
    named = {fields_of(each): each.name for each in declared}
    found = {}
    for name, one in extern.ty.exports(engine).items():
        if isinstance(one.ty, types.FuncType):
            parameters = ", ".join(f"{each}: {text_of(kind, named)}" for each, kind in one.ty.params)
            returns = "" if one.ty.result is None else f" -> {text_of(one.ty.result, named)}"
            found[name] = f"{name}: func({parameters}){returns}"
    return found


def test_what_the_world_imports_is_provided() -> None:
    """`airssys check` names none of the world's interfaces as one that nothing provides, but another version's."""
    directory = ROOT / "examples/echo"
    manifest = parse_manifest(
        (directory / "Component.toml").read_bytes(), file="Component.toml", directory=str(directory)
    )
    names = [*members("import"), PACKAGE.format("types")]
    assert uncovered_imports(names, manifest) == ()
    assert len(uncovered_imports([name.replace("1.0.0", "2.0.0") for name in names], manifest)) == len(names)


@pytest.mark.parametrize("name", ["echo", "publisher", "subscriber", "misbehaving", "bench"])
def test_a_guest_has_the_functions_of_the_text(name: str) -> None:
    """What a committed component imports and exports of our package is the world's, type by type, and nothing else."""
    engine = wasmtime.Engine()
    (path,) = [each for each in ACTORS if each.stem == name]
    component = Component(engine, path.read_bytes()).type
    imports, exports = component.imports(engine), component.exports(engine)
    ours = {each: functions_of(extern, engine) for each, extern in imports.items() if each.startswith("airssys:")}
    assert ours.pop(PACKAGE.format("types"), {}) == {}
    wanted = {each: _unescaped(functions) for each, functions in members("import").items()}
    for interface, functions in ours.items():
        assert functions.items() <= wanted[interface].items()
    if name == "misbehaving":
        assert ours == wanted
    else:
        assert not [each for each in imports if each.startswith("wasi:")]
    found = {each: functions_of(extern, engine) for each, extern in exports.items()}
    assert found == {each: _unescaped(functions) for each, functions in members("export").items()}


def _unescaped(functions: dict[str, str]) -> dict[str, str]:
    return {name: text.replace("%", "") for name, text in functions.items()}
