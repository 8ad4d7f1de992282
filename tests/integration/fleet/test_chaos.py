"""Broker, warden and workers are killed at random under load, with a count of every acknowledged operation.

`AIRSSYS_CHAOS_KILLS=600 AIRSSYS_CHAOS_SEED=3 pytest tests/integration/fleet/test_chaos.py` is a longer run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import wasmtime
from ending import end

from ipc.struct import Struct, field

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1]
NAMES = ("c0", "c1", "c2", "c3")
KILLS = int(os.environ.get("AIRSSYS_CHAOS_KILLS", "30"))
SEED = int(os.environ.get("AIRSSYS_CHAOS_SEED", "1"))
ANSWER_WITHIN_MS = 15_000
"""Promised are the timeout (1.5 s) and a second where the broker was lost; a busy machine is given more."""
QUIET_S = 2.5
BROKER, WARDEN, WORKER = "worker.broker", "ipc.warden.shell", "worker"


class Instance(Struct):
    """What one instance printed."""

    name: str
    instance: str
    begun_ms: int
    last_ms: int = 0
    ended: bool = False
    found: list[int] = field(default_factory=list)
    said: dict[int, str] = field(default_factory=dict)
    accepted: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Number → when, and the correlation."""
    refused: dict[int, str] = field(default_factory=dict)
    ends: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    delivered: list[tuple[str, int]] = field(default_factory=list)


def read_instances(name: str, lines: Sequence[str]) -> list[Instance]:
    """Read what a component has printed, instance by instance; a line that was cut off by a kill is left out."""
    found: list[Instance] = []
    for line in lines:
        words = line.split(" ")
        if len(words) < 3 or not words[0].isdecimal():
            continue
        at_ms, what = int(words[0]), words[1]
        if what == "B":
            found.append(Instance(name, words[2], at_ms))
        one = found[-1]
        one.last_ms = at_ms
        match what:
            case "G":
                one.found.append(int(words[2]))
            case "s" | "q" | "m" | "p" | "d":
                one.said[int(words[2])] = what
            case "+":
                one.accepted[int(words[2])] = (at_ms, int(words[3]))
            case "-":
                one.refused[int(words[2])] = words[3]
            case "c":
                one.ends.setdefault(int(words[2]), []).append((at_ms, words[3]))
            case "D":
                one.delivered.append((words[2], int(words[3])))
            case "E":
                one.ended = True
    return found


class Chaos(Struct):
    """A fleet under load, and who kills in it."""

    process: subprocess.Popen[bytes]
    directory: Path
    environment: dict[str, str]
    said: str = ""
    killed: Counter[str] = field(default_factory=Counter)
    quiet_ms: int = 0

    def read(self, within_s: float) -> None:
        """Take what the supervisor says meanwhile."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], within_s)[0]:
            self.said += os.read(self.process.stdout.fileno(), 1 << 16).decode("utf-8", "replace")

    def printed(self, name: str) -> list[str]:
        """Return what a component has printed."""
        path = self.directory / f"state/logs/{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return [parts[3] for line in lines if (parts := line.split(" ", 3))[1] == "stdout" and len(parts) == 4]

    def victims(self) -> dict[str, list[psutil.Process]]:
        """Return the processes that may be killed, by what they are; workers are children of keepers."""
        found: dict[str, list[psutil.Process]] = {BROKER: [], WARDEN: [], WORKER: []}
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(each.cmdline())
                if BROKER in words:
                    found[BROKER].append(each)
                elif WARDEN in words:
                    found[WARDEN].append(each)
                elif "forkserver" in words and "forkserver" in " ".join(each.parent().parent().cmdline()):
                    found[WORKER].append(each)
        return found

    def kill(self, chosen: random.Random) -> None:
        """Kill one of them."""
        what = chosen.choices((BROKER, WARDEN, WORKER), (4, 3, 3))[0]
        if victims := self.victims()[what]:
            with contextlib.suppress(psutil.Error):
                chosen.choice(victims).kill()
                self.killed[what] += 1


@pytest.fixture
def chaos(airssys) -> Iterator[Chaos]:
    """A fleet under load."""
    wasm = bytes(wasmtime.wat2wasm((TESTS / "guests/wat/actor.wat").read_text(encoding="utf-8")))
    for name in NAMES:
        place = airssys.directory / name
        place.mkdir()
        others = [other for other in NAMES if other != name]
        (place / "program.wasm").write_bytes(wasm)
        (place / "Component.toml").write_text(
            f'schema = 1\n[component]\nname = "{name}"\nversion = "1.0.0"\nwasm = "program.wasm"\n'
            f'[capabilities.messaging]\nsend = {others}\nreceive = {others}\npublish = ["t"]\nsubscribe = ["t"]\n'
            '[capabilities.storage]\nread = ["n"]\nwrite = ["n"]\n[quota]\nmessage_rate = "100000/s"\n'
        )
    script = (sys.executable, "-I", TESTS / "inside_up.py", HERE / "chaos_actor.py")
    process = subprocess.Popen(
        [*script, "up", *(airssys.directory / name for name in NAMES), "--grant", "asked"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=airssys.directory,
        env=airssys.environment,
        start_new_session=True,
    )
    chaos = Chaos(process, airssys.directory, airssys.environment)
    try:
        yield chaos
    finally:
        end(process)


@pytest.mark.any_user
@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_doubled_whoever_is_killed(airssys, chaos: Chaos) -> None:
    """Writes stay, each request ends once and in time, nothing comes twice or out of order, and the log is whole."""
    chosen = random.Random(SEED)
    until_s = time.monotonic() + 60
    while not all(any(" + " in line for line in chaos.printed(name)) for name in NAMES):
        assert time.monotonic() < until_s, chaos.said
        chaos.read(0.1)
    while chaos.killed.total() < KILLS:
        next_s = time.monotonic() + chosen.uniform(0.02, 0.5)
        while (left_s := next_s - time.monotonic()) > 0:
            chaos.read(left_s)
        chaos.kill(chosen)
        assert chaos.process.poll() is None, chaos.said
    _wait_until_all_answer(chaos)
    quiet_s = time.monotonic()
    chaos.quiet_ms = time.monotonic_ns() // 1_000_000
    while time.monotonic() < quiet_s + QUIET_S:
        chaos.read(0.1)
    asked_ms = time.monotonic_ns() // 1_000_000
    until_s = time.monotonic() + 60
    while missing := undelivered(read_all(chaos), chaos.quiet_ms, asked_ms):
        assert time.monotonic() < until_s, f"accepted in quiet times, and not delivered: {missing}"
        chaos.read(0.1)
    assert airssys("down").code == 0
    while chaos.process.poll() is None:
        chaos.read(0.1)
    every = read_all(chaos)
    check_storage(every)
    check_requests(every)
    check_deliveries(every)
    assert not undelivered(every, chaos.quiet_ms, asked_ms)
    check_log(airssys, every)


def _wait_until_all_answer(chaos: Chaos) -> None:
    """The killing is over: wait until each component has an instance whose message was accepted since."""
    begun_ms = time.monotonic_ns() // 1_000_000
    until_s = time.monotonic() + 60

    def answers(name: str) -> bool:
        last = [line.split(" ") for line in chaos.printed(name)[-40:]]
        return any(len(words) == 4 and words[1] == "+" and int(words[0]) > begun_ms + 500 for words in last)

    while not all(answers(name) for name in NAMES):
        assert time.monotonic() < until_s, chaos.said[-3000:]
        chaos.read(0.1)


def check_storage(every: dict[str, list[Instance]]) -> None:
    """What an instance finds is what was acknowledged last, or something that was said later."""
    for instances in every.values():
        acknowledged = said = 0
        for one in instances:
            for found in one.found:
                assert acknowledged <= found <= max(said, acknowledged), (one.instance, acknowledged, found, said)
            said = max([said, *(n for n, kind in one.said.items() if kind == "s")])
            acknowledged = max([acknowledged, *(n for n in one.accepted if one.said[n] == "s")])
        assert acknowledged > 20, "the load was one"


def check_requests(every: dict[str, list[Instance]]) -> None:
    """Each accepted request has exactly one end, in time, unless its own instance was ended before."""
    ended = Counter[str]()
    for one in (one for instances in every.values() for one in instances):
        asked = {c: at_ms for n, (at_ms, c) in one.accepted.items() if one.said[n] == "q"}
        for correlation, at_ms in asked.items():
            ends = one.ends.get(correlation, [])
            assert len(ends) <= 1, (one.instance, correlation, ends)
            if ends:
                assert ends[0][0] - at_ms < ANSWER_WITHIN_MS, (one.instance, correlation)
                ended[ends[0][1]] += 1
            else:
                assert one.last_ms - at_ms < ANSWER_WITHIN_MS, (one.instance, correlation, "silence")
        assert set(one.ends) <= set(asked) | {0}, "an end of what it had not asked"
        # What was said is answered before the next is: only the last one can be open.
        open_ones = set(one.said) - set(one.accepted) - set(one.refused)
        assert open_ones <= {max(one.said, default=0)}, (one.instance, open_ones)
    assert ended["ok"] > 20


def read_all(chaos: Chaos) -> dict[str, list[Instance]]:
    """Read what every component has printed."""
    return {name: read_instances(name, chaos.printed(name)) for name in NAMES}


def undelivered(every: dict[str, list[Instance]], quiet_ms: int, asked_ms: int) -> list[tuple[str, int]]:
    """Find what was accepted in quiet times and has not arrived."""
    arrived = {pair for instances in every.values() for one in instances for pair in one.delivered}
    return [
        (one.instance, number)
        for one in (one for instances in every.values() for one in instances)
        for number, (at_ms, _) in one.accepted.items()
        if one.said[number] == "m" and quiet_ms + 200 < at_ms < asked_ms and (one.instance, number) not in arrived
    ]


def check_deliveries(every: dict[str, list[Instance]]) -> None:
    """From one to one in order and never twice, and nothing that was refused."""
    by_instance = {one.instance: one for instances in every.values() for one in instances}
    last: dict[tuple[str, str], int] = {}
    for name, instances in every.items():
        for one in instances:
            for sender, number in one.delivered:
                assert number > last.get((sender, name), 0), (sender, name, number, "twice, or out of order")
                last[sender, name] = number
                assert number in by_instance[sender].said, "nobody said that"
                assert by_instance[sender].refused.get(number, "unavailable") == "unavailable", "it was refused"


def check_log(airssys, every: dict[str, list[Instance]]) -> None:
    """It verifies; what was used for the first time or refused is in it; nobody is accused of anything."""
    verified = airssys("audit", "verify")
    assert verified.code == 0, verified.stdout + verified.stderr
    lines = airssys("audit", "query", "--json").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    used = {(r["instance"], r["action"]) for r in records if r["decision"] == "allowed"}
    denied = {(r["instance"], r["resource"]) for r in records if r["event"] == "denied"}
    actions = {"s": "storage.write", "m": "messaging.send", "q": "messaging.send", "p": "messaging.publish"}
    for one in (one for instances in every.values() for one in instances):
        for number in one.accepted:
            assert (one.instance, actions[one.said[number]]) in used, (one.instance, number)
        for number, kind in one.refused.items():
            if one.said[number] == "d" and kind == "not-permitted":
                assert (one.instance, f"never.{number}") in denied, (one.instance, number)
    accused = [r for r in records if r["code"] in ("A1702", "A1806", "A1810")]
    assert not accused, [(r["time"], r["component"], r["code"], r["resource"], r["reason"]) for r in accused]
