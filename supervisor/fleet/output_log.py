"""What a component prints, kept in files of its own: a line each with its time, bounded, rotated, there after its end.

A line is `TIME STREAM TAG TEXT`, as container runtimes write them: the time is UTC in RFC 3339, STREAM is stdout,
stderr or system (what the supervisor says of the component), TAG is F for a full line and P for a part of a long one.
TEXT is what was printed, byte for byte: each line of it has our own words in front, so that no component can make up a
line. It is made harmless when it is shown (`supervisor.fleet.output_view`).
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from ipc.errors import ConfigError
from ipc.policy.rate import Rate
from supervisor.terminal import visible

STDOUT: Final = "stdout"
STDERR: Final = "stderr"
SYSTEM: Final = "system"
FILE_BYTES: Final = 4 << 20
"""A file that has reached this is put aside, and another one begun."""
FILES_KEPT: Final = 4
"""With the one that is written."""
LINE_BYTES: Final = 16 << 10
"""A longer line is kept in parts."""
BYTES_PER_S: Final = 2 << 20
"""How much is read from a component in a second; what it prints faster, it waits for."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


PROVIDER_PREFIX: Final = "provider."
"""In front of a provider's name, where a component has its own: no component has a dot in its name."""


def log_files(directory: str, name: str) -> list[str]:
    """Return the paths that a component's log may have, the oldest first."""
    current = os.path.join(directory, f"{name}.log")
    return [*(f"{current}.{number}" for number in range(FILES_KEPT - 1, 0, -1)), current]


def open_log_files(directory: str, name: str) -> list[int]:
    """Open the files of a component's log to be read, the oldest first; those that aren't there are left out."""
    opened: list[int] = []
    for path in log_files(directory, name):
        with contextlib.suppress(FileNotFoundError):
            opened.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))
    return opened


def make_log_directory(directory: str) -> str:
    """Return the directory of all components' logs, ours alone; raises ConfigError where it can't be."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
    except OSError as error:
        raise ConfigError(
            f"{visible(directory)}: {os.strerror(error.errno or 0)}; there is no place for what components print",
            hint="name a directory that can be written: --state-dir DIR or AIRSSYS_STATE",
        ) from None
    return directory


class OutputLog:
    """The log of one component, through all its runs. A disk that takes nothing holds nobody up: lines are counted."""

    __slots__ = ("_descriptor", "_files", "_held", "_lost", "_second", "_size_bytes", "_stamp", "pace")

    def __init__(self, directory: str, name: str) -> None:
        """Write to the component's files in `directory`; the first line makes them."""
        self._files = log_files(directory, name)
        self._descriptor = -1
        self._size_bytes = 0
        self._held: dict[str, bytes] = {STDOUT: b"", STDERR: b""}
        self._lost = 0
        self._second = -1
        self._stamp = ""
        self.pace = Rate(BYTES_PER_S, time.monotonic_ns())

    def feed(self, stream: str, data: bytes) -> None:
        """Take what was printed; a line that has no end yet is held, up to LINE_BYTES."""
        *lines, rest = (self._held[stream] + data).split(b"\n")
        stamp = self._time()
        made = [record for line in lines for record in _records(stamp, stream, line, whole=True)]
        if len(rest) > LINE_BYTES:
            cut = len(rest) - len(rest) % LINE_BYTES
            made += _records(stamp, stream, rest[:cut], whole=False)
            rest = rest[cut:]
        self._held[stream] = rest
        if made:
            self._write(b"".join(made), len(made))

    def note(self, text: str) -> None:
        """Write a line of the supervisor's own, after whatever was still held: what comes is about another time."""
        self._end_lines()
        self._write(b"%b system F %b\n" % (self._time(), visible(text).encode()), 1)

    def close(self) -> None:
        """Write what is held, and close the file; the next line opens it again."""
        self._end_lines()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _end_lines(self) -> None:
        for stream, held in self._held.items():
            if held:
                self._held[stream] = b""
                self._write(b"".join(_records(self._time(), stream, held, whole=True)), 1)

    def _time(self) -> bytes:
        second, nanosecond = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{nanosecond:09d}Z".encode()

    def _write(self, data: bytes, lines: int) -> None:
        if self._lost:
            told = f"{self._lost} lines could not be kept: the disk took none"
            data = b"%b system F %b\n" % (self._time(), told.encode()) + data
        try:
            if self._descriptor < 0 or self._size_bytes + len(data) > FILE_BYTES:
                self._open(self._descriptor >= 0 or self._current_size_bytes() + len(data) > FILE_BYTES)
            start_bytes = self._size_bytes
            written = os.write(self._descriptor, data)
            if written < len(data):
                # Half a line would be taken for a whole one.
                os.ftruncate(self._descriptor, start_bytes)
                raise OSError
            self._size_bytes += written
            self._lost = 0
        except OSError:
            self._lost += lines

    def _current_size_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return os.lstat(self._files[-1]).st_size
        return 0

    def _open(self, rotate: bool) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if rotate:
            for older, newer in zip(self._files, self._files[1:], strict=False):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(newer, older)
        self._descriptor = os.open(self._files[-1], _FLAGS, 0o600)
        self._size_bytes = os.fstat(self._descriptor).st_size


def _records(stamp: bytes, stream: str, line: bytes, whole: bool) -> list[bytes]:
    """Return the line in parts that are no longer than LINE_BYTES; the last ends it where it is `whole`."""
    parts = [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)] or [b""]
    tags = [b"P"] * len(parts)
    if whole:
        tags[-1] = b"F"
    return [b"%b %b %b %b\n" % (stamp, stream.encode(), tag, part) for tag, part in zip(tags, parts, strict=True)]
