"""Runs of the public command line on the guests that the repository ships, with one cache of compiled code for all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import wasmtime

from ipc.struct import Struct

GUESTS = Path(__file__).resolve().parents[1] / "guests"
NOBODY = 65534
"""Whose files root's components touch, unless told otherwise."""


class Result(Struct, frozen=True):
    """What one run left: its exit code (-n for signal n) and the bytes that it printed."""

    code: int
    stdout: bytes
    stderr_bytes: bytes

    @property
    def stderr(self) -> str:
        """What a person reads on stderr."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def summary(self) -> str:
        """The last line."""
        return self.stderr.splitlines()[-1] if self.stderr else ""

    def document(self) -> dict[str, object]:
        """The one document of `--json`."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document


class _CommandLine(Protocol):
    directory: Path
    environment: dict[str, str]

    def start(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start it."""


class Runner(Struct, frozen=True):
    """`airssys run` in a directory of the test's own, which the guest's identity can reach and write."""

    command_line: _CommandLine
    directory: Path
    state: Path

    @property
    def command_line_path(self) -> str:
        """The command, for a shell."""
        return os.path.join(os.path.dirname(sys.executable), "airssys")

    @property
    def environment(self) -> dict[str, str]:
        """What the command needs in its environment, for a shell."""
        return {**self.command_line.environment, "AIRSSYS_STATE": str(self.state)}

    def start(
        self, target: str | Path, *options: str | Path, guest: tuple[str, ...] = (), state: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a run with three pipes; end it within a `with` block."""
        tail = ("--", *guest) if guest else ()
        return self.command_line.start(
            "run", target, *options, *tail, cwd=self.directory, AIRSSYS_STATE=str(state or self.state)
        )

    def __call__(
        self,
        target: str | Path,
        *options: str | Path,
        guest: tuple[str, ...] = (),
        stdin: bytes = b"",
        state: Path | None = None,
        timeout_s: float = 60,
    ) -> Result:
        """Run to the end."""
        with self.start(target, *options, guest=guest, state=state) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return Result(process.returncode, stdout, stderr)

    def tool(self, *options: str | Path, guest: tuple[str, ...], stdin: bytes = b"") -> Result:
        """Run the test tool (preview 1) with `guest` as its arguments."""
        return self(GUESTS / "tool.wasm", *options, guest=guest, stdin=stdin)

    def other_command(self, *arguments: str | Path) -> Result:
        """Run another command on the same state."""
        with self.command_line.start(*arguments, cwd=self.directory, AIRSSYS_STATE=str(self.state)) as process:
            stdout, stderr = process.communicate(b"", 60)
        return Result(process.returncode, stdout, stderr)

    def records(self, state: Path | None = None) -> list[dict[str, object]]:
        """Return every record of the audit log, oldest first."""
        lines: list[dict[str, object]] = []
        for path in sorted(((state or self.state) / "audit").glob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return lines

    def file(self, name: str, content: bytes | str = b"") -> Path:
        """Make a file that the guest's identity owns, with its directories."""
        path = self.directory / name
        missing = [p for p in path.parents if not p.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        for made in (*missing, path):
            give_away(made)
        return path

    def folder(self, name: str) -> Path:
        """Make a directory that the guest's identity owns."""
        path = self.directory / name
        path.mkdir(parents=True)
        give_away(path)
        return path


def give_away(path: Path) -> None:
    """Make `path` the property of the identity whose files components touch."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


@pytest.fixture(scope="session")
def shared_state() -> Iterator[Path]:
    """A state directory for the whole session: what one test compiled, the next finds in the cache."""
    path = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    path.chmod(0o755)
    yield path / "state"
    shutil.rmtree(path)


@pytest.fixture
def compiled_before(shared_state: Path, short_dir: Path) -> Iterator[None]:
    """In the state directory of the test's own: what others have compiled; what it compiles is there for the next."""
    own, shared = short_dir / "state" / "cache", shared_state / "cache"
    for directory in (own.parent, own, shared.parent, shared):
        directory.mkdir(mode=0o700, exist_ok=True)
    _share(shared, own)
    yield
    _share(own, shared)


def _share(source: Path, destination: Path) -> None:
    for artifact in source.glob("*.cwasm"):
        record = artifact.with_suffix(".record")
        if record.exists():
            for path in (artifact, record):  # in this order, as the cache itself writes them
                with contextlib.suppress(FileExistsError):
                    os.link(path, destination / path.name)


@pytest.fixture
def run(airssys: _CommandLine, shared_state: Path) -> Runner:
    """`airssys run` with the session's cache; its audit log is the session's too."""
    directory = airssys.directory / "work"
    directory.mkdir()
    give_away(directory)
    return Runner(airssys, directory, shared_state)


@pytest.fixture
def wat(run: Runner) -> Callable[[str], Path]:
    """Translate WebAssembly text (or a file of tests/guests/wat by name) into a file and return its path."""

    def translate(text: str) -> Path:
        name = "program"
        if text.endswith(".wat"):
            name = text.removesuffix(".wat")
            text = (GUESTS / "wat" / text).read_text()
        path = run.directory / f"{name}.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        return path

    return translate


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], int]]:
    """A function that mounts a tmpfs with these options on a directory, and returns a process that sees it there."""
    hold = 'mount -t tmpfs -o "$2" tmpfs "$1" && echo mounted && exec sleep 600'
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    with contextlib.ExitStack() as stack:

        def mount(directory: Path, options: str) -> int:
            command = ["unshare", *namespaces, "sh", "-c", hold, "sh", str(directory), options]
            holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.enter_context(holder)
            stack.callback(holder.kill)
            assert holder.stdout is not None
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("no mount namespace with a tmpfs can be had here")
            return holder.pid

        yield mount
