"""What a worker holds of its libraries' code: let go of once its guest runs, read again where it is still needed.

Starting a program goes through megabytes of code (loading, linking, the interpreter) of which a program that waits
needs next to nothing. The pages are clean and a file's: the kernel drops them at once and finds them again, in its page
cache or the file, whenever they are touched. What was written to isn't among them, nor anything of the program's own.
"""

from __future__ import annotations

from worker import libc

_code: list[tuple[int, int]] = []


def note_code() -> None:
    """Note where the code of all loaded libraries is, from /proc/self/maps. For the zygote: a worker has no /proc.

    Libraries are never unloaded here, so the addresses stay good in every process forked from this one.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, rights, _, _, _, *path = line.rstrip("\n").split(maxsplit=5)
            if rights == "r-xp" and path and path[0].startswith("/"):
                start, _, end = span.partition("-")
                _code.append((int(start, 16), int(end, 16) - int(start, 16)))


def let_go() -> None:
    """Have the kernel drop these pages from this process; whoever runs in them goes on, a page fault later."""
    for address, length in _code:
        libc.drop_pages(address, length)
