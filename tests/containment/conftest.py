"""Worlds in which an attack is tried: every layer on, each one off, and all off, where the attack has to work.

A world is a running host (zygote, warden, audit writer). In it a WebAssembly program can be run, or raw system calls be
made from inside a sealed worker (`worker.probe`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ipc.struct import Struct, field, replace
from ipc.syscalls import machine
from supervisor.cli import run as run_command
from supervisor.cli.run_setup import bare_request, read_settings
from supervisor.code.compilation import CompileLimits
from supervisor.host.host import Host, HostOptions, open_host
from supervisor.host.identity import resolve_run_as
from supervisor.run.report import RunReport
from supervisor.run.running import RunStreams, run_request
from worker.filter_compiler import resolve

GUESTS = Path(__file__).resolve().parents[1] / "guests"
NOBODY = 65534
FORK, I386 = "fork:", "i386:"
AT_FDCWD = -100

Argument = int | str
Steps = Sequence[tuple[str, str | int, *tuple[Argument, ...]]]
"""(label, system call by name or number, arguments as `worker.probe` takes them)."""


def number_of(call: str | int) -> str:
    """Return a call as a probe takes it: `FORK` and `I386` prefixes stay, a name becomes its number."""
    if isinstance(call, int):
        return str(call)
    kind, colon, name = call.rpartition(":")
    number = int(name) if name.isdecimal() else resolve(name, machine())
    assert number >= 0, f"no system call {name} here"
    return f"{kind}{colon}{number}"


def program_text(steps: Steps) -> str:
    """Return steps in the form that `worker.probe` reads."""
    return "\n".join("\t".join(map(str, (label, number_of(call), *rest))) for label, call, *rest in steps)


def parse_results(output: bytes) -> dict[str, int]:
    """Return label → result, or the errno negated; what isn't a result line is passed over."""
    results = {}
    for line in output.decode("utf-8", "replace").splitlines():
        words = line.split(" ")
        if len(words) == 3 and words[2].isdecimal():
            results[words[0]] = -int(words[2]) or int(words[1])
    return results


class Ran(Struct, frozen=True):
    """What one run left: its report, and its records in the audit log."""

    report: RunReport
    records: tuple[Mapping[str, object], ...]

    @property
    def ending(self) -> tuple[str, str]:
        """Outcome and code."""
        return self.report.verdict.outcome, self.report.verdict.code

    @property
    def text(self) -> str:
        """Standard output."""
        return self.report.stdout.decode("utf-8", "replace")

    @property
    def results(self) -> dict[str, int]:
        """Of a probe: label → result, or the errno negated."""
        return parse_results(self.report.stdout)

    def denied(self, resource: object = None) -> set[tuple[str, str]]:
        """Return (action, code) of what the log says was denied, about one resource or all."""
        return {
            (str(r["action"]), str(r["code"]))
            for r in self.records
            if r["decision"] == "denied" and (resource is None or r["resource"] == str(resource))
        }

    def violations(self) -> list[str]:
        """Return what the log says of calls that end a worker."""
        return [str(r["reason"]) for r in self.records if r["event"] == "violation"]


class World(Struct):
    """One running host, and where it keeps things."""

    name: str
    host: Host
    config: Path

    def run(
        self,
        *arguments: str | Path,
        flags: Sequence[str | Path] = (),
        wasm: str | Path = "tool.wasm",
        cwd: Path | None = None,
        steps: Steps | None = None,
        stdin: int | None = None,
    ) -> Ran:
        """Run a WebAssembly program with the flags of `airssys run`; with `steps`, those calls in the guest's place."""
        parser = argparse.ArgumentParser()
        run_command.register(parser.add_subparsers())
        target = GUESTS / wasm
        args = parser.parse_args(["run", str(target), "--config", str(self.config), *map(str, flags)])
        args.guest_arguments = tuple(map(str, arguments))
        with contextlib.chdir(cwd or self.config.parent):
            request = bare_request(args, self.host, read_settings(args))
        if steps is not None:
            request = replace(request, kind="probe", arguments=("probe", program_text(steps)))
        streams = RunStreams(stdin, None, None)
        report = run_request(self.host, request, streams, CompileLimits(60.0, 8 << 30), lambda _: None, lambda _: None)
        return Ran(report, tuple(self._records(report.tally.instance)))

    def probe(self, steps: Steps, *flags: str | Path) -> Ran:
        """Make raw system calls from inside a sealed worker that was granted what the flags say."""
        return self.run(flags=flags, wasm="hello.wasm", steps=steps)

    def assert_ends(self, steps: Steps) -> None:
        """Make the steps; the last one must end the worker, and the audit log must name it by its number."""
        number = number_of(steps[-1][1]).removeprefix(FORK)
        ran = self.probe([*steps, ("after", "getpid")])
        assert "after" not in ran.results
        assert steps[-1][0] not in ran.results
        assert ran.ending == ("refused", "A1701"), ran.report.verdict
        assert ran.report.verdict.exit_code == 77
        assert len(ran.violations()) == 1
        assert f"system call {number} (" in ran.violations()[0]

    def assert_kills(self, steps: Steps, *flags: str | Path) -> None:
        """Make the steps; the last one must kill the worker by SIGSYS, and the audit log must say so."""
        ran = self.probe([*steps, ("after", "getpid")], *flags)
        assert "after" not in ran.results
        assert steps[-1][0] not in ran.results
        verdict = ran.report.verdict
        assert (verdict.outcome, verdict.exit_code) == ("crashed", 128 + 31), verdict
        assert "its filter kills at once" in verdict.message
        assert [r["reason"] for r in ran.records if r["event"] == "worker_ended"] == [verdict.message]

    def _records(self, instance: str) -> Iterator[Mapping[str, object]]:
        for segment in sorted(Path(self.host.options.audit_directory).glob("audit-*.jsonl")):
            for line in segment.read_bytes().splitlines():
                record = json.loads(line)
                if record["instance"] == instance:
                    yield record


LAYERS = ("rlimits", "namespaces", "landlock", "seccomp")
OFF = {
    "sealed": (),
    "without seccomp": ("seccomp",),
    "without landlock": ("landlock",),
    "without namespaces": ("namespaces",),
    "without rlimits": ("rlimits",),
    "seccomp alone": ("landlock", "namespaces"),
    "bare": LAYERS,
}
"""World → layers that are off. In "bare" an attack works: without that, its failure elsewhere would prove nothing."""


class Worlds(Struct):
    """Opens each world when it is first asked for, with one cache of compiled code for all."""

    place: Path
    stack: contextlib.ExitStack
    opened: dict[str, World] = field(default_factory=dict)

    def __getitem__(self, name: str) -> World:
        """Return the world of that name, running."""
        if name not in self.opened:
            self.opened[name] = self._open(name)
        return self.opened[name]

    def _open(self, name: str) -> World:
        off = OFF[name]
        options = HostOptions(
            state_directory=str(self.place / "state"),
            run_directory=str(self.place / "run"),
            audit_directory=str(self.place / "state/audit"),
            data_directory=str(self.place / "data"),
            run_as=resolve_run_as(None, os.getuid(), {}),
            required_layers=tuple(
                layer for layer in ("rlimits", "no_new_privs", "landlock", "seccomp") if layer not in off
            ),
            layers_off=off,
            namespaces="namespaces" not in off,
        )
        return World(name, self.stack.enter_context(open_host(options)), self.place / "airssys.toml")


@pytest.fixture(scope="session")
def _place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="ac-", dir="/tmp"))
    place.chmod(0o755)
    (place / "airssys.toml").write_text("schema = 1\n")
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def worlds(_place: Path) -> Iterator[Worlds]:
    """The worlds of one module; each ends with it."""
    with contextlib.ExitStack() as stack:
        yield Worlds(_place, stack)


HELD_BY_SECCOMP_ALONE = {
    "test_a_listing_shows_only_the_names_that_are_granted",
    "test_a_new_name_does_not_make_a_read_only_file_writable",
    "test_a_stat_does_not_become_a_read",
    "test_dot_dot_and_absolute_paths_lead_nowhere",
    "test_executing_a_program_ends_the_worker",
    "test_list_alone_gives_names_and_no_content",
    "test_no_new_executable_memory",
    "test_proc_sys_and_dev_are_closed_even_when_granted",
    "test_renaming_a_directory_does_not_bring_it_under_a_wider_grant",
    "test_symbolic_links_out_are_judged_on_their_target",
    "test_what_was_needed_before_the_seal_kills_after_it",
    "test_with_read_alone_nothing_changes",
    "test_without_a_grant_nothing_can_be_done",
}
"""Attacks that are tried once more with neither Landlock nor namespaces: what an older kernel or a container lacks."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the attacks of `HELD_BY_SECCOMP_ALONE` in two worlds."""
    if metafunc.function.__name__ in HELD_BY_SECCOMP_ALONE:
        metafunc.parametrize("sealed", ["sealed", "seccomp alone"], indirect=True)


@pytest.fixture
def sealed(request: pytest.FixtureRequest, worlds: Worlds) -> World:
    """The world with every layer on; for some attacks also the one where seccomp has to hold alone."""
    return worlds[getattr(request, "param", "sealed")]


@pytest.fixture
def bare(worlds: Worlds) -> World:
    """The world with every layer off: the positive control."""
    return worlds["bare"]


def _own(root: Path) -> None:
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture
def tree(short_dir: Path) -> Path:
    """A directory of the component's file identity: in/ out/ and secret/ with a few files, readable by everybody."""
    root = short_dir / "t"
    for name in ("in/sub", "out", "secret"):
        (root / name).mkdir(parents=True)
    (root / "in/a.txt").write_text("alpha")
    (root / "in/b.csv").write_text("beta")
    (root / "in/sub/c.txt").write_text("gamma")
    (root / "out/old.txt").write_text("old")
    (root / "secret/key").write_text("the key")
    _own(root)
    # In "bare" a worker has a uid of its own and no warden: only what everybody may do can work there.
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    return root


@pytest.fixture
def own() -> Callable[[Path], None]:
    """Gives a tree to the component's file identity."""
    return _own


def unconfined(steps: Steps) -> dict[str, int]:
    """Make the same calls in an ordinary process; returns label → result, or the errno negated."""
    code = "import sys; from worker.probe import Probe; Probe.parse(sys.argv[1]).run()"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, program_text(steps)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
    )
    return parse_results(done.stdout)


@pytest.fixture(scope="session")
def ordinary() -> Callable[[Steps], dict[str, int]]:
    """Makes the same calls in an ordinary process."""
    return unconfined
