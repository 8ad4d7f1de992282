"""Which of a program's imports ask for sockets because somebody chose them, and which a toolchain always links. Pure.

componentize-py links all of `wasi:sockets` into whatever it makes. The engine refuses each of its calls, so that says
nothing of a program; a part of it says that somebody wanted that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_PACKAGE: Final = "wasi:sockets/"
_OPENING: Final = ("tcp", "udp", "ip-name-lookup")
"""What of it opens sockets or looks up names; the rest gives handles and types only."""
_WHOLE: Final = frozenset(
    ("network", "instance-network", "tcp", "tcp-create-socket", "udp", "udp-create-socket", "ip-name-lookup")
)


def opening_sockets(imports: Sequence[str]) -> tuple[str, ...]:
    """Return those that open sockets or look up names."""
    return tuple(name for name in imports if name.startswith(tuple(_PACKAGE + each for each in _OPENING)))


def is_habit(imports: Sequence[str]) -> bool:
    """Whether all of `wasi:sockets` is imported, as a toolchain does for every program."""
    return {name.removeprefix(_PACKAGE).partition("@")[0] for name in imports if name.startswith(_PACKAGE)} >= _WHOLE
