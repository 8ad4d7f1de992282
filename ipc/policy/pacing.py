"""A stream that is paced: how many bytes may go now, and how long to wait where none may. Pure: time is passed in.

What is sent and what is received count alike, in one rate. A stream waits instead of being refused, so whoever moves
the bytes asks before it reads or writes, moves no more than it was told, and comes again when it was told to.
"""

from __future__ import annotations

from typing import Final

from ipc.policy.rate import NEVER, Rate
from ipc.struct import Struct

PIECE_BYTES: Final = 16_384
"""As few bytes at a time as are worth a call: without it a stream at its rate would go on byte by byte."""


class Pace(Struct, frozen=True):
    """So many bytes may be moved now; where it is none, `wait_ns` later some may (NEVER: not by waiting)."""

    amount_bytes: int
    wait_ns: int


def pace(rate: Rate, now_ns: int, wanted_bytes: int) -> Pace:
    """Take as many of the bytes as may go now, at least a piece of `PIECE_BYTES` where more are wanted, or none."""
    if wanted_bytes <= 0:
        return Pace(0, 0)
    per_s = rate.per_s
    if per_s == 0:
        return Pace(0, NEVER)
    least_bytes = min(wanted_bytes, PIECE_BYTES if per_s is None else min(PIECE_BYTES, per_s))
    if rate.available(now_ns) < least_bytes:
        return Pace(0, rate.wait_ns(now_ns, least_bytes))
    return Pace(rate.take_up_to(now_ns, wanted_bytes), 0)
