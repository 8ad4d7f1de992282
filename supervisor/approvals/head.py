"""The head beside the steps: the last one's number and checksum, and the latest time that was seen, in one line."""

from __future__ import annotations

import os
from typing import Final

from ipc.struct import Struct
from supervisor.approvals.chain import GENESIS, DamagedError, StoreError, hash_text
from supervisor.terminal import visible

_CHARS_MAX: Final = 1_000
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Head(Struct, frozen=True):
    """What an older copy of the steps doesn't fit, and a clock that was set back."""

    seq: int = 0
    sum: str = GENESIS
    mark_s: int = 0


def head_text(head: Head) -> str:
    """Return its line, with a checksum over it."""
    text = f"{head.seq}:{head.sum}:{head.mark_s}"
    return f"{text}:{hash_text(text)}\n"


def parse_head(text: str) -> Head:
    """Return what the line says; raises DamagedError for what isn't one that was written."""
    try:
        seq, digest, mark_s, _ = text.split(":")
        head = Head(int(seq), digest, int(mark_s))
    except ValueError:
        head = None
    if head is None or head_text(head) != text:
        raise DamagedError("the head beside them isn't what was written")
    return head


def read_head(path: str) -> Head:
    """Return what is in the file; where there is none, what stands before the first step. Raises DamagedError."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return parse_head(file.read(_CHARS_MAX))
    except FileNotFoundError:
        return Head()


def write_head(path: str, head: Head) -> None:
    """Put another in its place, whole and durable; raises StoreError."""
    try:
        with open(os.open(f"{path}.new", _FLAGS, 0o600), "w", encoding="ascii") as file:
            file.write(head_text(head))
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise StoreError(
            f"{visible(path)} can't be written: {why}", hint=f"look at the disk: df -h {visible(path)}"
        ) from None
