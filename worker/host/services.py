"""`host-services`: the log, clocks, sleeping, and who else is there."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, Final

from ipc.audit.text import bounded
from ipc.broker.messages import GetMetadata, ListComponents, Names
from worker.call_clock import CallClock
from worker.host.types import (
    LOG_LEVEL,
    METADATA,
    STRING,
    U32,
    U64,
    Asking,
    Functions,
    check_name,
    fallible,
    function,
    interface,
    refusable,
)
from worker.value_types import List, Ok, Tuple

NAME = interface("host-services")
_STDERR: Final = 2
_MESSAGE_BYTES: Final = 16 * 1024
_FIELD_BYTES: Final = 4 * 1024
_FIELDS_MAX: Final = 64


class Services:
    """Serves one component."""

    def __init__(self, asking: Asking, clock: CallClock) -> None:
        """Bind the parts."""
        self._ask = asking
        self._clock = clock

    def functions(self) -> Functions:
        """Return the interface."""
        return {
            "log": (function(LOG_LEVEL, STRING, List(Tuple((STRING, STRING)))), write_log),
            "current-time": (function(returns=Tuple((U64, U32))), _current_time),
            "current-time-millis": (function(returns=U64), _current_time_millis),
            "sleep-millis": (function(U32), self._sleep),
            "list-components": (fallible(returns=List(STRING)), refusable(self._list)),
            "get-component-metadata": (fallible(STRING, returns=METADATA), refusable(self._metadata)),
        }

    def _sleep(self, millis: int) -> None:
        # Not longer than its call may take: it is ended then. By poll(2), as that is what the filter has.
        left_ms = -(-self._clock.left_ns() // 1_000_000)
        select.poll().poll(min(millis, left_ms, (1 << 31) - 1))
        self._clock.expire()

    def _list(self) -> Any:
        answer = self._ask(ListComponents)
        assert isinstance(answer, Names)
        return Ok(list(answer.names))

    def _metadata(self, name: str) -> Any:
        check_name(name, "the name")
        answer = self._ask(lambda seq: GetMetadata(seq, name))
        assert isinstance(answer, Names)
        return Ok(tuple(answer.names[:3]))


def _current_time() -> tuple[int, int]:
    return divmod(time.time_ns(), 1_000_000_000)


def _current_time_millis() -> int:
    return time.time_ns() // 1_000_000


def write_log(level: str, message: str, fields: list[tuple[str, str]]) -> None:
    """Write one line to stderr."""
    line = log_line(level, message, fields)
    try:
        while line:
            line = line[os.write(_STDERR, line) :]
    except OSError:  # nobody reads it any more
        return


def log_line(level: str, message: str, fields: list[tuple[str, str]]) -> bytes:
    """Return one line of JSON with everything unprintable spelled out, so that no text ends it or drives a terminal.

    What is longer than a log has use for is cut, and says so. Of fields of one name the values are a list.
    """
    entry: dict[str, object] = {"level": level, "message": bounded(message, _MESSAGE_BYTES)}
    if fields:
        by_name: dict[str, list[str]] = {}
        for name, value in fields[:_FIELDS_MAX]:
            by_name.setdefault(bounded(name, _FIELD_BYTES), []).append(bounded(value, _FIELD_BYTES))
        entry["fields"] = {name: values[0] if len(values) == 1 else values for name, values in by_name.items()}
    if len(fields) > _FIELDS_MAX:
        entry["fields_left_out"] = len(fields) - _FIELDS_MAX
    text = json.dumps(entry, ensure_ascii=False)
    if not text.isprintable():
        text = "".join([c if c.isprintable() else json.dumps(c)[1:-1] for c in text])
    return text.encode() + b"\n"
