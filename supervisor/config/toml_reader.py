"""Typed reading of a TOML document: a wrong type, bad value or unknown key is a `Problem`, and none ends the reading.

A reader that stopped at the first problem would make people fix their file one error at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from supervisor.config.toml_source import KeyPath, Problem, TomlSource, key_name
from supervisor.config.units import UnitError

Check = Callable[[str], str | None]
"""Looks at a text and returns what was expected instead, or None where it is right."""

_MAX_SHOWN: Final = 60


class Document:
    """A TOML source being read, and the problems found so far."""

    __slots__ = ("problems", "source")

    def __init__(self, source: TomlSource) -> None:
        """Start reading `source`, with no problem yet."""
        self.source = source
        self.problems: list[Problem] = []

    @property
    def root(self) -> "Section":
        """The top-level table."""
        return self.section_at((), self.source.values)

    def section_at(self, path: KeyPath, values: Mapping[str, object]) -> "Section":
        """Return the reader of the table that stands at `path`."""
        return Section(self, path, values)

    def add(self, path: KeyPath, expected: str, got: str, hint: str = "") -> None:
        """Note one problem at a key."""
        origin = self.source.origin(path)
        self.problems.append(Problem(origin.file, origin.line, key_name(path), expected, got, hint))


class Section:
    """One table of a document. Each getter marks its key as known; `finish` reports the keys that nobody asked for."""

    __slots__ = ("_known", "document", "path", "values")

    def __init__(self, document: Document, path: KeyPath, values: Mapping[str, object]) -> None:
        """Look at the table that stands at `path`."""
        self.document = document
        self.path = path
        self.values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Tell whether the key is written."""
        return key in self.values

    def problem(self, key: str | None, expected: str, got: str, hint: str = "") -> None:
        """Note a problem at a key of this table, or at the table itself."""
        self.document.add(self.path if key is None else (*self.path, key), expected, got, hint)

    def section(self, key: str) -> "Section":
        """Return the table at `key`; an empty one where it is absent or isn't a table."""
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            self.problem(key, "a table", describe(value))
        return self.document.section_at((*self.path, key), value if isinstance(value, dict) else {})

    def sections(self) -> "Iterator[tuple[str, Section]]":
        """Yield every key of this table, each of which has to be a table."""
        for key in self.values:
            yield key, self.section(key)

    def array_of_sections(self, key: str) -> "list[Section]":
        """Return the tables of an array of tables such as `[[acl]]`."""
        found: list[Section] = []
        for path, value in self._elements(key, "an array of tables"):
            if isinstance(value, dict):
                found.append(self.document.section_at(path, value))
            else:
                self.document.add(path, "a table", describe(value))
        return found

    def text(self, key: str, check: Check | None = None, *, default: str | None = None, required: bool = False) -> str:
        """Return a string, `default` (or the empty string) where it is absent or wrong."""
        value = self._take(key)
        if isinstance(value, str) and self._passes((*self.path, key), value, check):
            return value
        if value is None and required:
            self.problem(key, "a value for this key", "nothing")
        elif value is not None and not isinstance(value, str):
            self.problem(key, "a string", describe(value))
        return default or ""

    def optional_text(self, key: str, check: Check | None = None) -> str | None:
        """Return a string, None where it is absent or wrong."""
        return self.text(key, check) if self._take(key) is not None else None

    def texts(
        self, key: str, check: Check | None = None, *, distinct: bool = True, needed: str = ""
    ) -> tuple[str, ...]:
        """Return an array of strings; those that are wrong are left out. `needed` says what an empty one lacks."""
        found: list[str] = []
        for path, value in self._elements(key, "an array of strings"):
            if not isinstance(value, str):
                self.document.add(path, "a string", describe(value))
            elif distinct and value in found:
                self.document.add(path, "each string once", f"{describe(value)} again")
            elif self._passes(path, value, check):
                found.append(value)
        if needed and not found:
            self.problem(key, needed, "none")
        return tuple(found)

    def text_map(
        self, key: str, check: Check | None = None, key_check: Check | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Return a table of strings as pairs, in the order in which they are written."""
        inner = self.section(key)
        found: list[tuple[str, str]] = []
        for name in inner.values:
            expected = key_check(name) if key_check else None
            if expected is not None:
                inner.problem(name, expected, f'the key "{name}"')
                continue
            before = len(self.document.problems)
            value = inner.text(name, check)
            if len(self.document.problems) == before:
                found.append((name, value))
        return tuple(found)

    def integer(self, key: str, *, minimum: int, maximum: int) -> int | None:
        """Return an integer within bounds, None where it is absent or wrong."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.problem(key, f"an integer from {minimum:,} to {maximum:,}", describe(value))
            return None
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return a boolean, `default` where it is absent or wrong."""
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            self.problem(key, "true or false", describe(value))
        return value if isinstance(value, bool) else default

    def quantity(self, key: str, parse: Callable[[str], int]) -> int | None:
        """Return an amount with a unit, such as `"50MB"`, None where it is absent or wrong."""
        value = self._take(key)
        if value is None:
            return None
        try:
            # A bare number would leave the unit to be guessed: the parser refuses "" and says what it wants.
            return parse(value if isinstance(value, str) else "")
        except UnitError as error:
            self.problem(key, error.expected, describe(value))
            return None

    def choice(self, key: str, choices: tuple[str, ...], *, default: str, required: bool = False) -> str:
        """Return one of a few words, `default` where it is absent or wrong."""

        def check(text: str) -> str | None:
            return None if text in choices else one_of(choices)

        return self.text(key, check, default=default, required=required)

    def fixed(self, key: str, value: int, *, missing: str = "") -> None:
        """Require one value; `missing` says what was expected where nothing is written, "" allows that."""
        found = self._take(key)
        if found is None and missing:
            self.problem(key, missing, "nothing")
        elif found is not None and (isinstance(found, bool) or found != value):
            self.problem(key, f"{key} {value}, the only one that this version reads", describe(found))

    def scalar(self, key: str) -> str | int | bool | None:
        """Return a string, an integer or a boolean, None where it is absent or wrong."""
        value = self._take(key)
        if value is None or isinstance(value, str | int | bool):
            return value
        self.problem(key, "a string, an integer or a boolean", describe(value))
        return None

    def free_table(self, key: str) -> Mapping[str, object]:
        """Return a table whose keys and values are the author's own; an empty one where it is absent or wrong."""
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            self.problem(key, "a table", describe(value))
        return value if isinstance(value, dict) else {}

    def raw(self, key: str) -> object:
        """Return whatever stands at the key, None where it is absent; the caller judges it."""
        return self._take(key)

    def elements(self, key: str) -> list[tuple[KeyPath, object]]:
        """Return the elements of an array of mixed types with their key paths; the caller judges them."""
        return self._elements(key, "an array")

    def finish(self) -> None:
        """Report every key that no getter asked for, with the known name that it resembles."""
        for key in self.values:
            if key not in self._known:
                import difflib  # costs milliseconds, and only a mistake needs it

                near = difflib.get_close_matches(key, [known for known in self._known if known not in self.values], 1)
                known = one_of(tuple(self._known)) if self._known else "no key at all"
                self.problem(key, known, f'the unknown key "{key}"', f'did you mean "{near[0]}"?' if near else "")

    def _take(self, key: str) -> object:
        if key not in self._known:
            self._known.append(key)
        return self.values.get(key)

    def _elements(self, key: str, expected: str) -> list[tuple[KeyPath, object]]:
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list):
            hint = f"write [{describe(value).removeprefix('the string ')}]" if isinstance(value, str) else ""
            self.problem(key, expected, describe(value), hint)
            return []
        return [((*self.path, key, index), element) for index, element in enumerate(value)]

    def _passes(self, path: KeyPath, value: str, check: Check | None) -> bool:
        expected = check(value) if check else None
        if expected is not None:
            self.document.add(path, expected, describe(value))
        return expected is None


def one_of(choices: tuple[str, ...]) -> str:
    """Write a choice in words: `"a", "b" or "c"`."""
    quoted = [f'"{choice}"' for choice in choices]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def describe(value: object) -> str:
    """Say in words what stands in a TOML file, shortened where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{_shortened(value)}"' if value else "an empty string"
    if isinstance(value, int):
        return f"the integer {_shortened(str(value)) if value.bit_length() < 200 else 'of more than sixty digits'}"
    if isinstance(value, float):
        return f"the number {value}"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    return "a table" if isinstance(value, dict) else "a date or time"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
