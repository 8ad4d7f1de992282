"""What belongs to a package, byte by byte, and the statement that names all of it. Pure.

The statement is what is signed, stored, approved and compared: a line for each file with its digest, size and path. Who
has its digest has said something about every byte that a component can be made of: manifest, program, and whatever else
lies beside them and could be read through `${component}`.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.terminal import visible

MANIFEST_FILE: Final = "Component.toml"
SIGNATURE_FILE: Final = "Component.sig"
"""Signatures of the package's statement; the only file that the statement leaves out, since it can't hold itself."""
LEFT_OUT: Final = frozenset({".git", ".airssys", SIGNATURE_FILE})
"""Names at the top of a component directory that are no part of its package."""
STATEMENT_HEAD: Final = "airssys package, version 1"
SIGNATURES_MAX_BYTES: Final = 1 << 20
FILES_MAX: Final = 10_000
TOTAL_MAX_BYTES: Final = 2 * 2**30
PATH_MAX_BYTES: Final = 1_024
NAME_MAX_BYTES: Final = 255
DEPTH_MAX: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class PackageError(ConfigError):
    """This is no package, or one that isn't taken; says which file and why."""


class PackageFile(Struct, frozen=True):
    """One file: its path within the package, with `/` between names; sha256 in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class Contents(Struct, frozen=True):
    """All files of a package, in the order of their paths' bytes."""

    files: tuple[PackageFile, ...]

    @property
    def statement(self) -> bytes:
        """Return the text that names every byte: the same for the same package, wherever it lies."""
        lines = [f"{each.sha256} {each.size_bytes} {each.path}\n" for each in self.files]
        return f"{STATEMENT_HEAD}\n{''.join(lines)}".encode()

    @property
    def digest(self) -> str:
        """Return the sha256 of the statement, in hexadecimal: what a package is called."""
        return hashlib.sha256(self.statement).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(each.size_bytes for each in self.files)

    def file(self, path: str) -> PackageFile | None:
        """Return the file of this path, None where there is none."""
        return next((each for each in self.files if each.path == path), None)


def contents_of(files: Iterable[PackageFile]) -> Contents:
    """Return the contents that these files are; raises PackageError for what no package is made of."""
    ordered = tuple(sorted(files, key=lambda each: each.path.encode()))
    refuse_paths([each.path for each in ordered])
    refuse_size(sum(each.size_bytes for each in ordered))
    if all(each.path != MANIFEST_FILE for each in ordered):
        raise PackageError(f"no {MANIFEST_FILE} in it", hint=f"a package has its {MANIFEST_FILE} at the top")
    return Contents(ordered)


def read_statement(statement: bytes) -> Contents:
    """Return the contents that a statement names; raises PackageError unless it is exactly what they would state."""
    try:
        head, *lines = statement.decode().split("\n")
        if head != STATEMENT_HEAD or lines.pop() != "":
            raise ValueError
        contents = contents_of(_read_line(line) for line in lines)
    except (ValueError, IndexError):
        raise PackageError("this is no statement of a package") from None
    if contents.statement != statement:
        raise PackageError("this statement of a package isn't in its one form")
    return contents


def _read_line(line: str) -> PackageFile:
    sha256, size, path = line.split(" ", 2)
    if not _DIGEST.fullmatch(sha256) or not size.isascii() or not size.isdecimal() or len(size) > 20:
        raise ValueError
    return PackageFile(path, int(size), sha256)


def refuse_size(total_bytes: int) -> None:
    """Raise PackageError where a package is larger than any that is taken."""
    if total_bytes > TOTAL_MAX_BYTES:
        raise PackageError(f"larger than {TOTAL_MAX_BYTES >> 30} GiB", hint="a package holds a program, and no data")


def refuse_paths(paths: Sequence[str]) -> None:
    """Raise PackageError for a path that no file of a package may have, alone or beside the others."""
    if len(paths) > FILES_MAX:
        raise PackageError(f"more than {FILES_MAX} files")
    for path in paths:
        why = why_not_path(path)
        if why:
            raise PackageError(f"{visible(path[:200])}: {why}")
    # Beside each other stands what begins alike: what clashes with anything clashes with its neighbour.
    ordered = sorted(([_alike(part) for part in path.split("/")], path) for path in paths)
    for (key, path), (other_key, other) in itertools.pairwise(ordered):
        _refuse_clash(key, path, other_key, other)


def _refuse_clash(key: Sequence[str], path: str, other_key: Sequence[str], other: str) -> None:
    """Raise PackageError where some file system takes one name for the other, or a file for a directory."""
    parts, other_parts = path.split("/"), other.split("/")
    shorter = min(len(parts), len(other_parts))
    common = next((i for i in range(shorter) if key[i] != other_key[i]), shorter)
    if common == shorter or parts[:common] != other_parts[:common]:
        raise PackageError(f"{visible(other[:200])}: the same name as {visible(path[:200])} on some file systems")


def why_not_path(path: str) -> str:
    """Return why no file of a package may have this path; empty where it may."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "not a plain path within the package"
    if len(encoded) > PATH_MAX_BYTES or any(len(part.encode()) > NAME_MAX_BYTES for part in parts):
        return "its name is too long"
    if len(parts) > DEPTH_MAX:
        return f"more than {DEPTH_MAX} directories deep"
    if path != visible(path) or "\\" in path or (not path.isascii() and _is_odd(path)):
        return "its name holds characters that can't be shown as they are"
    if _alike(parts[0]) in _LEFT_OUT_ALIKE:
        return "that name is no part of a package"
    return ""


def _is_odd(path: str) -> bool:
    """Whether something of it isn't a character yet, or is another way to write what leads elsewhere."""
    if any(unicodedata.category(each) == "Cn" for each in path):
        return True
    parts = [_alike(part) for part in path.split("/")]
    return any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts)


@functools.lru_cache(maxsize=4_096)
def _alike(name: str) -> str:
    """Return what a name is to a file system that knows neither case nor forms of one character (Unicode, D146)."""
    if name.isascii():
        return name.lower()
    for form in ("NFD", "NFKD"):
        name = unicodedata.normalize(form, name).casefold()
    return unicodedata.normalize("NFKD", name)


_LEFT_OUT_ALIKE: Final = frozenset(map(_alike, LEFT_OUT))
