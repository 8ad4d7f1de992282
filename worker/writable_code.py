"""Machine code that could be written to: the pages in which ctypes keeps what makes C call Python (`worker.memories`).

Python's ctypes, where its libffi has no other way, maps them writable and executable at once. Filter 2 forbids to make
such memory; who has broken out of WebAssembly must not find it made, at one address in all workers of a zygote. After
the last callback was made they are only read and run.
"""

from __future__ import annotations

from typing import Final

from worker import libc

_BOTH: Final = "rwxp"
_mappings: list[tuple[int, int]] = []


def note() -> None:
    """Note where such pages are. For the zygote: a worker has no /proc, and its callbacks are beside the zygote's."""
    _mappings.clear()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            span, rights, _ = line.split(maxsplit=2)
            if rights == _BOTH:
                start, end = (int(number, 16) for number in span.split("-"))
                _mappings.append((start, end - start))


def noted() -> tuple[tuple[int, int], ...]:
    """Return the address and length of each."""
    return tuple(_mappings)


def write_no_more() -> None:
    """Take the right to write from them: no callback can be made or freed in this process from here on."""
    for address, length in _mappings:
        libc.make_unwritable(address, length)
