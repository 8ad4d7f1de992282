"""Processes of a measurement: each is told what to do, a line at a time, and says what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple


class Program:
    """A Python program of its own process; it says one line when it is ready."""

    def __init__(self, code: str, *arguments: object) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def read(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement ended")
        return line

    def tell(self, what: str) -> None:
        """Say what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class Pair(NamedTuple):
    """Who sends, who takes, and the process between them."""

    source: Program
    sink: Program
    pid: int


def cpu_us(pid: int) -> float:
    """Return the processor time of a process, all its threads (proc(5), stat)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as source:
        fields = source.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def one_way_us(pair: Pair, messages: int) -> tuple[float, float]:
    """Have so many messages sent; time, and processor time of the process between, a message."""
    before_us = cpu_us(pair.pid)
    pair.sink.tell("take")
    pair.source.tell("send")
    took_us = float(pair.sink.read()) * 1e6
    return took_us, (cpu_us(pair.pid) - before_us) / messages


def ask_us(pair: Pair) -> list[float]:
    """Have requests made and answered, one at a time; how long each took."""
    pair.sink.tell("answer")
    pair.source.tell("ask")
    return [float(text) * 1e6 for text in pair.source.read().split()]
