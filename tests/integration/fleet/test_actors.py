"""Actors under `airssys up`: calls from outside, messages between them, storage, what dies and what goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from ipc import memory_file
from ipc.channel import Channel
from ipc.policy.quotas import QUOTAS
from supervisor.control.messages import ANSWERS, CallAnswer, CallComponent, NotDone

SILENT = ""
"""A manifest that asks for nothing."""


def _status(airssys, name: str) -> dict[str, object]:
    (found,) = airssys("status", name, "--json").json()["components"]
    return found


def _until(airssys, condition: Callable[[], object], what: str, within_s: float = 30) -> None:
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, what


def _records(airssys, event: str) -> list[dict[str, object]]:
    lines = airssys("audit", "query", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def _logged(airssys, name: str) -> str:
    return airssys("logs", name).stdout


@pytest.fixture
def both(up, actor) -> Iterator[object]:
    """Two actors, which may send to each other."""
    with up(actor("one"), actor("other"), "--grant", "asked") as fleet:
        fleet.until("one: running")
        fleet.until("other: running")
        yield fleet


# ---- calls


def test_a_call_brings_the_answer(airssys, both) -> None:
    """What is sent comes back as bytes, whichever way it is given; the call is on record, by who has made it."""
    data = b"e" + bytes(range(256)) * 100
    file = airssys.directory / "request.bin"
    file.write_bytes(data)
    for arguments, stdin in ((("--file", file), b""), (("-",), data)):
        with airssys.start("call", "one", *arguments) as process:
            answer, errors = process.communicate(stdin, 30)
        assert (process.returncode, answer) == (0, data), errors
    assert airssys("call", "one", "--json", '"e"').stdout == ""
    assert airssys("call", "one").stdout == ""
    assert airssys("call", "one", "--timeout", "20s", "-", stdin=b"e!").stdout == "e!"
    calls = _records(airssys, "operator_call")
    assert {record["actor"] for record in calls} == {f"uid {os.getuid()}"}
    assert {record["resource"] for record in calls} == {"one"}


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("payload", "code", "said"),
    [
        (b"x", 1, "one answered with an error"),
        (b"z", 75, "one did not answer in time"),
        # The broker hears first of its connection's end, or of its own.
        (b"t", 69, "whether it was handled is not known|it ended before it answered"),
    ],
)
def test_a_call_always_ends(airssys, both, payload: bytes, code: int, said: str) -> None:
    """An error of the component's, none in time, its death: each has its exit code, in one or two lines."""
    outcome = airssys("call", "one", "-", "--timeout", "2s", stdin=payload)
    assert (outcome.code, outcome.stdout) == (code, ""), outcome.stderr
    assert any(words in outcome.stderr for words in said.split("|"))
    assert len(outcome.stderr.splitlines()) <= 2
    assert airssys("call", "other", "-", stdin=b"e!").stdout == "e!"


@pytest.mark.any_user
def test_what_can_not_be_called_says_so(airssys, up, actor, hello: Path) -> None:
    """A command, a name that isn't there, JSON that is none, a message that is too large."""
    with up(actor("one"), hello, "--grant", "asked") as fleet:
        fleet.until("one: running")
        fleet.until("hello: done")
        command = airssys("call", "hello", "--json", "{}")
        assert command.code == 65
        assert "is a command" in command.stderr
        unknown = airssys("call", "nobody")
        assert (unknown.code, "there is: one, hello" in unknown.stderr) == (65, True)
        wrong = airssys("call", "one", "--json", "{")
        assert (wrong.code, wrong.stdout) == (64, "")
        assert airssys("call", "one", "-", stdin=b"e" * (4 << 20)).code == 65
        nameless = airssys("call", "")
        assert (nameless.code, nameless.stderr) == (65, "airssys: no component is named\n")
        odd = airssys("call", "x\x1b[31m")
        assert (odd.code, "there is no component 'x\\x1b[31m' here" in odd.stderr) == (65, True)
        assert airssys("call", "one", "--timeout", "99999h", "-", stdin=b"e!").stdout == "e!"


@pytest.mark.any_user
def test_without_waiting_the_message_is_only_left(airssys, both) -> None:
    """--no-wait returns when the message lies in the mailbox, whatever comes of it; what the actor logs is kept."""
    assert airssys("call", "one", "-", "--no-wait", stdin=b"lafter all").code == 0
    _until(airssys, lambda: "after all" in _logged(airssys, "one"), "the message was handled")


# ---- actors among themselves


def test_actors_send_to_each_other_what_both_were_granted(airssys, up, actor) -> None:
    """With both sides' grants a message arrives; without the receiver's it is refused, to the sender and on record."""
    with up(actor("one"), actor("other"), "--grant", "asked") as fleet:
        fleet.until("other: running")
        fleet.until("one: running")
        assert airssys("call", "one", "-", stdin=b"mlhello from one").code == 0
        _until(airssys, lambda: "hello from one" in _logged(airssys, "other"), "the message arrived")
        assert airssys("down").code == 0
        assert fleet.end() == 0
    deaf = airssys.directory / "other" / "Component.toml"
    deaf.write_text(deaf.read_text().replace('receive = ["one", "other"]', 'receive = ["nobody"]'))
    with up(airssys.directory / "one", airssys.directory / "other", "--grant", "asked") as fleet:
        fleet.until("other: running")
        fleet.until("one: running")
        refused = airssys("call", "one", "-", stdin=b"mlhello again")
        assert refused.code == 1
        assert "not-permitted" in refused.stderr or "not permitted" in refused.stderr
        assert "hello again" not in _logged(airssys, "other")
        assert any(r["action"] == "messaging.send" for r in _records(airssys, "denied"))


def test_what_is_kept_is_there_after_everything_has_ended(airssys, up, actor) -> None:
    """A value that was acknowledged is read by the next supervisor; its quota is told; another's key is another's."""
    with up(actor("one"), actor("other"), "--grant", "asked") as fleet:
        fleet.until("one: running")
        fleet.until("other: running")
        assert airssys("call", "one", "-", stdin=b"pprecious").code == 0
        quotas = {each["name"]: each for each in airssys("quota", "one", "--json").json()["quotas"]}
        assert quotas["storage"]["usage"] == len("k") + len("precious") + 64
        assert list(quotas) == [kind.name for kind in QUOTAS]
        assert airssys("call", "other", "-", stdin=b"gk").stdout == ""
        os.killpg(fleet.process.pid, signal.SIGKILL)
        fleet.process.wait()
    with up(airssys.directory / "one", "--grant", "asked") as fleet:
        fleet.until("one: running")
        assert airssys("call", "one", "-", stdin=b"gk").stdout == "precious"


# ---- deaths


@pytest.mark.any_user
def test_an_actor_that_traps_is_down_and_the_other_is_not(airssys, both) -> None:
    """The crash is told in words, with the function that it happened in; a call to it says how it is."""
    assert airssys("call", "one", "-", "--no-wait", stdin=b"t").code == 0
    both.until("one: failed (trapped: in handle-message")
    assert _status(airssys, "one")["phase"] == "failed"
    again = airssys("call", "one", "-", stdin=b"e")
    assert (again.code, "one is failed" in again.stderr) == (69, True)
    assert airssys("call", "other", "-", stdin=b"e!").stdout == "e!"


@pytest.mark.any_user
def test_an_actor_that_hangs_in_a_call_is_ended_by_its_timeout(airssys, up, actor) -> None:
    """[limits] timeout is that of one call: who takes longer is ended, who lives longer isn't."""
    with up(actor("one", more="", may='[limits]\ntimeout = "1s"\n'), "--grant", "asked") as fleet:
        fleet.until("one: running")
        assert airssys("call", "one", "-", stdin=b"e!").stdout == "e!"
        assert airssys("call", "one", "-", "--no-wait", stdin=b"s").code == 0
        fleet.until("one: failed (stopped at a limit")


@pytest.mark.any_user
def test_what_initialize_refuses_does_not_start(airssys, up, component, actor) -> None:
    """An actor whose initialize traps has failed; its neighbour runs."""
    bad = component("bad", "start-trap.wat")
    with up(bad, actor("one"), "--grant", "asked") as fleet:
        fleet.until("bad: failed")
        fleet.until("one: running")


def _process(fleet, module: str) -> psutil.Process:
    (found,) = [p for p in fleet.tree if any(module in word for word in _words(p))]
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it was killed a moment ago
        return []


def test_a_broker_that_dies_is_replaced_and_nothing_kept_is_lost(airssys, both) -> None:
    """Killed, another one takes its place; the actors come back by themselves, with what they have kept."""
    assert airssys("call", "one", "-", stdin=b"pprecious").code == 0
    pid = _status(airssys, "one")["pid"]
    _process(both, "worker.broker").kill()
    _until(
        airssys,
        lambda: airssys("call", "one", "-", "--timeout", "2s", stdin=b"gk").stdout == "precious",
        "the actor is back",
    )
    assert _status(airssys, "one")["pid"] == pid, "the same process"
    assert airssys("call", "other", "-", stdin=b"e!").stdout == "e!"
    assert len(_records(airssys, "broker_restarted")) == 1


@pytest.mark.any_user
def test_a_broker_that_is_stuck_is_replaced_and_holds_nobody_up(airssys, both) -> None:
    """Stopped, it takes no orders: the supervisor answers all the same, ends it in the end, and the actors go on."""
    broker = _process(both, "worker.broker")
    broker.suspend()
    try:
        for _ in range(700):
            _call_and_hang_up(airssys)
        assert _status(airssys, "one")["phase"] in ("running", "reconnecting")
        _until(
            airssys,
            lambda: airssys("call", "one", "-", "--timeout", "2s", stdin=b"e!").stdout == "e!",
            "another broker carries messages",
        )
        assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE
    finally:
        with contextlib.suppress(psutil.Error):
            broker.resume()


@pytest.mark.any_user
def test_a_call_that_a_broker_takes_with_it_ends_at_once(airssys, both) -> None:
    """Who waits for an answer is told that the broker has ended, and doesn't wait for the timeout."""
    with airssys.start("call", "one", "-", "--timeout", "60s") as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(b"z")
        waiting.stdin.close()
        _until(airssys, lambda: _records(airssys, "operator_call"), "the call is under way")
        _process(both, "worker.broker").kill()
        assert waiting.wait(30) == 69
        assert waiting.stderr is not None
        assert b"broker" in waiting.stderr.read()


def test_actors_find_the_broker_through_another_warden(airssys, both) -> None:
    """The warden dies, then the broker: the new warden leads the actors to the new broker."""
    _process(both, "ipc.warden.shell").kill()
    _until(airssys, lambda: len(_records(airssys, "warden_restarted")) == 2, "another warden answers both")
    assert airssys("call", "one", "-", stdin=b"e1").stdout == "e1"
    _process(both, "worker.broker").kill()
    for name in ("one", "other"):
        _until(
            airssys,
            lambda name=name: airssys("call", name, "-", "--timeout", "2s", stdin=b"e2").stdout == "e2",
            f"{name} is back",
        )


def test_who_it_is_stays_the_same_whoever_is_started_anew(airssys, up, actor) -> None:
    """Another warden, broker, worker and supervisor put on record the very same identity, trust, approval and rules."""
    may = '[capabilities.storage]\nread = ["k"]\nwrite = ["k"]\n'
    directory = actor("one", may)
    config = airssys.directory / "airssys.toml"
    config.write_text(
        "schema = 1\n[roles.keeper]\npermissions = ['storage.*:*', 'filesystem.*:/**']\n"
        '[components.one]\nroles = ["keeper"]\n'
        f"[[trust.sources]]\nlocal = '{directory}'\n"
    )
    refusals = 0
    for _ in range(2):
        with up(directory, "--config", config) as fleet:
            fleet.until("one: running")
            for key in (b"gfirst", b"gafter"):
                assert "no grant covers it" in airssys("call", "one", "-", stdin=key).stderr
                refusals += 1
                if key == b"gfirst":
                    _process(fleet, "ipc.warden.shell").kill()
                    _process(fleet, "worker.broker").kill()
                    _until(
                        airssys,
                        lambda: airssys("call", "one", "-", "--timeout", "2s", stdin=b"e!").stdout == "e!",
                        "it is back",
                    )
            assert airssys("down").code == 0
            assert fleet.end() == 0
    lines = map(json.loads, airssys("audit", "query", "--json").stdout.splitlines())
    of_it = [each for each in lines if each["component"] == "one" and each["instance"]]
    starts = [each["detail"] for each in of_it if each["event"] == "worker_starting"]
    assert len({each["instance"] for each in of_it}) == len(starts) == 2
    assert sum(each["decision"] == "denied" for each in of_it) == refusals
    assert {each["producer"] for each in of_it} >= {"supervisor", "broker"}
    assert "warden_restarted" in {each["event"] for each in of_it}
    whose = {(each["component_digest"], each["trust"], each["policy"], each["approval"]) for each in of_it}
    assert whose == {(of_it[0]["component_digest"], "trusted", of_it[0]["policy"], f"trusted: local {directory}")}
    told = [(each["version"], each["package"], each["trusted_by"], each["roles"]) for each in starts]
    assert told[0] == told[1] == ("1.2.3", told[0][1], f"trust.sources[0] local {directory} ({config}:7)", ["keeper"])


@pytest.mark.any_user
def test_actors_end_in_order(airssys, up, actor, promptly: Callable[[float, Callable[[], float]], float]) -> None:
    """Asked to end they do so by themselves, well within the time; one that is stuck in a call is killed in the end."""
    directories = (actor("one"), actor("other"))

    def end() -> float:
        with up(*directories, "--grant", "asked") as fleet:
            fleet.until("one: running")
            fleet.until("other: running")
            assert airssys("call", "one", "-", "--no-wait", stdin=b"s").code == 0
            started_s = time.monotonic()
            assert airssys("down").code == 0
            assert fleet.end() == 0
            took_s = time.monotonic() - started_s
        assert took_s > 2.5
        assert "other: stopped (exited 0)" in fleet.said
        assert "one: stopped (was ended)" in fleet.said
        return took_s

    promptly(5.0, end)


# ---- payloads that are no payloads


def _files(kind: str) -> Sequence[int]:
    if kind == "none":
        return ()
    if kind == "two":
        return (memory_file.from_bytes("a", b"e"), memory_file.from_bytes("b", b"e"))
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(writer)
        return (reader,)
    if kind == "file":
        return (os.open("/proc/self/maps", os.O_RDONLY),)
    if kind == "unsealed":
        return (os.memfd_create("unsealed", os.MFD_ALLOW_SEALING),)
    large = os.memfd_create("large", os.MFD_ALLOW_SEALING)
    os.ftruncate(large, 1 << 40)
    import fcntl

    fcntl.fcntl(large, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return (large,)


def test_a_payload_is_a_sealed_file_or_is_refused(airssys, both) -> None:
    """Nothing is read that could make the supervisor wait, or change under its hands; a sealed file is, the control."""
    for kind in ("none", "two", "pipe", "file", "unsealed", "large"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(airssys.state / "control.sock"))
        channel = Channel(connection)
        try:
            for files, answer in ((_files(kind), NotDone), ((memory_file.from_bytes("good", b"e!"),), CallAnswer)):
                channel.send(CallComponent("one", True, 5_000), files)
                for descriptor in files:
                    os.close(descriptor)
                message, received = channel.receive(ANSWERS, 10)
                assert type(message) is answer, kind
                for descriptor in received:
                    os.close(descriptor)
                if answer is CallAnswer:
                    channel.receive(ANSWERS, 10)
        finally:
            channel.close()


@pytest.mark.any_user
def test_who_hangs_up_is_forgotten(airssys, both) -> None:
    """Callers that go away in the midst of a call leave nothing that counts against others."""
    for _ in range(60):
        _call_and_hang_up(airssys)
    assert airssys("call", "one", "-", stdin=b"e!").stdout == "e!"


def _call_and_hang_up(airssys) -> None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(airssys.state / "control.sock"))
    channel = Channel(connection)
    payload = memory_file.from_bytes("message", b"e")
    with contextlib.suppress(OSError):
        channel.send(CallComponent("one", True, 60_000), (payload,))
    os.close(payload)
    channel.close()


@pytest.mark.any_user
def test_an_actor_says_how_it_is(airssys, both) -> None:
    """The health that an actor tells, also in the midst of messages, is in its status; its change is on record once."""
    assert _status(airssys, "one")["health"] == "healthy"
    assert airssys("call", "one", "-", stdin=b"h").code == 0

    def kept_busy() -> bool:
        assert airssys("call", "one", "-", stdin=b"e").code == 0
        return _status(airssys, "one")["health"] == "unhealthy"

    _until(airssys, kept_busy, "it was asked how it is")
    rows = {row.split()[0]: row.split()[1:3] for row in airssys("status").stdout.splitlines()[2:]}
    assert rows == {"one": ["running", "unhealthy"], "other": ["running", "healthy"]}
    (changed,) = _records(airssys, "health_changed")
    assert (changed["component"], changed["detail"]) == ("one", {"health": "unhealthy", "before": "healthy"})
