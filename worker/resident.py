"""What a worker holds of its libraries: let go of once its guest runs, read again where it is still needed.

Starting a program goes through megabytes of code (loading, linking, the interpreter) of which a program that waits
needs next to nothing. The pages are clean and a file's: the kernel drops them at once and finds them again, in its page
cache or the file, whenever they are touched. What was written to isn't among them, nor anything of the program's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from worker import libc

_READ_ONLY = ("r-xp", "r--p")
_PAGES_OF_NO_FILE = ("Anonymous:", "Swap:")
_mappings: list[tuple[int, int]] = []


def note_libraries() -> None:
    """Note where code and constants of all loaded libraries are. For the zygote: a worker has no /proc.

    Libraries are never unloaded here, so the addresses stay good in every process forked from this one. What the linker
    wrote to before it made it read-only has pages that are no file's (proc(5), smaps): it is left out. A kernel built
    without smaps has nothing noted.
    """
    _mappings.clear()
    with contextlib.suppress(FileNotFoundError):
        _mappings.extend(_clean_mappings())


def _clean_mappings() -> Iterator[tuple[int, int]]:
    span = ""
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line[0].isupper():
                where, rights, _, _, _, *path = line.split(maxsplit=5)
                library = rights in _READ_ONLY and path and path[0].startswith("/") and ".so" in path[0]
                span = where if library else ""
            elif span and line.startswith(_PAGES_OF_NO_FILE) and line.split()[1] != "0":
                span = ""
            elif span and line.startswith("VmFlags:"):
                start, _, end = span.partition("-")
                yield int(start, 16), int(end, 16) - int(start, 16)


def let_go() -> None:
    """Have the kernel drop these pages from this process; whoever runs in them goes on, a page fault later."""
    for address, length in _mappings:
        with contextlib.suppress(OSError):  # sealed (`worker.empty_path`); a page that stays is no harm
            libc.drop_pages(address, length)
