"""A fleet of actors under `airssys up` whose workers run what a test sends them (`inside_actor.py`)."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import wasmtime
from ending import end

from ipc import memory_file
from ipc.channel import Channel
from ipc.struct import Struct, field
from supervisor.control.messages import ANSWERS, CallAnswer, CallComponent, ComponentStatus, Done, GetStatus, NotDone

HERE = Path(__file__).resolve().parent
ACTOR = HERE.parent / "guests/wat/actor.wat"
GUARD_S = 30.0


class Failed(Exception):  # noqa: N818 # an outcome of a call
    """A call ended without an answer."""


class Fleet(Struct):
    """A running `airssys up`; use `start`, and `close` at the end."""

    directory: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    said: str = ""
    heard: dict[str, int] = field(default_factory=dict)
    """How many lines of each component's have been returned."""

    @classmethod
    def start(cls, components: Mapping[str, str]) -> Fleet:
        """Start components, by name, each with what its manifest says beside its name; returns when all run."""
        directory = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
        directory.chmod(0o755)
        wasm = bytes(wasmtime.wat2wasm(ACTOR.read_text(encoding="utf-8")))
        for name, more in components.items():
            place = directory / name
            place.mkdir()
            (place / "program.wasm").write_bytes(wasm)
            (place / "Component.toml").write_text(
                f'schema = 1\n[component]\nname = "{name}"\nversion = "1.0.0"\nwasm = "program.wasm"\n{more}'
            )
        own = {"LC_ALL": "C.UTF-8", "HOME": str(directory), "AIRSSYS_STATE": str(directory / "state")}
        kept = ("PATH", "AIRSSYS_TEST_SESSION")
        surroundings = own | {name: os.environ[name] for name in kept if name in os.environ}
        script = (sys.executable, "-I", HERE.parent / "inside_up.py", HERE / "inside_actor.py")
        process = subprocess.Popen(
            [*script, "up", *(directory / name for name in components), "--grant", "asked"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=surroundings,
            start_new_session=True,
        )
        fleet = cls(directory, process, surroundings)
        try:
            for name in components:
                fleet.until(f"{name}: running")
        except BaseException:
            fleet.close()
            raise
        return fleet

    def until(self, text: str, within_s: float = GUARD_S) -> None:
        """Read what it says until `text` is in it."""
        assert self.process.stdout is not None
        until_s = time.monotonic() + within_s
        while text not in self.said:
            ready = select.select([self.process.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"{text!r} was not said; it said: {self.said}"
            self.said += data.decode("utf-8", "replace")

    def _request(self, request: object, files: Sequence[int] = ()) -> list[tuple[object, bytes]]:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self.directory / "state/control.sock"))
        channel = Channel(connection)
        answers: list[tuple[object, bytes]] = []
        try:
            channel.send(request, files)
            while True:
                message, descriptors = channel.receive(ANSWERS, GUARD_S)
                payload = b"".join(memory_file.take(each, 1 << 23) for each in descriptors)
                answers.append((message, payload))
                if isinstance(message, Done | NotDone):
                    return answers
        finally:
            channel.close()

    def call(self, name: str, payload: bytes, wants_answer: bool = True, timeout_ms: int = 30_000) -> bytes:
        """Send a message as the operator; raises Failed with the kind of failure."""
        file = memory_file.from_bytes("message", payload)
        try:
            answers = self._request(CallComponent(name, wants_answer, timeout_ms), (file,))
        finally:
            os.close(file)
        message, data = answers[0]
        if isinstance(message, CallAnswer) and not message.kind:
            return data
        raise Failed(message)

    def inside(self, name: str, script: str, **values: object) -> object:
        """Have a component's worker run a script, with these values; returns what it put into `result`."""
        text = self.call(name, _source(script, values)).decode()
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise AssertionError(f"in {name}: {text}") from None

    def begin_inside(self, name: str, script: str, **values: object) -> None:
        """The same, without waiting for it: `wait_printed` does, also where the connection doesn't last as long."""
        self.call(name, _source(script, values), wants_answer=False)

    def printed(self, name: str) -> list[str]:
        """Return the lines that a component has printed."""
        path = self.directory / f"state/logs/{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return [line.split(" ", 3)[3] for line in lines if line.split(" ", 2)[1] == "stdout"]

    def wait_printed(self, name: str) -> object:
        """Wait for the next line of a component's, which is the `result` of what was begun there."""
        seen, until_s = self.heard.get(name, 0), time.monotonic() + GUARD_S
        while len(self.printed(name)) <= seen:
            assert time.monotonic() < until_s, f"{name} prints nothing"
            time.sleep(0.01)
        self.heard[name] = seen + 1
        line = self.printed(name)[seen]
        try:
            return ast.literal_eval(line)
        except (ValueError, SyntaxError):
            raise AssertionError(f"in {name}: {line}") from None

    def through(self, name: str, script: str, **values: object) -> object:
        """Have a script run that changes the worker's connection; returns its `result`."""
        self.begin_inside(name, script, **values)
        return self.wait_printed(name)

    def status(self, name: str) -> ComponentStatus:
        """How a component is."""
        (found,) = [each for each, _ in self._request(GetStatus(name)) if isinstance(each, ComponentStatus)]
        return found

    def wait_ended(self, name: str) -> str:
        """Wait until a component was ended; returns the words for it."""
        self.until(f"{name}: failed")
        return self.status(name).ended

    def records(self, **wanted: object) -> list[dict[str, object]]:
        """Return the records of the audit log with these fields, as they are on the disk."""
        lines: list[str] = []
        for path in sorted((self.directory / "state/audit").glob("audit-*.jsonl")):
            lines += path.read_bytes().rstrip(b"\0").decode().splitlines()
        found = [json.loads(line) for line in lines if line.strip("\0 ")]
        return [each for each in found if all(each.get(key) == value for key, value in wanted.items())]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for what nobody tells of."""
        until_s = time.monotonic() + GUARD_S
        while not condition():
            assert time.monotonic() < until_s, what
            time.sleep(0.02)

    def wait_records(self, **wanted: object) -> list[dict[str, object]]:
        """Wait until there is a record with these fields."""
        self.wait(lambda: self.records(**wanted), f"no record with {wanted}")
        return self.records(**wanted)

    def broker(self) -> psutil.Process:
        """The broker's process."""
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("worker.broker" in word for word in each.cmdline()):
                    return each
        raise AssertionError("there is no broker")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the public command line beside it."""
        return subprocess.run(
            [Path(sys.executable).parent / "airssys", *arguments],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def close(self) -> None:
        """End it."""
        end(self.process)
        shutil.rmtree(self.directory)


def _source(script: str, values: Mapping[str, object]) -> bytes:
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return b"#!" + (given + textwrap.dedent(script)).encode()
