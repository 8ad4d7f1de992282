"""How a process that reads somebody's archive or repository tells the supervisor what is in it.

It is as plain as can be, since the reader may have been taken over by what it reads: heads of a fixed size, each with a
text of bounded length; the bytes of a file come in pieces with a head each, between which the reader can still say that
something is wrong. Whatever it says, it could have found in an archive that says the same: nothing of it is believed
but the bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from ipc.errors import PeerProtocolError
from ipc.messages import Message
from ipc.struct import Struct

FILE: Final = b"F"
"""A file: its path and its size; its bytes follow."""
PIECE: Final = b"P"
"""Bytes of the file that was named last, as many as the head says."""
DIRECTORY: Final = b"D"
"""A directory: its path. Nothing is made of it; its name is judged all the same."""
ORIGIN: Final = b"O"
"""Which commit a repository gave, and of which branch: `COMMIT BRANCH`."""
REFUSED: Final = b"X"
"""The last head: why there is no package, and on another line what to do. `size_bytes` is the exit code."""
END: Final = b"E"
"""The last head: that was all of it."""
TEXT_MAX_BYTES: Final = 4_096
PLAN_MAX_BYTES: Final = 65_536
_HEAD: Final = struct.Struct("!cHQ")
HEAD_BYTES: Final = _HEAD.size
_KINDS: Final = frozenset((FILE, PIECE, DIRECTORY, ORIGIN, REFUSED, END))


class Head(Struct, frozen=True):
    """What stands before a text."""

    kind: bytes
    text_bytes: int
    size_bytes: int


class UnpackPlan(Message, frozen=True):
    """Supervisor → the reader of an archive. `uid` is who it becomes, None where it has no other to become."""

    parent_pid: int
    uid: int | None
    stream_max_bytes: int
    headers_max: int
    memory_bytes: int
    cpu_s: int


class RepositoryPlan(Message, frozen=True):
    """Supervisor → the reader of a repository: which, as whom, within which bounds.

    `scratch` is an empty directory of that identity's; `readable` is what it may read beside the system's own files.
    """

    parent_pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    git: str
    transport: str
    url: str
    revision: str
    subdirectory: str
    scratch: str
    readable: tuple[str, ...]
    environment: dict[str, str]
    files_max: int
    total_max_bytes: int
    pack_max_bytes: int
    memory_bytes: int
    cpu_s: int


def pack_head(kind: bytes, text: str = "", size_bytes: int = 0) -> bytes:
    """Return a head and its text, which is cut where it is too long; what isn't UTF-8 keeps its bytes."""
    data = text.encode("utf-8", "surrogateescape")[:TEXT_MAX_BYTES]
    return _HEAD.pack(kind, len(data), size_bytes) + data


def pack_piece(data: bytes) -> bytes:
    """Return some bytes of a file with their head."""
    return pack_head(PIECE, "", len(data)) + data


def unpack_head(data: bytes) -> Head:
    """Return a head; raises PeerProtocolError for what is none."""
    kind, text_bytes, size_bytes = _HEAD.unpack(data)
    if kind not in _KINDS or text_bytes > TEXT_MAX_BYTES:
        raise PeerProtocolError("the reader of a package sent what no reader sends")
    return Head(kind, text_bytes, size_bytes)
