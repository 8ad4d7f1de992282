"""What components print, kept: lines with their times, long ones in parts, files within bounds, nothing forged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.fleet import output_log
from supervisor.fleet.output_log import STDERR, STDOUT, OutputLog, log_files, make_log_directory, open_log_files
from supervisor.fleet.output_view import OutputLine, OutputReader, parse_output_line, read_lines, since_text
from worker.host.services import log_line


@pytest.fixture
def place(tmp_path: Path) -> str:
    """The directory of the logs."""
    return make_log_directory(str(tmp_path / "logs"))


def _lines(place: str, name: str = "one", since: str = "") -> list[OutputLine]:
    opened = open_log_files(place, name)
    try:
        return list(read_lines(opened, since))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_lines_come_back_as_they_were(place: str) -> None:
    """Each line has its stream; one that comes in pieces is one, one without an end is kept when the log is closed."""
    log = OutputLog(place, "one")
    log.feed(STDOUT, b"first\nsec")
    log.feed(STDERR, b"an error\n")
    log.feed(STDOUT, b"ond\n\xff\x00\n\nlast")
    log.note("it ended")
    log.close()
    found = [(line.stream, line.whole, line.text) for line in _lines(place)]
    assert found == [
        ("stdout", True, b"first"),
        ("stderr", True, b"an error"),
        ("stdout", True, b"second"),
        ("stdout", True, b"\xff\x00"),
        ("stdout", True, b""),
        ("stdout", True, b"last"),
        ("system", True, b"it ended"),
    ]
    assert os.stat(log_files(place, "one")[-1]).st_mode & 0o777 == 0o600


def test_a_long_line_is_kept_in_parts(place: str) -> None:
    """A line that never ends takes no more memory than its bound, and comes back whole."""
    log = OutputLog(place, "one")
    text = os.urandom(100_000).replace(b"\n", b"n")
    for start in range(0, len(text), 7_000):
        log.feed(STDOUT, text[start : start + 7_000])
        assert all(len(held) <= output_log.LINE_BYTES for held in log._held.values())
    log.feed(STDOUT, b"\n")
    log.close()
    lines = _lines(place)
    assert b"".join(line.text for line in lines) == text
    assert [line.whole for line in lines[:-1]] == [False] * (len(lines) - 1)
    assert lines[-1].whole


def test_nothing_that_is_printed_passes_for_our_own_words(place: str) -> None:
    """A line that looks like one of the log's is text of the component that printed it."""
    log = OutputLog(place, "one")
    forged = b"2026-01-01T00:00:00.000000000Z system F trust me"
    log.feed(STDOUT, forged + b"\n\r" + forged + b"\n")
    log.close()
    lines = _lines(place)
    assert [line.stream for line in lines] == ["stdout", "stdout"]
    assert [line.text for line in lines] == [forged, b"\r" + forged]
    assert "\r" not in lines[1].shown()


def test_what_an_actor_logs_reads_as_a_line() -> None:
    """Level, message and fields, harmlessly; only what is exactly that, on standard error and whole."""
    fields = [("to", "b"), ("why", "no room"), ("what", "1"), ("what", "2"), ("bad\n", "\x1b[2J")]
    text = log_line("warn", "it\x07 failed", fields).removesuffix(b"\n")
    line = OutputLine("", "stderr", True, text)
    logged = line.logged()
    assert logged is not None
    assert logged[0] == "warn"
    assert logged[1].isprintable()
    assert logged[1].endswith(' failed  to=b  why="no room"  what=["1", "2"]  ' + logged[1].rpartition("  ")[2])
    others = (
        OutputLine("", "stdout", True, text),
        OutputLine("", "system", True, text),
        OutputLine("", "stderr", False, text),
        OutputLine("", "stderr", True, text[:-1]),
        OutputLine("", "stderr", True, b'{"level": "loud", "message": ""}'),
        OutputLine("", "stderr", True, b'{"level": ["info"], "message": ""}'),
        OutputLine("", "stderr", True, b'{"level": "info", "message": 5}'),
        OutputLine("", "stderr", True, b'{"level": "info", "message": "", "fields": []}'),
        OutputLine("", "stderr", True, b'{"level": ' + b"[" * 100_000),
    )
    assert [each.logged() for each in others] == [None] * len(others)


def test_the_files_of_a_log_stay_within_bounds(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest file goes when there are too many; what is there is the end of what was printed, in order."""
    monkeypatch.setattr(output_log, "FILE_BYTES", 10_000)
    log = OutputLog(place, "one")
    for number in range(2_000):
        log.feed(STDOUT, b"%06d\n" % number)
    log.close()
    assert len(os.listdir(place)) == output_log.FILES_KEPT
    assert sum(entry.stat().st_size for entry in os.scandir(place)) <= 10_000 * output_log.FILES_KEPT
    numbers = [int(line.text) for line in _lines(place)]
    assert numbers == list(range(numbers[0], 2_000))
    again = OutputLog(place, "one")
    again.feed(STDOUT, b"002000\n")
    again.close()
    assert [int(line.text) for line in _lines(place)][-1] == 2_000


def test_a_disk_that_takes_nothing_is_told_of_later(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that can't be kept are counted; when there is room again the log says how many are missing."""
    log = OutputLog(place, "one")
    log.feed(STDOUT, b"kept\n")
    with monkeypatch.context() as full:
        full.setattr(output_log.os, "write", _full_disk)
        log.feed(STDOUT, b"lost\nlost\n")
        log.feed(STDOUT, b"lost\n")
    log.feed(STDOUT, b"kept again\n")
    log.close()
    assert [line.text for line in _lines(place)] == [
        b"kept",
        b"3 lines could not be kept: the disk took none",
        b"kept again",
    ]


def _full_disk(_descriptor: int, _data: bytes) -> int:
    raise OSError(28, "no space left on device")


def test_a_reader_goes_on_where_it_stopped(place: str) -> None:
    """What is written later is read by asking again; half a line waits for its end; older lines can be left out."""
    log = OutputLog(place, "one")
    log.feed(STDOUT, b"first\n")
    (opened,) = open_log_files(place, "one")
    try:
        reader = OutputReader(opened)
        assert [line.text for line in reader.lines()] == [b"first"]
        assert list(reader.lines()) == []
        log.feed(STDOUT, b"second\n")
        assert [line.text for line in reader.lines()] == [b"second"]
    finally:
        os.close(opened)
        log.close()
    newest = _lines(place)[-1].time
    assert [line.text for line in _lines(place, since=newest)] == [b"second"]
    assert _lines(place, since=since_text(2**62)) == []


@pytest.mark.parametrize("line", [b"", b"x", b"2026-01-01 stdout F x", b"2026-01-01T00:00:00.000000000Z other F x"])
def test_what_is_no_line_is_passed_over(line: bytes) -> None:
    """A file that somebody else has written to is read as far as it can be."""
    assert parse_output_line(line) is None
