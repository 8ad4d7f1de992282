"""The three streams of a run: ours to the worker's pipes and back, with the output counted and never a blocking call.

A worker never holds the user's terminal or file: it gets pipes. The user's descriptors stay blocking (their open file
description is shared with the shell), so they are only written PIPE_BUF bytes at a time after poll(2) says ready.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import stat
import time
from collections.abc import Callable, Iterator

from ipc.policy.rate import Rate
from ipc.struct import Struct, field
from supervisor.event_loop import READ, WRITE, Interest
from supervisor.terminal import TerminalFilter, TerminalLine

_CHUNK_BYTES = 65_536
_HIGH_WATER_BYTES = 1 << 18
_READS_BEFORE_QUESTION = 4


class OutputStream(Struct):
    """One of the worker's output pipes, on its way to a descriptor of ours, to a `sink`, or else into memory."""

    source: int
    target: int | None
    filter: TerminalFilter | None = None
    sink: Callable[[bytes], None] | None = None
    line: TerminalLine | None = None
    """That of the terminal where lines of ours appear too, if `target` is that one."""
    pending: bytearray = field(default_factory=bytearray)
    captured: bytearray = field(default_factory=bytearray)
    seen_bytes: int = 0
    open: bool = True
    target_gone: bool = False
    lost_errno: int = 0
    """Why what the guest printed could not be written, where that isn't its reader's own doing."""

    def wants_read(self) -> bool:
        """Whether there is room to read more."""
        return self.open and len(self.pending) < _HIGH_WATER_BYTES

    def read(self, allowed_bytes: int, most_bytes: int = _CHUNK_BYTES) -> int:
        """Take what is there, at most `allowed_bytes` + 1; return how much came. Closes at the end of the stream.

        What is above `allowed_bytes` is dropped; what is above `most_bytes` stays in the pipe.
        """
        if not self.open:
            return 0  # read to its end for a question, after poll(2) had named it too
        try:
            chunk = os.read(self.source, min(most_bytes, allowed_bytes + 1))
        except BlockingIOError:
            return 0
        if not chunk:
            self.finish()
            return 0
        self.seen_bytes += len(chunk)
        self._take(chunk[:allowed_bytes])
        return len(chunk)

    def _take(self, chunk: bytes) -> None:
        if self.sink is not None:
            self.sink(chunk)
        elif self.target is None:
            self.captured += chunk
        elif not self.target_gone:
            self.pending += self.filter.feed(chunk) if self.filter else chunk

    def flush(self) -> None:
        """Write once to the target, which poll(2) said is ready."""
        if not self.pending or self.target is None:
            return
        try:
            written = os.write(self.target, self.pending[: select.PIPE_BUF])
        except BlockingIOError:
            return
        except OSError as error:
            # The reader went away (EPIPE) or its disk is full: the guest is told by a broken pipe, as anywhere else.
            self.target_gone = True
            if not _reader_is_gone(self.target, error.errno):
                self.lost_errno = error.errno or errno.EIO
            self.pending.clear()
            self.finish()
            return
        if self.line is not None:
            self.line.wrote(bytes(self.pending[:written]))
        del self.pending[:written]

    def settle(self) -> None:
        """Write what is pending to a terminal, waiting for it: what is printed next comes after it."""
        while self.pending and self.target is not None and os.isatty(self.target):
            self.flush()

    def finish(self) -> None:
        """Close our end of the pipe; what a filter still held becomes visible."""
        if self.open:
            self.open = False
            os.close(self.source)
            if self.filter and not self.target_gone:
                self.pending += self.filter.finish()


class InputStream(Struct):
    """The user's standard input on its way into the worker's pipe."""

    source: int | None
    target: int
    pending: bytes = b""
    open: bool = True

    def wants_read(self) -> bool:
        """Whether the last chunk is through and more may be taken."""
        return self.open and self.source is not None and not self.pending

    def read(self) -> None:
        """Take one chunk; at the end of input the worker's pipe is closed."""
        assert self.source is not None
        # Asked again: what was there when the loop looked may be gone, as typed lines are when a question is put
        # (tcflush(3)), and a read would then wait, and take the answer.
        poll = select.poll()
        poll.register(self.source, select.POLLIN)
        if not poll.poll(0):
            return
        try:
            self.pending = os.read(self.source, _CHUNK_BYTES)
        except BlockingIOError:
            return  # a source that somebody else set non-blocking, and read before us
        except OSError:
            self.pending = b""
        if not self.pending:
            self.finish()

    def flush(self) -> None:
        """Write what the pipe takes."""
        try:
            written = os.write(self.target, self.pending)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.finish()
            return
        self.pending = self.pending[written:]

    def finish(self) -> None:
        """Close the worker's standard input."""
        if self.open:
            self.open = False
            self.pending = b""
            os.close(self.target)


def _reader_is_gone(target: int, number: int | None) -> bool:
    """Whether an error of write(2) is a reader's doing: of a pipe or socket, or of a terminal that was hung up."""
    return number == errno.EPIPE or (number == errno.EIO and stat.S_ISCHR(os.fstat(target).st_mode))


class GuestStreams(Struct):
    """The three of one run; what both outputs carry is counted together.

    With a `pace`, what it prints faster waits in its pipes, and then so does the guest, until `paused_until_ns`.
    """

    stdin: InputStream
    stdout: OutputStream
    stderr: OutputStream
    limit_bytes: int
    pace: Rate | None = None
    paused_until_ns: int = 0

    @property
    def outputs(self) -> tuple[OutputStream, OutputStream]:
        """Both outputs."""
        return self.stdout, self.stderr

    @property
    def seen_bytes(self) -> int:
        """How much the guest has printed; at most one byte more than it may."""
        return self.stdout.seen_bytes + self.stderr.seen_bytes

    @property
    def undelivered(self) -> bool:
        """Whether output may still come, or waits for its reader."""
        return any(stream.open or stream.pending for stream in self.outputs)

    def interests(self, reads_input: bool, on_output: Callable[[OutputStream], object]) -> Iterator[Interest]:
        """Yield what to wait for now; `on_output` reads an output, for it is counted."""
        if reads_input and self.stdin.wants_read() and self.stdin.source is not None:
            yield Interest(self.stdin.source, READ, self.stdin.read)
        if self.stdin.open and self.stdin.pending:
            yield Interest(self.stdin.target, WRITE, self.stdin.flush)
        for stream in self.outputs:
            if stream.wants_read() and not self.paused_until_ns:
                yield Interest(stream.source, READ, functools.partial(on_output, stream))
            if stream.pending and stream.target is not None:
                yield Interest(stream.target, WRITE, stream.flush)

    def read(self, stream: OutputStream) -> int:
        """Take what one output carries, within what both may; return how much came."""
        allowed_bytes = max(0, self.limit_bytes - self.seen_bytes)
        if self.pace is None:
            return stream.read(allowed_bytes)
        now_ns = time.monotonic_ns()
        most_bytes = min(_CHUNK_BYTES, self.pace.available(now_ns))
        if most_bytes < select.PIPE_BUF:
            self.paused_until_ns = now_ns + self.pace.wait_ns(now_ns, _CHUNK_BYTES)
            return 0
        count = stream.read(allowed_bytes, most_bytes)
        self.pace.take(now_ns, count)
        return count

    def go_on(self, now_ns: int) -> None:
        """Read again where the pause is over."""
        if self.paused_until_ns <= now_ns:
            self.paused_until_ns = 0

    def settle(self, on_output: Callable[[OutputStream], int]) -> None:
        """Show what the guest has printed, no more than a pipe holds, before a question takes the terminal's line."""
        for stream in self.outputs:
            reads = _READS_BEFORE_QUESTION
            while reads and stream.open and on_output(stream):
                stream.settle()
                reads -= 1
            stream.settle()
        for stream in self.outputs:
            if stream.line is not None:
                stream.line.take()

    def finish(self) -> None:
        """Close our ends of all three."""
        self.stdin.finish()
        for stream in self.outputs:
            stream.finish()


def terminal_filter(target: int, raw: bool) -> TerminalFilter | None:
    """Return a filter when `target` is a terminal and the user didn't ask for raw output."""
    return TerminalFilter(colours=not os.environ.get("NO_COLOR")) if not raw and os.isatty(target) else None
