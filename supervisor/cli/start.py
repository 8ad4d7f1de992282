"""How something is started, as far as that says who is asked, and by which approval it may run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ipc.struct import Struct


class Start(Struct, frozen=True):
    """How something is started: what that means for who is asked, and which approvals count."""

    supervised: bool = False
    """Somebody answers for it who is told when an approval is taken back; else it holds its approval itself."""
    asks: bool = True
    """A person may be asked, on the terminal; where not, AwaitingApprovalError or NobodyGrantedError says why."""
    standing: frozenset[str] = frozenset()
    """The packages that failed in the place of this one: an approval that ended for the sake of theirs stands."""
    interrupted: Callable[[], bool] = lambda: False
    """Whether nobody wants it any more: a program may take minutes to be read, which a reviewer is told of."""


ALONE: Final = Start()
