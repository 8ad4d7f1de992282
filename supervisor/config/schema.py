"""JSON Schema (draft 2020-12) of Component.toml and airssys.toml, made by letting the readers of both read along.

Nothing is listed here: a `Section` that reads nothing notes what the reader asks of it, which keys, of which type, and
where the reader says that these were all. So the schema can't know another key than the reader does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from supervisor.config.toml_reader import Check, Document, Section
from supervisor.config.toml_source import KeyPath, TomlSource
from supervisor.config.units import UnitError
from supervisor.manifest.checks import MAX_TEXT_CHARACTERS, TextForm

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ANY_NAME: Final = "*"
"""Stands for every name of a table whose keys the author chooses."""
_TURNS: Final = 8
"""More than any choice has words: what a reader asks for may depend on the word that it was given."""
_SCALAR: Final[dict[str, object]] = {"type": ["string", "integer", "boolean"]}

JsonSchema = dict[str, object]


def component_schema() -> JsonSchema:
    """Return the schema of Component.toml."""
    from supervisor.manifest.parse import read_document

    return _schema("Component.toml", lambda document: read_document(document, "/component", ""))


def host_schema() -> JsonSchema:
    """Return the schema of airssys.toml and the files of airssys.d."""
    from supervisor.config.settings import HostDirectories
    from supervisor.config.settings_reader import read_document

    directories = HostDirectories("/state", "/data", "/run", "/log")
    # Each file names its version; the reader, which sees them merged, asks for that beforehand.
    return _schema("airssys.toml", lambda document: read_document(document, directories, ()), ("schema",))


def _schema(title: str, read: Callable[[Document], object], required: Sequence[str] = ()) -> JsonSchema:
    root = _Table()
    for turn in range(_TURNS):
        read(_SchemaDocument(root, turn))
    found = root.to_schema()
    if required:
        found["required"] = list(required)
    return {"$schema": DIALECT, "title": title, **found}


class _Table:
    """What is known of one table so far."""

    def __init__(self) -> None:
        self.keys: dict[str, JsonSchema | _Table | list[_Table]] = {}
        self.closed = False
        self.turns: set[int] = set()
        self._required: dict[str, set[int]] = {}

    def require(self, key: str, turn: int) -> None:
        self._required.setdefault(key, set()).add(turn)

    def table(self, key: str) -> _Table:
        known = self.keys.setdefault(key, _Table())
        # Read as something else before: then only a message is made of it now.
        return known if isinstance(known, _Table) else _Table()

    def required(self) -> list[str]:
        """Return the keys that have to be there: what only some words of a choice require isn't among them."""
        tables = [key for key, value in self.keys.items() if isinstance(value, _Table) and value.required()]
        required = [key for key, turns in self._required.items() if turns == self.turns]
        return [key for key in self.keys if key in (*tables, *required) and key != ANY_NAME]

    def to_schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "object"}
        named = {key: _rendered(value) for key, value in self.keys.items() if key != ANY_NAME}
        if named:
            schema["properties"] = named
        required = self.required()
        if required:
            schema["required"] = required
        if ANY_NAME in self.keys:
            schema["additionalProperties"] = _rendered(self.keys[ANY_NAME])
        elif self.closed:
            schema["additionalProperties"] = False
        return schema


def _rendered(value: JsonSchema | _Table | list[_Table]) -> JsonSchema:
    if isinstance(value, _Table):
        return value.to_schema()
    if isinstance(value, list):
        return {"type": "array", "items": value[0].to_schema()}
    # An array whose elements may be tables holds them as such until now.
    items = value.get("items")
    if isinstance(items, dict) and isinstance(choices := items.get("anyOf"), list):
        return {**value, "items": {"anyOf": [c.to_schema() if isinstance(c, _Table) else c for c in choices]}}
    return value


class _SchemaDocument(Document):
    """An empty document that is read along; `turn` chooses among the words of each choice."""

    __slots__ = ("tables", "turn")

    def __init__(self, root: _Table, turn: int) -> None:
        super().__init__(TomlSource("", {}, {}))
        self.turn = turn
        self.tables: dict[KeyPath, _Table] = {(): root}

    def section_at(self, path: KeyPath, values: Mapping[str, object]) -> Section:  # noqa: ARG002 - nothing is read
        return _SchemaSection(self, path, self.tables[path])


class _SchemaSection(Section):
    """Reads nothing and notes what is asked for."""

    __slots__ = ("_read_along", "_table")

    def __init__(self, document: _SchemaDocument, path: KeyPath, table: _Table) -> None:
        super().__init__(document, path, {ANY_NAME: {}})
        self._read_along = document
        self._table = table
        table.turns.add(document.turn)

    def __contains__(self, key: str) -> bool:
        return True

    def section(self, key: str) -> Section:
        return self._at((*self.path, key), self._table.table(key))

    def sections(self) -> Iterator[tuple[str, Section]]:
        yield ANY_NAME, self.section(ANY_NAME)

    def array_of_sections(self, key: str) -> list[Section]:
        known = self._table.keys.get(key)
        tables = known if isinstance(known, list) else [_Table()]
        self._table.keys[key] = tables
        return [self._at((*self.path, key, 0), tables[0])]

    def elements(self, key: str) -> list[tuple[KeyPath, object]]:
        known = self._table.keys.get(key)
        if not isinstance(known, dict):
            known = {"type": "array", "items": {"anyOf": [{"type": "string"}, _Table()]}}
            self._table.keys[key] = known
        items = known["items"]
        assert isinstance(items, dict)
        path: KeyPath = (*self.path, key, 1)
        self._read_along.tables[path] = items["anyOf"][1]
        return [((*self.path, key, 0), "x"), (path, {})]

    def text(self, key: str, check: Check | None = None, *, default: str | None = None, required: bool = False) -> str:
        self._note(key, _text_schema(check), required)
        return default or ""

    def optional_text(self, key: str, check: Check | None = None) -> str | None:
        self.text(key, check)
        return None

    def texts(
        self, key: str, check: Check | None = None, *, distinct: bool = True, needed: str = ""
    ) -> tuple[str, ...]:
        schema: JsonSchema = {"type": "array", "items": _text_schema(check)}
        if distinct:
            schema["uniqueItems"] = True
        if needed:
            schema["minItems"] = 1
        self._note(key, schema, bool(needed))
        return ()

    def text_map(
        self, key: str, check: Check | None = None, key_check: Check | None = None
    ) -> tuple[tuple[str, str], ...]:
        schema: JsonSchema = {"type": "object", "additionalProperties": _text_schema(check)}
        if key_check is not None:
            schema["propertyNames"] = _text_schema(key_check)
        self._note(key, schema)
        return ()

    def integer(self, key: str, *, minimum: int, maximum: int) -> int | None:
        self._note(key, {"type": "integer", "minimum": minimum, "maximum": maximum})
        return None

    def boolean(self, key: str, *, default: bool) -> bool:
        self._note(key, {"type": "boolean", "default": default})
        return default

    def quantity(self, key: str, parse: Callable[[str], int]) -> int | None:
        schema: JsonSchema = {"type": "string"}
        try:
            parse("")
        except UnitError as error:
            schema["description"] = error.expected
        self._note(key, schema)
        return None

    def choice(
        self,
        key: str,
        choices: tuple[str, ...],
        *,
        default: str,  # noqa: ARG002 - each word has its turn
        required: bool = False,
    ) -> str:
        self._note(key, {"enum": list(choices)}, required)
        return choices[self._read_along.turn % len(choices)]

    def fixed(self, key: str, value: int, *, missing: str = "") -> None:
        self._note(key, {"const": value}, bool(missing))

    def scalar(self, key: str) -> str | int | bool | None:
        self._note(key, dict(_SCALAR))
        return None

    def free_table(self, key: str) -> Mapping[str, object]:
        self._note(key, {"type": "object"})
        return {}

    def raw(self, key: str) -> object:
        # Whoever reads it so reads it by its type elsewhere, or takes any scalar.
        if key not in self._table.keys:
            self._note(key, dict(_SCALAR))
        return None

    def finish(self) -> None:
        self._table.closed = True

    def _take(self, key: str) -> object:  # noqa: ARG002 - nothing is there
        return None

    def _at(self, path: KeyPath, table: _Table) -> Section:
        self._read_along.tables[path] = table
        return _SchemaSection(self._read_along, path, table)

    def _note(self, key: str, schema: JsonSchema, required: bool = False) -> None:
        self._table.keys[key] = schema
        if required:
            self._table.require(key, self._read_along.turn)


def _text_schema(check: Check | None) -> JsonSchema:
    """Return the schema of a text, with what the check says that it expects of one that is certainly wrong."""
    schema: JsonSchema = {"type": "string"}
    if check is None:
        return schema
    expected = check("\0")
    if expected is not None:
        # What is in parentheses at the end is about the text that was tried.
        schema["description"] = re.sub(r" \((?:at character .*|[^()\"]*)\)$", "", expected)
    if isinstance(check, TextForm):
        schema["pattern"] = f"^(?:{check.expression.pattern})$"
        if check.most_characters < MAX_TEXT_CHARACTERS:
            schema["maxLength"] = check.most_characters
    return schema
