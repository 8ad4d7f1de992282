"""The process that reads an archive or a repository (`worker.package_reader`), and what it says, written as a package.

The supervisor itself reads neither: it gets names and bytes, judges the names and writes the bytes. A reader that was
taken over by what it reads gains nothing by that, beyond the package that an honest archive could have held.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Final

from ipc import codec, memory_file
from ipc.errors import ConfigError, ConfinementError, PeerProtocolError
from ipc.messages import Message
from ipc.package_stream import DIRECTORY, END, FILE, HEAD_BYTES, ORIGIN, PIECE, REFUSED, Head, unpack_head
from supervisor.host.namespaces import Spawned, isolated_python, spawn
from supervisor.packages.contents import PackageError
from supervisor.packages.writing import PackageWriter
from supervisor.terminal import visible

_SAID_MAX: Final = 600
_READ_BYTES: Final = 1 << 20
_LEAVE_S: Final = 5.0
_CODE: Final = "from worker.package_reader import {0}\n{0}({1})"


class SourceUnavailableError(ConfigError):
    """What a source needs isn't there: a program, a host, a repository. Nothing is wrong with any package."""

    exit_code = 69  # EX_UNAVAILABLE


class ReaderProcess:
    """One reader and the pipe in which it tells what it finds."""

    def __init__(self, spawned: Spawned, stream: int, timeout_s: float) -> None:
        """Take over both; it has so many seconds for all that it does."""
        self._spawned = spawned
        self._stream = stream
        self._until_s = time.monotonic() + timeout_s
        self._poller = select.poll()
        self._poller.register(stream, select.POLLIN)
        self._piece_left_bytes = 0

    def write_package(self, writer: PackageWriter) -> str:
        """Write what it tells, to its end; return the origin that it named, "" for none. Raises ConfigError."""
        origin = ""
        while True:
            if self._piece_left_bytes:
                raise _garbage()
            head, text = self._head()
            if head.kind == FILE:
                writer.write(text, head.size_bytes, self._bytes_of_file)
            elif head.kind == DIRECTORY:
                writer.note_directory(text)
            elif head.kind == ORIGIN:
                origin = text
            elif head.kind == END:
                return origin
            else:
                raise _garbage()

    def close(self) -> None:
        """Kill it with all that it started, and wait for that."""
        self._kill()
        self._spawned.close()
        os.close(self._stream)

    def _kill(self) -> None:
        if self._spawned.wait_status is None:
            # Not waited for, so the number is its own. It leads its session, of which git and ssh are.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._spawned.pid, signal.SIGKILL)
        self._spawned.send_signal(signal.SIGKILL)
        self._spawned.wait(_LEAVE_S)

    def _head(self) -> tuple[Head, str]:
        """Return the next head and its text; raises what a refusal says."""
        try:
            head = unpack_head(self._exactly(HEAD_BYTES))
        except PeerProtocolError:
            raise _garbage() from None
        text = self._exactly(head.text_bytes).decode("utf-8", "surrogateescape")
        if head.kind == REFUSED:
            raise _refusal(text, head.size_bytes)
        return head, text

    def _bytes_of_file(self, max_bytes: int) -> bytes:
        """Return some bytes of the file that was named last."""
        if not self._piece_left_bytes:
            head, _ = self._head()
            if head.kind != PIECE or not head.size_bytes:
                raise _garbage()
            self._piece_left_bytes = head.size_bytes
        data = self._some(min(max_bytes, self._piece_left_bytes))
        self._piece_left_bytes -= len(data)
        return data

    def _exactly(self, size_bytes: int) -> bytes:
        parts = []
        while size_bytes:
            parts.append(self._some(size_bytes))
            size_bytes -= len(parts[-1])
        return b"".join(parts)

    def _some(self, max_bytes: int) -> bytes:
        """Return at least one byte, and wait for it; raises PackageError where none comes."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0 or not self._poller.poll(round(left_s * 1000) + 1):
            raise SourceUnavailableError("it took too long", hint="try again; a smaller package, or a nearer source")
        data = os.read(self._stream, min(max_bytes, _READ_BYTES))
        if not data:
            raise self._death()
        return data

    def _death(self) -> PackageError:
        poller = select.poll()
        poller.register(self._spawned.pidfd, select.POLLIN)
        poller.poll(round(_LEAVE_S * 1000))
        self._kill()
        status = self._spawned.wait_status
        how = "without a word"
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            how = f"by {signal.Signals(number).name}" if number in signal.valid_signals() else f"by signal {number}"
        words = self._spawned.last_words().splitlines()
        said = f": {visible(words[-1][:_SAID_MAX])}" if words else ""
        return PackageError(f"the process that read it ended {how}{said}", hint="nothing of it was kept")


@contextlib.contextmanager
def start_reader(
    function: str, plan: Message, pass_descriptors: Sequence[int], timeout_s: float, own_namespace: bool
) -> Iterator[ReaderProcess]:
    """Start a function of `worker.package_reader` with its plan and pipes; whatever happens, it has ended afterwards.

    With `own_namespace` it gets a user namespace, in which it can make itself others, where that can be had.
    """
    stream, output = os.pipe2(os.O_CLOEXEC)
    plan_file = memory_file.from_bytes("plan", codec.pack(plan))
    try:
        inherited = (plan_file, *pass_descriptors, output)
        command = isolated_python(_CODE.format(function, ", ".join(map(str, inherited))))
        spawned = _spawn(command, inherited, own_namespace)
    except BaseException:
        os.close(stream)
        raise
    finally:
        os.close(output)
        os.close(plan_file)
    reader = ReaderProcess(spawned, stream, timeout_s)
    try:
        yield reader
    finally:
        reader.close()


def _spawn(command: Sequence[str], inherited: Sequence[int], own_namespace: bool) -> Spawned:
    if own_namespace:
        with contextlib.suppress(ConfinementError):
            return spawn(command, inherited, "new")
    return spawn(command, inherited)


def _garbage() -> PackageError:
    return PackageError("the process that read it says what no reader says", hint="nothing of it was kept")


def _refusal(text: str, exit_code: int) -> ConfigError:
    """Return the reader's own last word as an error; the first line says what, another what to do."""
    what, _, hint = text.partition("\n")
    told = SourceUnavailableError if exit_code == SourceUnavailableError.exit_code else PackageError
    return told(visible(what[:_SAID_MAX]) or "it was refused", hint=visible(hint[:_SAID_MAX]) or None)
