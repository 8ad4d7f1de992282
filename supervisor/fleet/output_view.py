"""Reading what components printed (`supervisor.fleet.output_log`), and making it harmless to look at. Pure."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence

from ipc.struct import Struct
from supervisor.fleet.output_log import PROVIDER_PREFIX
from supervisor.manifest.checks import check_name
from supervisor.terminal import visible

_LINE = re.compile(
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (?P<stream>stdout|stderr|system) (?P<tag>[FP]) (?P<text>.*)",
    re.DOTALL,
)
_CHUNK_BYTES = 1 << 16
LEVELS = ("trace", "debug", "info", "warn", "error")
_BARE = re.compile(r"[^\s\"=\[]+")


class OutputLine(Struct, frozen=True):
    """One kept line; `whole` is False for the parts of a long one but its last."""

    time: str
    stream: str
    whole: bool
    text: bytes

    def shown(self) -> str:
        """Return the text as one harmless line: control characters escaped, tabs left as they are."""
        return "\t".join(visible(part) for part in self.text.decode("utf-8", "surrogateescape").split("\t"))

    def logged(self) -> tuple[str, str] | None:
        """Return level and text of what an actor wrote to its log (`worker.host.services`); None for anything else."""
        if self.stream != "stderr" or not self.whole or not self.text.startswith(b'{"level": '):
            return None
        try:
            entry = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        level, message, fields = entry.get("level"), entry.get("message"), entry.get("fields", {})
        if level not in LEVELS or not isinstance(message, str) or not isinstance(fields, dict):
            return None
        shown = [f"{name}={_field(value)}" for name, value in fields.items()]
        return level, visible("  ".join([message, *shown]))

    def to_json(self) -> dict[str, object]:
        """Return the stable keys of a line of `--json`; what isn't UTF-8 is shown escaped."""
        try:
            text = self.text.decode()
        except UnicodeDecodeError:
            text = self.shown()
        return {"time": self.time, "stream": self.stream, "text": text, "whole": self.whole}


def _field(value: object) -> str:
    """A field's value: as it stands where it is a word, else as JSON; of several of one name a list."""
    bare = isinstance(value, str) and _BARE.fullmatch(value)
    return str(value) if bare else json.dumps(value, ensure_ascii=False)


def parse_output_line(line: bytes) -> OutputLine | None:
    """Read one line without its end; None for what isn't one."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return OutputLine(match["time"].decode(), match["stream"].decode(), match["tag"] == b"F", match["text"])


class OutputReader:
    """Reads one open file of a log from where it stands; what comes later is read by asking again."""

    __slots__ = ("_descriptor", "_held", "_offset")

    def __init__(self, descriptor: int) -> None:
        """Read from the beginning; the descriptor stays the caller's."""
        self._descriptor = descriptor
        self._offset = 0
        self._held = b""

    def lines(self, since: str = "") -> Iterator[OutputLine]:
        """Yield the whole lines that are there now and are not older than `since`, an RFC 3339 time as in the file."""
        while chunk := os.pread(self._descriptor, _CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            *lines, self._held = (self._held + chunk).split(b"\n")
            for text in lines:
                line = parse_output_line(text)
                if line is not None and line.time >= since:
                    yield line


def read_lines(descriptors: Sequence[int], since: str = "") -> Iterator[OutputLine]:
    """Yield the lines of all files of a log, the oldest file first."""
    for descriptor in descriptors:
        yield from OutputReader(descriptor).lines(since)


def since_text(at_ns: int) -> str:
    """Return a time as lines have it."""
    second, nanosecond = divmod(at_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{nanosecond:09d}Z"


def check_log_name(name: str) -> str | None:
    """Say what was expected of a name whose log is asked for; None for one that can be a component's or provider's."""
    return check_name(name.removeprefix(PROVIDER_PREFIX))
