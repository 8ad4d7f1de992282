"""What a start pays until it is known whether an installed component is trusted, and what it is granted.

From the name to the grant: the registry asked, the package verified, trust decided by four forms of sources and a
signature; then a yes that was remembered, an approval that a rule takes, or a source that is trusted. The manifest was
read and bound before, as any directory's; settings and modules are there. The baseline is the same package's files and
its program, each read and hashed. Rows of their own are the modules, which `airssys run` imports while its other
processes import theirs, against those that every component directory takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import cast

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.struct import Struct, to_builtins
from supervisor.approvals.chain import make_row
from supervisor.approvals.errors import AwaitingApprovalError
from supervisor.approvals.head import Head, head_text
from supervisor.approvals.machine import Refusal
from supervisor.approvals.request import Facts, Filed, Rejected, Told, Voted
from supervisor.approvals.store import FILE, HEAD_FILE, ApprovalStore
from supervisor.approvals.subject import Subject
from supervisor.approvals.verified import QUIET_NS
from supervisor.audit.log import AuditLog
from supervisor.cli.run_component import judge_component, require_installed
from supervisor.cli.run_grants import decide_grants
from supervisor.cli.targets import open_installed
from supervisor.config import places
from supervisor.config.host_policy import resolve_quota
from supervisor.config.settings import Settings
from supervisor.config.settings_files import load_settings
from supervisor.grants.store import GrantStore, lasting_grants, request_key
from supervisor.host.host import Host, HostOptions
from supervisor.host.identity import Identity
from supervisor.manifest import Variables, bind, load_manifest
from supervisor.packages.directory import copy_directory, read_directory
from supervisor.packages.installed import Installed
from supervisor.packages.installing import enter
from supervisor.packages.naming import Permitted
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.registry import Registry
from supervisor.packages.store import PackageStore

ROUNDS = 200
STARTS = 30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGsyfOZGhJXUmSmLBLvDbqHJVHXUEmIuGLYEW/wDjQxP"
NAME = "reporter"
MANIFEST = """schema = 1
[component]
name = "{name}"
version = "1.0.0"
wasm = "p.wasm"
[capabilities.filesystem]
read = ["/srv/logs/**", "/srv/data/*.csv"]
write = ["${{data}}/**"]
"""
ALICE, BOB = 1001, 1002
_LAST = "SELECT seq, (SELECT MAX(request) FROM steps), sum FROM steps ORDER BY seq DESC LIMIT 1"
_INSERT = "INSERT INTO steps VALUES (:seq, :request, :kind, :identity, :subject, :body, :prev, :sum)"


_OF_ANY = ("supervisor.cli.run_target", "supervisor.cli.run_component")
_OF_INSTALLED = ("supervisor.cli.targets", "supervisor.packages.store", "supervisor.packages.registry")
_OF_TRUST = ("supervisor.trust.breadth", "supervisor.trust.judge", "supervisor.trust.installed")
_OF_APPROVALS = ("supervisor.cli.run_approval",)


def measure() -> Iterator[dict[str, object]]:
    """One row for each way to a yes, and for each size of what is kept."""
    yield _imports("remembered", _OF_INSTALLED)
    yield _imports("trusted", (*_OF_INSTALLED, *_OF_TRUST))
    yield _imports("approved", (*_OF_INSTALLED, *_OF_TRUST, *_OF_APPROVALS))
    with tempfile.TemporaryDirectory(prefix="ab-") as place:
        bench = _Bench(place)
        bench.install(NAME)
        yield bench.row("remembered", "", _remember)
        yield bench.row("approved, as a rule takes, 4 sources", _RULES + _sources(4), _approve)
        yield bench.row("trusted, the last of 4 sources", _sources(4), None)
        for number in range(99):
            bench.install(f"other-{number}")
        yield bench.row("remembered, 100 installed", "", _remember)
        yield bench.row("trusted, the last of 100 sources, 100 installed", _sources(100), None)
        for number in (1_000, 10_000):
            bench.fill(number)
            yield bench.row(f"approved, 4 sources, {number:,} requests", _RULES + _sources(4), _approve)
            yield bench.row(f"the same after a change, {number:,} requests", _RULES + _sources(4), _touch, rounds=10)


_RULES = """[[approvals.rules]]
when = ["filesystem.*"]
approvers = 2
"""


def _sources(number: int) -> str:
    """Return settings with so many entries, of four forms: of the keys only the last one's has signed."""
    found = []
    for each in range(number - 1):
        found.append("[[trust.sources]]")
        found.append(
            (
                f'git = "https://git.example.com/team-{each}/*"',
                f'oci = "registry.example.com/team-{each}/*"',
                f'local = "/srv/components/{each}/*"',
            )[each % 3]
        )
    return "\n".join([*found, "[[trust.sources]]", f'signing_key = "{KEY}"', ""])


def _imports(name: str, modules: tuple[str, ...]) -> dict[str, object]:
    """Return the row of modules that are imported by a start beside those of any component directory."""
    code = "import sys, time; a = time.perf_counter(); import {}; b = time.perf_counter(); import {}; print(b - a, {})"
    command = [
        sys.executable,
        "-I",
        "-c",
        code.format(", ".join(_OF_ANY), ", ".join(modules), "time.perf_counter() - b"),
    ]
    ours: list[float] = []
    baseline: list[float] = []
    for _ in range(STARTS):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        base_s, own_s = map(float, done.stdout.split())
        ours.append(own_s * 1e3)
        baseline.append(base_s * 1e3)
    return _row(f"its modules, {name}", ours, baseline, "those of any component directory")


def _row(name: str, ours: list[float], baseline: list[float], against: str) -> dict[str, object]:
    p50, baseline_p50 = statistics.median(ours), statistics.median(baseline)
    return {
        "name": f"decision at start: {name}",
        "p50": round(p50, 3),
        "p99": round(statistics.quantiles(ours, n=100)[98], 3),
        "unit": "ms",
        "n": len(ours),
        "baseline": against,
        "baseline_p50": round(baseline_p50, 3),
        "ratio": round(p50 / baseline_p50, 2),
    }


class _Place(Struct, frozen=True):
    """What a decision asks of the processes behind a run: where things are, and somebody who puts on record."""

    options: HostOptions
    record: Callable[[AuditEvent], None]
    ends: contextlib.ExitStack

    def at_end(self, close: Callable[[], object]) -> None:
        """Have something closed after it."""
        self.ends.callback(close)


class _Bench:
    """A state directory with what is installed and approved in it."""

    def __init__(self, place: str) -> None:
        """Make what doesn't change from row to row."""
        self.place = place
        self.state = os.path.join(place, "state")
        self.data = os.path.join(place, "data")
        audit = os.path.join(place, "audit")
        self.log = AuditLog(audit)
        user = Identity("bench", os.getuid(), os.getgid(), ())
        self.options = HostOptions(self.state, place, audit, self.data, user)
        self.args = argparse.Namespace(grant=None, command="run", quiet=True)
        self.store = ApprovalStore(self.state, audit, self.record)
        self.installed = ""

    def record(self, event: AuditEvent) -> None:
        """Put it on record, durably."""
        self.log.append([(event.within_bounds(), SUPERVISOR)])

    def install(self, name: str) -> None:
        """Install a package of three files under a name; the first one is the one that is measured."""
        source = os.path.join(self.place, f"source-{name}")
        os.makedirs(os.path.join(source, "data"))
        for file, data in (
            ("Component.toml", MANIFEST.format(name=name).encode()),
            ("p.wasm", os.urandom(30_000)),
            ("data/words", os.urandom(10_000)),
        ):
            with open(os.path.join(source, file), "wb") as stream:
                stream.write(data)
        store = PackageStore(places.packages_directory(self.state))
        with store.incoming() as incoming, Registry(self.state) as registry:
            contents = copy_directory(source, incoming)
            fetched = Fetched(contents, b"", Provenance("git", f"https://git.example.org/{name}", "main"))
            new = Installed(name, "", "1.0.0", contents.digest, "p.wasm", fetched.provenance, source, (KEY,))
            enter(store, registry, incoming, fetched, new, Permitted(), None, lambda _: None)
        self.installed = self.installed or store.path(contents.digest)

    def row(
        self, name: str, settings_text: str, prepare: Callable[[_Start], None] | None, rounds: int = ROUNDS
    ) -> dict[str, object]:
        """Measure one way to a yes; `prepare` makes the first, and is what each of few rounds begins with."""
        path = os.path.join(self.place, "airssys.toml")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("schema = 1\n" + settings_text)
        start = _Start(self, load_settings(path, {}, os.geteuid()))
        if prepare is not None:
            prepare(start)
        ours: list[float] = []
        baseline: list[float] = []
        for _ in range(rounds):
            if prepare is not None and rounds < ROUNDS:
                prepare(start)
            ours.append(_ms(start.decide))
            baseline.append(_ms(lambda: read_directory(self.installed)))
        return _row(name, ours, baseline, "its files and its program, read and hashed")

    def fill(self, number: int) -> None:
        """Have so many requests kept, each behind the other, as `supervisor.approvals.ledger` writes them."""
        with contextlib.closing(sqlite3.connect(os.path.join(self.store.directory, FILE))) as connection:
            seq, last, prev = connection.execute(_LAST).fetchone()
            there = connection.execute("SELECT COUNT(DISTINCT request) FROM steps").fetchone()[0]
            with connection:
                for each in range(last + 1, last + 1 + number - there):
                    about = Subject(f"component-{each}", "", f"{each:064x}", ())
                    at_s = int(time.time())
                    facts = Facts("1.0.0", "/srv/components", MANIFEST, "cd" * 32, (), (), ())
                    for step in (
                        Filed(at_s, ALICE, about, 1, 0, 86_400, facts),
                        Told(at_s),
                        Rejected(at_s, BOB, "measured, and nothing else"),
                    ):
                        seq += 1
                        row = make_row(seq, prev, each, step, about.identity, about.key)
                        prev = row.sum
                        connection.execute(_INSERT, to_builtins(row))
        with open(os.path.join(self.store.directory, HEAD_FILE), "w", encoding="ascii") as head:
            head.write(head_text(Head(seq, prev, int(time.time()))))


class _Start:
    """The start that is measured: the manifest read and bound, by these settings."""

    def __init__(self, bench: _Bench, settings: Settings) -> None:
        """Read and bind it."""
        self.bench = bench
        self.settings = settings
        manifest = load_manifest(bench.installed)
        own = Variables(component=bench.installed, data=os.path.join(bench.data, NAME), tmp=f"{bench.place}/tmp")
        self.bound = bind(manifest, {}, own, cwd="/", real_path=os.path.realpath)
        self.quota = resolve_quota(manifest, settings).quota

    def decide(self) -> None:
        """From the name to the grant; raises RuntimeError where nothing is granted."""
        with contextlib.ExitStack() as ends:
            host = cast("Host", _Place(self.bench.options, self.bench.record, ends))
            installed = ends.enter_context(open_installed(NAME, self.bench.state, unread_program=True))
            require_installed(self.bound.manifest, installed)
            judged = judge_component(self.bench.args, self.bound.manifest, self.settings, installed)
            parts = (self.bench.args, host, self.bound, {}, self.settings, self.quota)
            if decide_grants(*parts, judged, installed) is None:
                raise RuntimeError("nothing was granted")


def _remember(start: _Start) -> None:
    """Say yes once."""
    with open_installed(NAME, start.bench.state) as installed:
        grants = lasting_grants(start.bound.grants, start.bound.variables.tmp)
        manifest = start.bound.manifest
        key = request_key(manifest.digest, installed.program_sha256, grants)
        GrantStore(os.path.join(start.bench.state, "grants")).remember(key, NAME, grants)


def _approve(start: _Start) -> None:
    """Ask, unless that was done, and have two people say yes."""
    try:
        start.decide()
    except AwaitingApprovalError:
        with start.bench.store.open() as ledger:
            for uid in (ALICE, BOB):
                request = ledger.request(1)
                assert request is not None, "it was asked for"
                after = ledger.take(request, Voted(ledger.now_s, uid, request.review, 2))
                assert not isinstance(after, Refusal), after

    # Once what was verified is noted: of a file that nobody has written to for a while.
    time.sleep(QUIET_NS / 1e9)
    start.decide()


def _touch(start: _Start) -> None:
    """Change the file, and nothing in it."""
    os.chmod(os.path.join(start.bench.store.directory, FILE), 0o600)


def _ms(what: Callable[[], object]) -> float:
    before = perf_counter_ns()
    what()
    return (perf_counter_ns() - before) / 1e6
