"""The streams of a run with real pipes: exact bytes, an exact cap, no blocking call, and readers that go away."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Iterator

import pytest

from ipc.struct import Struct
from supervisor.run.streams import InputStream, OutputStream
from supervisor.terminal import TerminalFilter

_PLENTY = 1 << 40


class Pipe(Struct):
    """A pipe whose ends know whether they were closed by somebody else."""

    reader: int
    writer: int


def _is_open(descriptor: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    """Two pipes without a blocking end: the guest's, and the user's."""
    made = tuple(Pipe(*os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)) for _ in range(2))
    yield made[0], made[1]
    for pipe in made:
        for descriptor in (pipe.reader, pipe.writer):
            if _is_open(descriptor):
                os.close(descriptor)


def _ready(descriptor: int, events: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return any(mask & events for _, mask in poll.poll(0))


def _fill(descriptor: int) -> int:
    total = 0
    while True:
        try:
            total += os.write(descriptor, b"F" * 4096)
        except BlockingIOError:
            return total


def _read_all(descriptor: int) -> bytes:
    data = b""
    while True:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return data
        if not chunk:
            return data
        data += chunk


def test_bytes_pass_through_exactly(pipes: tuple[Pipe, Pipe]) -> None:
    """What the guest writes, any bytes at all, is what the user's descriptor gets."""
    guest, user = pipes
    stream = OutputStream(guest.reader, user.writer)
    data = bytes(range(256)) * 8
    os.write(guest.writer, data)
    assert stream.read(_PLENTY) == len(data)
    while stream.pending:
        stream.flush()
    assert _read_all(user.reader) == data


def test_captured_output_is_kept(pipes: tuple[Pipe, Pipe]) -> None:
    """Without a target, output is collected and never pending."""
    guest, _ = pipes
    stream = OutputStream(guest.reader, None)
    os.write(guest.writer, b"abc")
    stream.read(_PLENTY)
    os.write(guest.writer, b"\xff")
    stream.read(_PLENTY)
    stream.flush()
    assert bytes(stream.captured) == b"abc\xff"
    assert not stream.pending


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "passed on"])
@pytest.mark.parametrize(
    ("written", "allowed", "kept"), [(10, 10, 10), (11, 10, 10), (5_000, 10, 10), (5, 0, 0), (1, 0, 0)]
)
def test_the_cap_is_exact(pipes: tuple[Pipe, Pipe], captured: bool, written: int, allowed: int, kept: int) -> None:
    """Exactly the allowed bytes come through; one more is seen, so that the limit is noticed, and not passed on."""
    guest, user = pipes
    stream = OutputStream(guest.reader, None if captured else user.writer)
    os.write(guest.writer, b"x" * written)
    stream.read(allowed)
    assert (stream.seen_bytes > allowed) == (written > allowed)
    assert stream.seen_bytes <= allowed + 1
    assert len(stream.captured if captured else stream.pending) == kept


def test_a_cap_over_several_reads(pipes: tuple[Pipe, Pipe]) -> None:
    """Counting on from read to read, the sum is the cap, whatever the chunks were."""
    guest, _ = pipes
    stream = OutputStream(guest.reader, None)
    limit = 100
    for _ in range(20):
        os.write(guest.writer, b"y" * 7)
        stream.read(max(0, limit - stream.seen_bytes))
        if stream.seen_bytes > limit:
            break
    assert len(stream.captured) == limit
    assert stream.seen_bytes == limit + 1


def test_nothing_to_read_does_not_block(pipes: tuple[Pipe, Pipe]) -> None:
    """Reading an empty pipe returns at once with nothing, and the stream stays open."""
    guest, user = pipes
    stream = OutputStream(guest.reader, user.writer)
    assert stream.read(_PLENTY) == 0
    assert stream.open


def test_the_end_of_the_stream_closes_our_end(pipes: tuple[Pipe, Pipe]) -> None:
    """When the guest's end is closed, what is left is read, then our end is closed, once."""
    guest, user = pipes
    stream = OutputStream(guest.reader, user.writer)
    os.write(guest.writer, b"last")
    os.close(guest.writer)
    assert stream.read(_PLENTY) == 4
    assert stream.open
    assert stream.read(_PLENTY) == 0
    assert not stream.open
    assert not _is_open(guest.reader)
    stream.finish()
    stream.flush()
    assert _read_all(user.reader) == b"last"


def test_a_slow_reader_holds_the_guest_back(pipes: tuple[Pipe, Pipe]) -> None:
    """With a full target nothing is lost or blocks: memory stays bounded and the guest's pipe fills up."""
    guest, user = pipes
    filled = _fill(user.writer)
    stream = OutputStream(guest.reader, user.writer)
    sent = 0
    while stream.wants_read():
        sent += _fill(guest.writer)
        stream.read(_PLENTY)
        stream.flush()  # the target is full: returns at once
    assert len(stream.pending) < (1 << 18) + 65_536
    sent += _fill(guest.writer)
    assert not _ready(guest.writer, select.POLLOUT)
    received = _read_all(user.reader)
    os.close(guest.writer)
    while stream.open or stream.pending:
        if stream.wants_read():
            stream.read(_PLENTY)
        stream.flush()
        received += _read_all(user.reader)
    assert len(received) == filled + sent
    assert received == b"F" * len(received)


def test_a_blocking_target_that_is_ready_does_not_block(pipes: tuple[Pipe, Pipe]) -> None:
    """The user's descriptor stays blocking; once poll(2) says ready, one flush writes what fits without waiting."""
    guest, user = pipes
    _fill(user.writer)
    os.set_blocking(user.writer, True)
    stream = OutputStream(guest.reader, user.writer)
    os.write(guest.writer, b"z" * 60_000)
    stream.read(_PLENTY)
    before = len(stream.pending)
    assert not _ready(user.writer, select.POLLOUT)
    os.read(user.reader, select.PIPE_BUF)
    assert _ready(user.writer, select.POLLOUT)
    stream.flush()
    assert before - len(stream.pending) == select.PIPE_BUF
    assert os.get_blocking(user.writer)


def test_a_reader_that_went_away_is_the_guests_broken_pipe(pipes: tuple[Pipe, Pipe]) -> None:
    """EPIPE at the target: what is pending is thrown away and the guest is told in the same way."""
    guest, user = pipes
    os.close(user.reader)
    stream = OutputStream(guest.reader, user.writer)
    os.write(guest.writer, b"abc")
    stream.read(_PLENTY)
    stream.flush()
    assert stream.target_gone
    assert stream.lost_errno == 0
    assert not stream.pending
    assert not stream.wants_read()
    with pytest.raises(BrokenPipeError):
        os.write(guest.writer, b"def")


def test_a_full_disk_ends_nothing_and_is_remembered(pipes: tuple[Pipe, Pipe]) -> None:
    """ENOSPC at the target is treated as a reader that went away, but for that it is told."""
    guest, _ = pipes
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    try:
        stream = OutputStream(guest.reader, full)
        os.write(guest.writer, b"abc")
        stream.read(_PLENTY)
        stream.flush()
        assert stream.target_gone
        assert stream.lost_errno == errno.ENOSPC
    finally:
        os.close(full)


def test_a_held_sequence_appears_at_the_end(pipes: tuple[Pipe, Pipe]) -> None:
    """What the terminal filter held back when the guest ended is shown, escaped."""
    guest, user = pipes
    stream = OutputStream(guest.reader, user.writer, TerminalFilter())
    os.write(guest.writer, b"a\x1b[3")
    stream.read(_PLENTY)
    assert bytes(stream.pending) == b"a"
    os.close(guest.writer)
    stream.read(_PLENTY)
    stream.flush()
    assert _read_all(user.reader) == b"a\\x1b[3"


def test_input_reaches_the_guest_and_ends(pipes: tuple[Pipe, Pipe]) -> None:
    """What the user types arrives, and the end of input closes the guest's pipe."""
    guest, user = pipes
    stream = InputStream(user.reader, guest.writer)
    os.write(user.writer, b"line\n")
    stream.read()
    assert not stream.wants_read()
    stream.flush()
    assert _read_all(guest.reader) == b"line\n"
    assert stream.wants_read()
    os.close(user.writer)
    stream.read()
    assert not stream.open
    assert not _is_open(guest.writer)
    assert os.read(guest.reader, 1) == b""


def test_input_waits_for_a_guest_that_does_not_read(pipes: tuple[Pipe, Pipe]) -> None:
    """With a full pipe nothing blocks, nothing more is taken from the user, and nothing is lost."""
    guest, user = pipes
    filled = _fill(guest.writer)
    stream = InputStream(user.reader, guest.writer)
    os.write(user.writer, b"abc")
    stream.read()
    stream.flush()
    assert stream.pending == b"abc"
    assert not stream.wants_read()
    assert len(_read_all(guest.reader)) == filled
    stream.flush()
    assert _read_all(guest.reader) == b"abc"


def test_a_part_that_did_not_fit_follows(pipes: tuple[Pipe, Pipe]) -> None:
    """A write that the pipe took in part is continued where it stopped."""
    guest, user = pipes
    fcntl.fcntl(guest.writer, fcntl.F_SETPIPE_SZ, 4096)
    data = bytes(n % 251 for n in range(20_000))
    os.write(user.writer, data)
    stream = InputStream(user.reader, guest.writer)
    stream.read()
    received = b""
    while stream.pending:
        stream.flush()
        received += _read_all(guest.reader)
    assert received == data


def test_a_guest_that_closed_its_input(pipes: tuple[Pipe, Pipe]) -> None:
    """EPIPE from the guest's pipe ends the input and nothing else."""
    guest, user = pipes
    os.close(guest.reader)
    stream = InputStream(user.reader, guest.writer)
    os.write(user.writer, b"abc")
    stream.read()
    stream.flush()
    assert not stream.open
    assert not stream.wants_read()
    stream.finish()


def test_a_source_without_data_is_not_its_end(pipes: tuple[Pipe, Pipe]) -> None:
    """A source that somebody else made non-blocking, and emptied before us, doesn't end the guest's input."""
    guest, user = pipes
    stream = InputStream(user.reader, guest.writer)
    stream.read()
    assert stream.open
    os.write(user.writer, b"late")
    stream.read()
    stream.flush()
    assert _read_all(guest.reader) == b"late"


def test_no_source_is_never_read(pipes: tuple[Pipe, Pipe]) -> None:
    """Without a standard input there is nothing to wait for."""
    guest, _ = pipes
    stream = InputStream(None, guest.writer)
    assert not stream.wants_read()
    stream.finish()
    assert os.read(guest.reader, 1) == b""


def test_an_output_that_was_read_to_its_end_is_read_no_more(pipes: tuple[Pipe, Pipe]) -> None:
    """A question reads what is there, and poll(2) may have named the output before: its number is not ours then."""
    guest, user = pipes
    stream = OutputStream(guest.reader, user.writer)
    os.write(guest.writer, b"all")
    os.close(guest.writer)
    assert stream.read(_PLENTY) == 3
    assert stream.read(_PLENTY) == 0
    assert not stream.open
    taken = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert taken == guest.reader or not _is_open(guest.reader)
        assert stream.read(_PLENTY) == 0
        assert stream.pending == b"all"
    finally:
        os.close(taken)


def test_a_file_that_cannot_be_written_is_no_reader_that_went_away(pipes: tuple[Pipe, Pipe]) -> None:
    """EIO of a disk is told, as that of a full one is; EPIPE of a pipe and EIO of a terminal that hung up are not."""
    _, user = pipes
    os.close(user.reader)
    primary, hung_up = os.openpty()
    os.close(primary)
    broken = os.open("/proc/self/mem", os.O_WRONLY)  # at offset 0, where nothing is mapped, it answers as a bad disk
    lost = []
    for target in (broken, user.writer, hung_up):
        source, writer = os.pipe()
        stream = OutputStream(source, target)
        os.write(writer, b"text")
        stream.read(_PLENTY)
        stream.flush()
        assert stream.target_gone
        lost.append(stream.lost_errno)
        os.close(writer)
    assert lost == [errno.EIO, 0, 0]
    os.close(broken)
    os.close(hung_up)


def test_input_that_is_gone_is_not_waited_for(pipes: tuple[Pipe, Pipe]) -> None:
    """What was there when the loop looked was thrown away since, as a question does: the loop goes on."""
    guest, user = pipes
    os.set_blocking(user.reader, True)  # as a terminal is: to read in vain would wait
    stream = InputStream(user.reader, guest.writer)
    os.write(user.writer, b"f\n")
    assert select.select([user.reader], [], [], 0)[0]
    os.read(user.reader, 10)
    stream.read()
    assert (stream.open, stream.pending) == (True, b"")
    os.write(user.writer, b"more")
    stream.read()
    assert stream.pending == b"more"
