"""The rules for single texts of a manifest: each returns what was expected instead, or None where the text is right."""

import re
from collections.abc import Mapping
from typing import Final

from ipc.policy.capability import pattern_problem
from ipc.struct import Struct
from supervisor.config.toml_reader import Check
from supervisor.manifest.template import DIRECTORY_VARIABLES, TemplateError, Variable, parse_template
from supervisor.manifest.values import BOOLEAN, DIRECTORY, FILE, INTEGER, Parameter

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_ACTION: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
# The expression of semver.org, its groups left out.
_SEMVER: Final = re.compile(
    r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
_LISTEN: Final = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
_RESOURCES: Final = {
    "filesystem": "paths",
    "network": "endpoints",
    "storage": "keys",
    "messaging": "names",
    "secrets": "names",
    "custom": "names",
}
MAX_TEXT_CHARACTERS: Final = 4096


class TextForm(Struct, frozen=True):
    """A check by one regular expression, which `airssys schema` shows as well."""

    expression: re.Pattern[str]
    expected: str
    most_characters: int = MAX_TEXT_CHARACTERS

    def __call__(self, text: str) -> str | None:
        """Return what was expected instead, None where the whole text is of this form."""
        return None if self.expression.fullmatch(text) and len(text) <= self.most_characters else self.expected


check_name: Final = TextForm(NAME, "a name of lower-case letters, digits and -, at most 63, a letter first")
"""A component's or custom capability's name."""
check_version: Final = TextForm(_SEMVER, 'a semantic version such as "1.0.0"', 128)
"""A version by semver.org."""
check_action: Final = TextForm(_ACTION, "an action of lower-case letters, digits, _ and -, a letter first")
"""The verb of a custom action."""
check_parameter_name: Final = TextForm(_PARAMETER_NAME, "a parameter name of letters, digits, _ and -, a letter first")
check_environment_name: Final = TextForm(
    _ENVIRONMENT_NAME, "the name of an environment variable: letters, digits and _"
)
"""The name of an environment variable (POSIX.1-2017, 8.1)."""
check_method: Final = TextForm(re.compile(r"[A-Z][A-Z-]{0,31}"), 'an HTTP method in upper case, such as "GET"')
"""An HTTP method (RFC 9110, 9.1), in the upper case in which they are compared."""


def check_one_line(text: str) -> str | None:
    """A description or rationale: shown to people, so it must not be able to draw on their screen."""
    return None if text.isprintable() and len(text) <= 1000 else "one line of at most 1,000 printable characters"


def check_no_nul(text: str) -> str | None:
    """What execve(2) and environ(7) can carry."""
    return None if "\0" not in text and len(text) <= MAX_TEXT_CHARACTERS * 8 else "a text without NUL, at most 32 KiB"


def check_wasm_path(text: str) -> str | None:
    """A path beneath the component's own directory."""
    segments = text.split("/")
    wrong = (
        not text
        or not text.isprintable()
        or len(text) > MAX_TEXT_CHARACTERS
        or "" in segments
        or ".." in segments
        or "." in segments
    )
    return "a relative path beneath the component's directory, without . and .." if wrong else None


def check_absolute_path(text: str) -> str | None:
    """An absolute path in its one normal form, a slash at its end allowed."""
    segments = text.removeprefix("/").removesuffix("/").split("/")
    if not text.startswith("/") or not text.isprintable() or len(text) > MAX_TEXT_CHARACTERS:
        return "an absolute path"
    if text != "/" and any(segment in ("", ".", "..") for segment in segments):
        return "an absolute path without //, . and .."
    return None


def check_guest_path(text: str) -> str | None:
    """What a mount may be called inside: an absolute path, or `.`."""
    if text == ".":
        return None
    wrong = check_absolute_path(text) is not None or (text.endswith("/") and text != "/")
    return 'an absolute path without . and .. and without a slash at its end, or "."' if wrong else None


def check_request(action: str) -> Check:
    """A pattern in the grammar of the action's resources, its variables filled in."""

    def check(text: str) -> str | None:
        if action.startswith("filesystem.") and not text.startswith("/"):
            return 'an absolute path pattern, such as "/srv/in/**" or "${component}/data/*.json"'
        if action == "network.listen" and not _LISTEN.fullmatch(text):
            # What a name resolves to may change; an address doesn't.
            return 'a numeric address and a port, such as "127.0.0.1:8080"'
        reason = pattern_problem(action, text)
        return None if reason is None else f"a pattern of {_RESOURCES[action.partition('.')[0]]} ({reason})"

    return check


def check_variables(parameters: Mapping[str, Parameter], *, path: bool) -> Check:
    """Every variable is known; with `path`, those that hold a whole path stand only at the beginning."""

    def check(text: str) -> str | None:
        try:
            parts = parse_template(text)
        except TemplateError as error:
            return error.expected
        for index, part in enumerate(parts):
            if not isinstance(part, Variable):
                continue
            name = part.parameter
            if name is not None and name not in parameters:
                declared = ", ".join(parameters) or "none"
                return f"a parameter of section [parameters] in ${{param.{name}}} (declared: {declared})"
            if not path:
                continue
            whole_path = part.name in DIRECTORY_VARIABLES or (
                name is not None and parameters[name].type in (DIRECTORY, FILE)
            )
            if whole_path and index > 0:
                return f"${{{part.name}}} at the beginning only, because it holds an absolute path"
            if whole_path and len(parts) > 1 and not str(parts[1]).startswith("/"):
                return f'"/" after ${{{part.name}}}'
            if not whole_path and index == 0 and name is not None and parameters[name].type in (INTEGER, BOOLEAN):
                return f"an absolute path, and ${{{part.name}}} is of type {parameters[name].type}"
        return None

    return check


def with_variables(parameters: Mapping[str, Parameter], check: Check, *, path: bool) -> Check:
    """Check a text that may hold variables: those are known, and with plain values in their place it is right.

    Where a value decides whether the text is right (a host name, say), `bind` checks it again with the real one.
    """
    known = check_variables(parameters, path=path)

    def both(text: str) -> str | None:
        expected = known(text)
        if expected is not None:
            return expected
        parts = parse_template(text)
        if not path and any(isinstance(part, Variable) for part in parts):
            return None
        probe = "".join(_placeholder(part, index) for index, part in enumerate(parts))
        return check(probe)

    return both


def _placeholder(part: str | Variable, index: int) -> str:
    if isinstance(part, str):
        return part
    return "/x" if index == 0 else "x"
