"""An actor is held for its CPU time: it gets what it may and answers, and held or not it ends when it is to."""

from __future__ import annotations

import json
import os
import time

import psutil

from ipc import memory_file
from ipc.policy.quotas import QUOTAS
from supervisor.control.client import Address, ControlClient
from supervisor.control.messages import CallAnswer, CallComponent, GetQuotas, QuotaStatus
from supervisor.run.watch import read_cpu_ns


def _pid(airssys, name: str) -> int:
    (found,) = airssys("status", name, "--json").json()["components"]
    return found["pid"]


def _call(client: ControlClient, name: str, payload: bytes, wants_answer: bool = True) -> str:
    file = memory_file.from_bytes("payload", payload)
    try:
        ((answer, _),) = client.ask(CallComponent(name, wants_answer, 30_000), (file,), 40)
    finally:
        os.close(file)
    assert isinstance(answer, CallAnswer)
    return answer.kind


def _until_held(pid: int) -> None:
    process = psutil.Process(pid)
    until_s = time.monotonic() + 30
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < until_s, "it was never held"


def _ended(airssys, name: str) -> dict[str, int]:
    lines = airssys("audit", "query", "--json").stdout.splitlines()
    (record,) = [r for r in map(json.loads, lines) if r["event"] == "worker_ended" and r["component"] == name]
    return record["detail"]


def test_an_actor_gets_its_cpu_time_and_answers_while_its_twin_is_free(airssys, up, actor) -> None:
    """Both compute in call after call: one gets 50 ms/s after its first burst, the other is never held.

    Then the one spins: told to end while it is held, all ends within five seconds.
    """
    with up(actor("slow", "", '[quota]\ncpu_time = "50ms/s"\n'), actor("free", ""), "--grant", "asked") as fleet:
        fleet.until("slow: running")
        fleet.until("free: running")
        watching = airssys.start("quota", "slow", "--watch", "--json")
        with watching, ControlClient(Address(str(airssys.state / "control.sock"), "", trusted=True)) as client:
            for name in ("free", "slow"):
                pid = _pid(airssys, name)
                begin_ns = read_cpu_ns(pid)
                begin_s = time.monotonic()
                while read_cpu_ns(pid) - begin_ns < 150_000_000:
                    assert _call(client, name, b"b") == ""
                took_s = time.monotonic() - begin_s
            # A burst of 50 ms and 50 ms a second; what it used before a look that came late it owes still.
            assert took_s > 0.3
            full = {part.quota: part for part, _ in client.ask(GetQuotas("slow")) if isinstance(part, QuotaStatus)}
            assert list(full) == [kind.name for kind in QUOTAS]
            assert full["cpu_time"].limit == 50_000_000
            assert full["cpu_time"].usage > 25_000_000
            assert (full["memory"].peak or 0) >= full["memory"].usage > 0
            watched = [json.loads(watching.stdout.readline()) for _ in range(2)]
            assert [[each["name"] for each in document["quotas"]] for document in watched] == [list(full)] * 2
            assert watched[0]["time"] < watched[1]["time"]
            watching.kill()
            _call(client, "slow", b"s", wants_answer=False)
        _until_held(_pid(airssys, "slow"))
        begin_s = time.monotonic()
        assert airssys("down").code == 0
        assert fleet.end() == 0
        assert time.monotonic() - begin_s < 15
    assert _ended(airssys, "slow")["held_ms"] > 0
    assert "held_ms" not in _ended(airssys, "free")


def test_the_supervisors_end_is_the_end_of_a_held_actor(airssys, up, actor) -> None:
    """Killed while its worker is stopped, it leaves nothing."""
    with up(actor("held", "", '[quota]\ncpu_time = "10ms/s"\n'), "--grant", "asked") as fleet:
        fleet.until("held: running")
        with ControlClient(Address(str(airssys.state / "control.sock"), "", trusted=True)) as client:
            _call(client, "held", b"s", wants_answer=False)
        _until_held(_pid(airssys, "held"))
        tree = fleet.tree
        fleet.process.kill()
        fleet.process.wait()
        _, alive = psutil.wait_procs(tree, timeout=15)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
