"""A supervisor with components, through the real command line; whatever a test leaves is ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import wasmtime
from ending import end

from ipc.struct import Struct

GUESTS = Path(__file__).resolve().parents[2] / "guests"
ACTOR_MAY = """[capabilities.messaging]
send = ["one", "other"]
receive = ["one", "other"]
[capabilities.storage]
read = ["k"]
write = ["k"]
"""
"""What the actor of the repository tries: `tests/guests/wat/actor.wat`."""


class Up(Struct):
    """A running `airssys up`, read line by line."""

    process: subprocess.Popen[bytes]
    said: str = ""

    def until(self, text: str, within_s: float = 60) -> None:
        """Read what it says until `text` is in it."""
        assert self.process.stdout is not None
        until_s = time.monotonic() + within_s
        while text not in self.said:
            ready = select.select([self.process.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                assert self.process.stderr is not None
                pytest.fail(f"{text!r} was not said; it said: {self.said}\n{self.errors()}")
            self.said += data.decode("utf-8", "replace")

    def errors(self) -> str:
        """Return what is on its stderr; ends it where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode("utf-8", "replace")

    def end(self, within_s: float = 30) -> int:
        """Wait for its end and return its exit code."""
        assert self.process.stdout is not None
        code = self.process.wait(within_s)
        self.said += self.process.stdout.read().decode("utf-8", "replace")
        return code

    @property
    def tree(self) -> list[psutil.Process]:
        """All its processes."""
        return psutil.Process(self.process.pid).children(recursive=True)


Starter = Callable[..., contextlib.AbstractContextManager[Up]]


@pytest.fixture
def running() -> Callable[[subprocess.Popen[bytes]], Up]:
    """Read what an `airssys up` says that a test has started by itself."""
    return Up


@pytest.fixture
def up(airssys, compiled_before) -> Starter:
    """Start `airssys up` with arguments; at the end of the block it is ended, however that was left."""

    @contextlib.contextmanager
    def start(*arguments: str | Path, **environment: str) -> Iterator[Up]:
        process = airssys.start("up", *arguments, **environment)
        try:
            yield Up(process)
        finally:
            end(process)

    return start


@pytest.fixture
def component(airssys) -> Callable[..., Path]:
    """Make a component directory: of a guest in the repository, of the text of one, or of these bytes."""

    def make(name: str, wasm: str | bytes, more: str = "") -> Path:
        place = airssys.directory / name
        place.mkdir()
        if isinstance(wasm, bytes):
            (place / "program.wasm").write_bytes(wasm)
        elif wasm.endswith(".wat"):
            (place / "program.wasm").write_bytes(wasmtime.wat2wasm((GUESTS / "wat" / wasm).read_text()))
        else:
            shutil.copy(GUESTS / wasm, place / "program.wasm")
        (place / "Component.toml").write_text(
            f'schema = 1\n[component]\nname = "{name}"\nversion = "1.2.3"\nwasm = "program.wasm"\n{more}'
        )
        return place

    return make


@pytest.fixture
def actor(component: Callable[..., Path]) -> Callable[..., Path]:
    """Make a directory of the actor that does what the first byte of a message says."""

    def make(name: str, may: str = ACTOR_MAY, more: str = "") -> Path:
        return component(name, "actor.wat", more + may)

    return make


@pytest.fixture
def hello(component: Callable[..., Path]) -> Path:
    """A command that prints a word and ends."""
    return component("hello", "hello.wasm")


@pytest.fixture
def waiting(component: Callable[..., Path]) -> Path:
    """A command that waits for an hour."""
    return component("waiting", "block-poll.wat")
