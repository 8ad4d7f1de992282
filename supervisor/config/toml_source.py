"""A TOML file read with care: bounded, UTF-8, a regular file, and the line of every key kept for the messages."""

import os
import re
import stat
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.terminal import visible

MAX_FILE_BYTES: Final = 256 * 1024
# tomllib spends time quadratic in the parts of one key (two minutes for 40,000); nothing of ours is deeper than five.
_MAX_KEY_PARTS: Final = 64
_KEY_PART: Final = r"""(?:[A-Za-z0-9_-]{1,256}+|"(?:[^"\\\n]|\\.){0,256}+"|'[^'\n]{0,256}+')"""
_LONG_KEY: Final = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEY_PART}[ \t]*+\.[ \t]*+){{{_MAX_KEY_PARTS}}}")
_POSITION: Final = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

KeyPath = tuple[str | int, ...]
"""Where a value stands: table names and keys, and the index where it is an element of an array."""


class Problem(Struct, frozen=True):
    """One thing that is wrong in a configuration file; `line` counts from 1, 0 where no line can be named."""

    file: str
    line: int
    key: str
    expected: str
    got: str
    hint: str = ""
    column: int = 0

    def to_json(self) -> dict[str, str | int]:
        """Return the problem under stable keys."""
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }


class ConfigFileError(ConfigError):
    """A configuration can't be used; carries every problem that was found in it, in the order of the lines."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep the problems, ordered by file and line."""
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        super().__init__(render_problems(self.problems))


def render_problems(problems: tuple[Problem, ...]) -> str:
    """Write the problems for a person: one line each, a second one where there is a hint."""
    lines: list[str] = []
    for problem in problems:
        place = (
            problem.file
            + (f":{problem.line}" if problem.line else "")
            + (f":{problem.column}" if problem.column else "")
        )
        key = f"{problem.key}: " if problem.key else ""
        lines.append(printable(f"{place}: {key}expected {problem.expected}, got {problem.got}"))
        if problem.hint:
            lines.append(printable(f"    {problem.hint}"))
    return "\n".join(lines)


def printable(text: str) -> str:
    """Escape what a terminal could take for a command, and what could fake a line or its direction."""
    printed = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
    return visible(printed)  # characters that count as printable, and that nobody sees


def key_name(path: KeyPath) -> str:
    """Write a key path as TOML would: `capabilities.filesystem.read[2]`, quoting what isn't a bare key."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            bare = (
                part
                if re.fullmatch(r"[A-Za-z0-9_-]+", part)
                else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            )
            name += f".{bare}" if name else bare
    return name


class Origin(Struct, frozen=True):
    """Where a value was written; `line` counts from 1, 0 where it is a built-in default."""

    file: str
    line: int

    def __str__(self) -> str:
        """Return `file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


class TomlSource(Struct, frozen=True):
    """A parsed TOML document: its values, and the origin of each key path in it."""

    file: str
    values: Mapping[str, object]
    origins: Mapping[KeyPath, Origin]

    def origin(self, path: KeyPath) -> Origin:
        """Return where the key stands, or the nearest table around it that does."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(path[:length])
            if origin is not None:
                return origin
        return Origin(self.file, 0)


def read_toml(path: str, *, name: str | None = None, private: bool = False) -> TomlSource:
    """Read the TOML file at `path`, called `name` in messages; raise `ConfigFileError`.

    With `private` the file and its directory must belong to root or to this user and be writable by nobody else.
    """
    return parse_toml(read_toml_bytes(path, name or path, private=private), name or path)


def parse_toml(data: bytes, name: str) -> TomlSource:
    """Parse TOML from bytes; raise `ConfigFileError` with file, line and column where the syntax is wrong."""
    if len(data) > MAX_FILE_BYTES:
        raise _problem(name, "", f"a file of at most {MAX_FILE_BYTES // 1024} KiB", f"{len(data)} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _problem(name, "", "UTF-8 text", f"the byte 0x{data[error.start]:02x}", line=line) from None
    # tomllib normalises line ends before it parses; so do we, that lines and columns agree.
    text = text.replace("\r\n", "\n")
    long_key = _LONG_KEY.search(text)
    if long_key is not None:
        line = text.count("\n", 0, long_key.end()) + 1
        raise _problem(name, "", f"keys of at most {_MAX_KEY_PARTS} parts", "a longer one", line=line)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _problem(name, "", "arrays and tables nested a few levels deep", "hundreds of levels") from None
    except ValueError as error:
        # Also numbers too long for Python and dates that don't exist, which come without a position.
        match = _POSITION.match(str(error))
        what = match["what"] if match else str(error).partition(";")[0]
        line = int(match["line"] or text.count("\n") + 1) if match else 0
        column = int(match["column"] or 0) if match else 0
        raise _problem(name, "", "TOML", f"a syntax error: {what}", line=line, column=column) from None
    return TomlSource(name, values, {path: Origin(name, line) for path, line in locate_keys(text).items()})


def _problem(
    name: str, key: str, expected: str, got: str, *, hint: str = "", line: int = 0, column: int = 0
) -> ConfigFileError:
    return ConfigFileError((Problem(name, line, key, expected, got, hint, column),))


def read_toml_bytes(path: str, name: str, *, private: bool = False) -> bytes:
    """Return the bytes of a small regular file without waiting for anybody; raise `ConfigFileError`."""
    try:
        # O_NONBLOCK: a FIFO in place of the file must not hold us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _problem(name, "", "a readable file", os.strerror(error.errno or 0).lower()) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _problem(name, "", "a regular file", file_kind(status.st_mode))
        if private:
            _require_private(status, name)
            _require_private(os.stat(os.path.dirname(path) or "."), os.path.dirname(name) or ".")
        chunks: list[bytes] = []
        size_bytes = 0
        while size_bytes <= MAX_FILE_BYTES and (chunk := os.read(descriptor, MAX_FILE_BYTES + 1 - size_bytes)):
            chunks.append(chunk)
            size_bytes += len(chunk)
        if size_bytes > MAX_FILE_BYTES:
            raise _problem(
                name, "", f"a file of at most {MAX_FILE_BYTES // 1024} KiB", f"{max(status.st_size, size_bytes)} bytes"
            )
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _require_private(status: os.stat_result, name: str) -> None:
    """Refuse what somebody else could have written: it would decide what components may do."""
    if status.st_uid not in (0, os.geteuid()):
        raise _problem(name, "", "a file of root's or this user's", f"one that belongs to uid {status.st_uid}")
    sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & 0o022 and not sticky_directory:
        mode = stat.S_IMODE(status.st_mode)
        raise _problem(name, "", "nobody but its owner able to write it", f"mode {mode:04o}", hint=f"chmod go-w {name}")


def file_kind(mode: int) -> str:
    """Name the kind of a file from its `st_mode` (inode(7))."""
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def locate_keys(text: str) -> dict[KeyPath, int]:
    """Return the line of every table, key and array element of a document that tomllib accepted."""
    scanner = _KeyScanner(text)
    # A line number is a courtesy: should the scanner give up, what it found up to there is still right.
    with suppress(IndexError, ValueError, RecursionError):
        scanner.scan()
    return scanner.lines


class _KeyScanner:
    """Walks a valid TOML document and notes where keys stand; values are only skipped over."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text + "\n"
        self._at = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        self._array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> None:
        table: KeyPath = ()
        end = len(self._text)
        while self._skip_blank() < end:
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._key_and_value(table)

    def _header(self, brackets: int) -> KeyPath:
        start = self._at
        self._at += brackets
        parts = self._dotted_key()
        self._at += brackets
        path: KeyPath = ()
        for part in parts[:-1]:
            self._note((*path, part), start)
            path = self._latest((*path, part))
        path = (*path, parts[-1])
        self._note(path, start)
        if brackets == 2:
            index = self._array_lengths.get(path, 0)
            self._array_lengths[path] = index + 1
            path = (*path, index)
            self._note(path, start)
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        return (*path, self._array_lengths[path] - 1) if path in self._array_lengths else path

    def _key_and_value(self, table: KeyPath) -> None:
        start = self._at
        path = table
        for part in self._dotted_key():
            path = (*path, part)
            self._note(path, start)
        self._at += 1  # the equals sign
        self._value(path)

    def _note(self, path: KeyPath, position: int) -> None:
        self.lines.setdefault(path, bisect_right(self._line_starts, position))

    def _dotted_key(self) -> list[str]:
        parts = []
        while True:
            self._skip_spaces()
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                parts.append(str(tomllib.loads(f"key = {self._text[start : self._at]}")["key"]))
            else:
                while self._text[self._at].isalnum() or self._text[self._at] in "_-":
                    self._at += 1
                parts.append(self._text[start : self._at])
            self._skip_spaces()
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_spaces()
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._at += 1
            index = 0
            while self._next_item("]"):
                self._note((*path, index), self._at)
                self._value((*path, index))
                index += 1
        elif first == "{":
            self._at += 1
            while self._next_item("}"):
                self._key_and_value(path)
        else:
            while self._text[self._at] not in ",]}#\n":
                self._at += 1

    def _next_item(self, closing: str) -> bool:
        self._skip_blank()
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_blank()
        if self._text[self._at] == closing:
            self._at += 1
            return False
        return True

    def _string(self) -> None:
        quote = self._text[self._at]
        closing = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(closing)
        while not self._text.startswith(closing, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
            if self._at >= len(self._text):
                raise IndexError
        self._at += len(closing)
        # Up to two more quotes may belong to a multi-line string's text.
        while len(closing) == 3 and self._text[self._at] == quote:
            self._at += 1

    def _skip_spaces(self) -> None:
        while self._text[self._at] in " \t":
            self._at += 1

    def _skip_blank(self) -> int:
        text, end = self._text, len(self._text)
        while self._at < end and text[self._at] in " \t\n\r#":
            self._at = text.index("\n", self._at) if text[self._at] == "#" else self._at + 1
        return self._at
