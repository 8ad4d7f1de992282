"""That a file of approvals was verified, noted beside it: what is still that very file isn't verified again.

To verify takes as long as there are steps, and a start waits for it. Whoever writes to a file, puts another in its
place, or brings an older one back changes its number or its `ctime`, which nobody sets (inode(7)). The note is of the
file as it was before it was verified, and only of one that had not been written to for a while, as two writes at nearly
one time may have one `ctime`. Who had mapped it (mmap(2)) and written to it before could go on without another one: so
it is synchronised before it is verified, and then the next such write is noticed. On tmpfs, which is gone with the
machine's next start, it isn't. The note gives nothing: without it, or where it isn't what was written, all is verified.
"""

from __future__ import annotations

import os
from typing import Final

from ipc.struct import Struct
from supervisor.approvals.chain import hash_text

NOTE_FILE: Final = "verified"
QUIET_NS: Final = 3 * 10**9
"""More than the clock of any file system lags (that of FAT has steps of 2 s)."""
_CHARS_MAX: Final = 1_000
_FORM: Final = "1"
"""Of the note, and of what is verified: another one is no note."""


class FileState(Struct, frozen=True):
    """What is another for a file that isn't the same, or not as it was."""

    device: int
    number: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


def state_of(status: os.stat_result) -> FileState:
    """Return what stat(2) says of a file."""
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_quiet(state: FileState, now_ns: int) -> bool:
    """Whether a file, looked at at `now_ns`, will have another `ctime` once somebody writes to it again."""
    return now_ns - state.ctime_ns > QUIET_NS


def note_text(state: FileState, last: tuple[int, str]) -> str:
    """Return the note that a file in this state was verified, with that last step."""
    about = (state.device, state.number, state.size_bytes, state.mtime_ns, state.ctime_ns)
    text = ":".join(map(str, (_FORM, *about, *last)))
    return f"{text}:{hash_text(text)}\n"


def noted_step(note: str, state: FileState) -> tuple[int, str] | None:
    """Return the number and checksum of the last step of the file that a note is about; None if that is another."""
    parts = note.split(":")
    if len(parts) != 9 or not parts[6].isdecimal():
        return None
    last = (int(parts[6]), parts[7])
    return last if note == note_text(state, last) else None


def read_note(directory: str) -> str:
    """Return the note of a directory of approvals, "" where there is none that can be read."""
    try:
        with open(os.path.join(directory, NOTE_FILE), encoding="ascii", errors="replace") as file:
            return file.read(_CHARS_MAX)
    except OSError:
        return ""


def write_note(directory: str, text: str) -> None:
    """Write the note; where it can't be written there is none."""
    path = os.path.join(directory, NOTE_FILE)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(f"{path}.new", flags, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
    except OSError:
        return
