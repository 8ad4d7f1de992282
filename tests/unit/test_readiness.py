"""Waiting for descriptors: who is ready, who isn't, and two who wait for the same one."""

from __future__ import annotations

import os
import time

from supervisor.readiness import READ, WRITE, Interest, wait


def _nothing() -> None:
    pass


def test_only_what_is_ready_is_returned() -> None:
    """An empty pipe can be written and not read; when something is in it, both."""
    reader, writer = os.pipe()
    try:
        to_read, to_write = Interest(reader, READ, _nothing), Interest(writer, WRITE, _nothing)
        assert wait((to_read, to_write), 0) == [to_write]
        os.write(writer, b"x")
        assert wait((to_read, to_write), 0) == [to_read, to_write]
    finally:
        os.close(reader)
        os.close(writer)


def test_one_descriptor_may_be_waited_for_twice() -> None:
    """Two interests in one descriptor are told apart by what they wait for."""
    ours, theirs = os.openpty()
    try:
        to_read, to_write = Interest(ours, READ, _nothing), Interest(ours, WRITE, _nothing)
        assert wait((to_read, to_write), 0) == [to_write]
        os.write(theirs, b"x\n")
        assert wait((to_read,), 0) == [to_read]
        assert wait((to_read, to_write), 0) == [to_read, to_write]
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_time_that_has_come_ends_the_wait() -> None:
    """With nothing ready it returns nothing, at once when the time is over already."""
    reader, writer = os.pipe()
    try:
        assert wait((Interest(reader, READ, _nothing),), time.monotonic_ns() - 1) == []
    finally:
        os.close(reader)
        os.close(writer)
