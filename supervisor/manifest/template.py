"""Variables in a manifest's texts: `${component}`, `${data}`, `${tmp}`, `${param.NAME}`; `$${` is a literal `${`."""

import re
from collections.abc import Callable
from typing import Final

from ipc.struct import Struct

DIRECTORY_VARIABLES: Final = ("component", "data", "tmp")
PARAMETER_PREFIX: Final = "param."
PATTERN_CHARACTERS: Final = "*?[]"
"""Characters that mean something in a pattern: no substituted value may hold one."""

MAX_RESULT_CHARACTERS: Final = 128 * 1024
"""Longest text with its variables filled in; Linux's MAX_ARG_STRLEN (execve(2))."""

_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")


class Variable(Struct, frozen=True):
    """A reference such as `${param.logs}`, by what stands in the braces."""

    name: str

    @property
    def parameter(self) -> str | None:
        """The parameter that it refers to, None for one of the directories."""
        return self.name.removeprefix(PARAMETER_PREFIX) if self.name.startswith(PARAMETER_PREFIX) else None


class TemplateError(ValueError):
    """A text holds a variable that can't be read; `expected` says what is known."""

    def __init__(self, expected: str) -> None:
        """Keep what would have been right."""
        super().__init__(f"expected {expected}")
        self.expected = expected


def parse_template(text: str) -> tuple[str | Variable, ...]:
    """Split a text into literal parts and variables; raise `TemplateError` at an unknown variable or an open brace."""
    parts: list[str | Variable] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        _append(parts, text[end : match.start()])
        end = match.end()
        if match[0] == "$${":
            _append(parts, "${")
            continue
        name = match[1]
        if not match[2]:
            raise TemplateError('"}" after "${" ("$${" stands for a literal "${")')
        if name not in DIRECTORY_VARIABLES and not re.fullmatch(r"param\.[A-Za-z][A-Za-z0-9_-]*", name):
            raise TemplateError("one of ${component}, ${data}, ${tmp} or ${param.NAME}")
        parts.append(Variable(name))
    _append(parts, text[end:])
    return tuple(parts)


def _append(parts: list[str | Variable], text: str) -> None:
    if text and parts and isinstance(last := parts[-1], str):
        parts[-1] = last + text
    elif text:
        parts.append(text)


def variables_in(text: str) -> tuple[Variable, ...]:
    """Return the variables of a text in order, none where it can't be read."""
    try:
        return tuple(part for part in parse_template(text) if isinstance(part, Variable))
    except TemplateError:
        return ()


def substitute(text: str, value_of: Callable[[Variable], str]) -> str:
    """Replace each variable by its value; a value `/` before a slash leaves one slash, not two.

    Raises `TemplateError` where the result is longer than an argument can be: defaults nest, and could multiply.
    """
    parts = parse_template(text)
    out: list[str] = []
    length = 0
    for index, part in enumerate(parts):
        value = part if isinstance(part, str) else value_of(part)
        following = parts[index + 1] if index + 1 < len(parts) else ""
        root_before_slash = (
            not isinstance(part, str) and value == "/" and isinstance(following, str) and following.startswith("/")
        )
        out.append("" if root_before_slash else value)
        length += len(out[-1])
        if length > MAX_RESULT_CHARACTERS:
            raise TemplateError(f"at most {MAX_RESULT_CHARACTERS:,} characters once the variables are filled in")
    return "".join(out)
