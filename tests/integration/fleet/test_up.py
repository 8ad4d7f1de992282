"""`airssys up` and the commands that ask it, through the real command line: start, look, end, and what goes wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import wasmtime
from as_another import as_another_user

from ipc.channel import Channel
from supervisor.cli import down as _down  # noqa: F401 # loaded before a fork that can't read it any more
from supervisor.cli import status as _status  # noqa: F401 # likewise
from supervisor.control.messages import ANSWERS, Done, GetStatus, NotDone

GUESTS = Path(__file__).resolve().parents[1] / "guests"
IN_ORDER_S = 5.0
ANSWERED_S = 2.0
Promptly = Callable[[float, Callable[[], float]], float]
UNPRIVILEGED = 65534


def _printing(text: bytes, lines: int = 1) -> bytes:
    """A program that prints this text so often."""
    literal = "".join(f"\\{byte:02x}" for byte in text)
    made = wasmtime.wat2wasm(
        f"""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 64) "{literal}")
      (func (export "_start") (local $left i32)
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const {len(text)}))
        (local.set $left (i32.const {lines}))
        (loop $more
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $more (local.get $left)))))"""
    )
    return bytes(made)


def _phases(airssys) -> dict[str, str]:
    document = airssys("status", "--json").json()
    return {each["name"]: each["phase"] for each in document["components"]}


# ---- the straight way


def test_components_come_up_are_looked_at_and_end_in_order(airssys, up, hello: Path, waiting: Path) -> None:
    """A command that ends is done, one that runs runs; status, quota and logs tell of both; down ends all."""
    with up(hello, waiting) as fleet:
        fleet.until("hello: done (exited 0)")
        fleet.until("waiting: running as waiting-")
        document = airssys("status", "--json").json()
        about = document["supervisor"]
        assert (about["pid"], about["socket"]) == (fleet.process.pid, str(airssys.state / "control.sock"))
        found = {each["name"]: each for each in document["components"]}
        assert (found["hello"]["phase"], found["hello"]["outcome"], found["hello"]["exit_code"]) == (
            "done",
            "exited",
            0,
        )
        assert (found["waiting"]["phase"], found["waiting"]["version"]) == ("running", "1.2.3")
        assert psutil.pid_exists(found["waiting"]["pid"])
        shown = airssys("status", "waiting")
        assert "pid" in shown.stdout
        assert "hello" not in shown.stdout
        quotas = airssys("quota", "waiting", "--json").json()["quotas"]
        (memory,) = [each for each in quotas if each["name"] == "memory"]
        assert 0 <= memory["usage"] <= memory["peak"] < memory["limit"] == 256_000_000
        assert memory["status"] == "ok"
        assert "out hello" in airssys("logs", "hello").stdout
        ended = airssys("down")
        assert (ended.code, ended.stderr) == (0, "")
        assert fleet.end() == 0
    assert "waiting: stopped" in fleet.said
    assert not (airssys.state / "control.sock").exists()
    again = airssys("status")
    assert (again.code, again.stdout) == (69, "")
    assert len(again.stderr.splitlines()) == 2
    assert "airssys up DIR" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_in_order_within_five_seconds(
    airssys, component, up, waiting: Path, promptly: Promptly, number: int
) -> None:
    """One that computes and one that waits are ended, nothing of them is left, and that is on record."""
    spinning = component("spinning", "spin.wat")
    ends = 0

    def end() -> float:
        nonlocal ends
        ends += 1
        with up(spinning, waiting) as fleet:
            fleet.until("spinning: running")
            fleet.until("waiting: running")
            tree = fleet.tree
            assert len(tree) >= 4, "zygote, warden, and a worker each"
            started_s = time.monotonic()
            fleet.process.send_signal(number)
            assert fleet.end() == 0
            took_s = time.monotonic() - started_s
        assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        return took_s

    promptly(IN_ORDER_S, end)
    verified = airssys("audit", "verify")
    assert verified.code == 0, verified.stderr
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    ended = [r["component"] for r in records if r["event"] == "worker_ended"]
    assert sorted(ended) == ends * ["spinning"] + ends * ["waiting"]
    supervisor = [r["event"] for r in records if r["event"].startswith("supervisor_")]
    assert supervisor == ends * ["supervisor_started", "supervisor_ended"]


@pytest.mark.any_user
def test_a_failure_is_told_and_concerns_nobody_else(airssys, component, up, waiting: Path) -> None:
    """A component that traps is reported in words and stays down; the one beside it runs on."""
    trapping = component("trapping", "start-trap.wat")
    with up(trapping, waiting) as fleet:
        fleet.until("trapping: failed (trapped:")
        fleet.until("waiting: running")
        assert _phases(airssys) == {"trapping": "failed", "waiting": "running"}
        assert airssys("logs", "trapping").stdout.splitlines()[-1].count("trapped") == 1


@pytest.mark.any_user
@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_until_done_ends_with_the_last_component(airssys, up, component, hello: Path, good: bool, code: int) -> None:
    """--until-done ends when nothing runs any more: with 0, or with 1 where a component failed."""
    more = () if good else (component("bad", "start-trap.wat"),)
    with up(hello, *more, "--until-done", "--json") as fleet:
        assert fleet.end() == code
    events = [json.loads(line) for line in fleet.said.splitlines()]
    last = {event["component"]: event for event in events}
    assert (last["hello"]["phase"], last["hello"]["exit_code"]) == ("done", 0)
    if not good:
        assert (last["bad"]["phase"], last["bad"]["exit_code"]) == ("failed", 134)


@pytest.mark.any_user
def test_on_a_terminal_it_asks_shows_and_ends(airssys, component) -> None:
    """A person is asked for each component once, sees a table of all, and ends them with Ctrl-C."""
    asks = 'args = ["cat", "/etc/hostname"]\n[capabilities.filesystem]\nread = ["/etc/hostname"]\n'
    reader, waiting = component("reader", "tool.wasm", asks), component("waiting", "block-poll.wat")
    for asked in (True, False):
        shown = _on_a_terminal(airssys, [reader, waiting], b"y\n" if asked else b"")
        assert ("Grant this? [y/N]" in shown) is asked
        for said in ("reader: done (exited 0)", "NAME", "waiting  running", "waiting: stopped", "airssys: ended"):
            assert said in shown, shown


def _on_a_terminal(airssys, directories: Sequence[Path], answer: bytes) -> str:
    """Run `airssys up` on a terminal of its own: answer the question, wait for the table, press Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(airssys.directory)
        command = str(Path(sys.executable).parent / "airssys")
        os.execve(command, ["airssys", "up", *map(str, directories)], airssys.environment | {"TERM": "xterm"})
    shown, pressed = "", False
    with os.fdopen(terminal, "rb+", buffering=0) as stream:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            if select.select([terminal], [], [], 1.0)[0]:
                try:
                    data = os.read(terminal, 65536)
                except OSError:  # the last process has closed it
                    break
                shown += data.decode("utf-8", "replace")
            if answer and "Grant this? [y/N]" in shown:
                stream.write(answer)
                answer = b""
            if not pressed and "waiting  running" in shown and "reader: done" in shown:
                stream.write(b"\x03")
                pressed = True
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown


# ---- what it may


@pytest.mark.any_user
def test_nothing_starts_where_one_is_not_granted_what_it_asks(airssys, component, up, hello: Path) -> None:
    """Without a terminal and a grant nothing of it starts (77); with --grant asked, the control, all do."""
    reader = component(
        "reader",
        "tool.wasm",
        'args = ["cat", "/etc/hostname"]\n[capabilities.filesystem]\nread = ["/etc/hostname"]\n',
    )
    refused = airssys("up", hello, reader)
    assert refused.code == 77
    assert "hello: starting" not in refused.stdout
    assert "--grant asked" in refused.stderr
    with up(hello, reader, "--grant", "asked", "--until-done") as fleet:
        assert fleet.end() == 0
    assert "reader: done (exited 0)" in fleet.said


def test_a_state_directory_that_can_not_be_is_told(airssys, hello: Path) -> None:
    """A file in its place, or a place where nothing can be made: 73 and what to do, as under `airssys run`."""
    for place in (hello / "program.wasm", Path("/proc/airssys")):
        outcome = airssys("up", hello, "--state-dir", place)
        assert (outcome.code, len(outcome.stderr.splitlines())) == (73, 2), outcome.stderr
        assert "--state-dir DIR" in outcome.stderr


@pytest.mark.any_user
def test_what_nobody_enforces_is_refused(airssys, hello: Path) -> None:
    """A manifest that asks for what this version doesn't enforce is refused before anything starts."""
    with (hello / "Component.toml").open("a") as manifest:
        manifest.write('[supervision]\nrestart = "permanent"\n')
    refused = airssys("up", hello)
    assert refused.code == 65
    assert "supervision.restart" in refused.stderr


@pytest.mark.any_user
def test_a_name_is_an_address_and_belongs_to_one(airssys, hello: Path) -> None:
    """Two components of one name are refused, by the names of both directories."""
    other = airssys.directory / "other"
    shutil.copytree(hello, other)
    refused = airssys("up", hello, other)
    assert refused.code == 65
    assert "both called hello" in refused.stderr


def test_a_state_directory_has_one_supervisor(airssys, up, waiting: Path, hello: Path) -> None:
    """A second one with the same state is refused and does no harm to the first."""
    with up(waiting) as fleet:
        fleet.until("waiting: running")
        refused = airssys("up", hello)
        assert refused.code == 65
        assert "airssys down" in refused.stderr
        assert _phases(airssys) == {"waiting": "running"}


# ---- which supervisor


def test_the_nearest_state_directory_upwards_is_asked(airssys, running, waiting: Path) -> None:
    """Without a word of where, state is in .airssys, and from any directory beneath the commands find it."""
    environment = {name: value for name, value in airssys.environment.items() if name != "AIRSSYS_STATE"}
    here = type(airssys)(airssys.directory, environment)
    with here.start("up", waiting, cwd=airssys.directory) as process:
        try:
            fleet = running(process)
            fleet.until("waiting: running")
            deep = waiting / "a" / "b"
            deep.mkdir(parents=True)
            about = here("status", "--json", cwd=deep).json()["supervisor"]
            assert about["socket"] == str(airssys.directory / ".airssys" / "control.sock")
            assert about["found_by"] == "the nearest .airssys upwards"
            named = here("status", "--json", "--socket", about["socket"], cwd=Path("/")).json()["supervisor"]
            assert (named["pid"], named["found_by"]) == (about["pid"], "--socket")
            variable = here("status", "--json", cwd=Path("/"), AIRSSYS_SOCKET=about["socket"]).json()["supervisor"]
            assert (variable["pid"], variable["found_by"]) == (about["pid"], "$AIRSSYS_SOCKET")
            assert here("down", cwd=deep).code == 0
            assert fleet.end() == 0
        finally:
            process.kill()


def test_a_dead_supervisor_leaves_nothing_in_the_way(airssys, up, waiting: Path) -> None:
    """Killed, its workers end with it; the socket that it left is nobody's, and the next one takes its place."""
    with up(waiting) as fleet:
        fleet.until("waiting: running")
        tree = fleet.tree
        fleet.process.kill()
        fleet.process.wait()
        psutil.wait_procs(tree, timeout=20)
        assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    gone = airssys("status")
    assert gone.code == 69
    assert "runs as waiting-" in airssys("logs", "waiting").stdout
    with up(waiting) as fleet:
        fleet.until("waiting: running")
        assert _phases(airssys) == {"waiting": "running"}


# ---- who may


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("settings", "status", "down"),
    [
        ("", 77, 77),
        ('[control]\nviewers = ["nobody"]\n', 0, 77),
        ('[control]\nviewers = ["@nogroup"]\n', 0, 77),
        ('[control]\noperators = ["nobody"]\n', 0, 77),
        ('[control]\nadmins = ["nobody"]\n', 0, 0),
    ],
)
def test_another_user_may_what_the_settings_say(
    airssys, up, waiting: Path, settings: str, status: int, down: int
) -> None:
    """By default nobody but us; viewers look, admins end it. The kernel says who asks; what is refused is on record."""
    (airssys.directory / "airssys.toml").write_text("schema = 1\n" + settings)
    os.chmod(airssys.directory, 0o755)
    with up(waiting, "--config", airssys.directory / "airssys.toml") as fleet:
        fleet.until("waiting: running")

        def as_another(*arguments: str) -> tuple[int, str]:
            return as_another_user(UNPRIVILEGED, airssys.state / "control.sock", arguments)

        looked, said = as_another("status", "--json")
        assert looked == status, said
        ended, said = as_another("down")
        assert ended == down, said
        if down:
            assert len(said.splitlines()) == 2
            assert "[control]" in said
            assert _phases(airssys) == {"waiting": "running"}, "we are an admin, whoever else is"
            assert airssys("down").code == 0
        assert fleet.end() == 0
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    refused = [r for r in records if r["event"] == "control_refused"]
    assert bool(refused) is (down == 77 and bool(settings))
    assert all((r["actor"], r["code"], r["decision"]) == ("uid 65534", "A3009", "denied") for r in refused)
    used = [r["actor"] for r in records if r["event"] == "control_used" and r["action"] == "control.shut_down"]
    assert used == ["uid 0" if down else "uid 65534"]


# ---- who misbehaves on the socket


def _connect(airssys) -> Channel:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(airssys.state / "control.sock"))
    return Channel(connection)


def test_clients_that_misbehave_delay_nobody(airssys, up, waiting: Path, promptly: Promptly) -> None:
    """Who asks nothing, who sends garbage, who asks and doesn't read: others are answered at once, and so are we."""
    with up(waiting) as fleet:
        fleet.until("waiting: running")

        def ask_beside_them() -> float:
            with contextlib.ExitStack() as stack:
                silent = [_connect(airssys) for _ in range(10)]
                unread = [_connect(airssys) for _ in range(5)]
                for client in (*silent, *unread):
                    stack.callback(client.close)
                for client in unread:
                    client.send(GetStatus())
                for garbage in (b"", b"\x00" * 60_000, b"\x91\xa4Done", b"\xc1", os.urandom(1000)):
                    rude = _connect(airssys)
                    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(rude.fileno())) as raw:
                        raw.send(garbage)
                    rude.close()
                started_s = time.monotonic()
                assert _phases(airssys) == {"waiting": "running"}
                took_s = time.monotonic() - started_s
                # What was asked and not read yet is still there for who reads it now: the positive control.
                kinds = []
                while not kinds or kinds[-1] not in (Done, NotDone):
                    kinds.append(type(unread[0].receive(ANSWERS, 10)[0]))
                assert kinds[-1] is Done
            return took_s

        promptly(ANSWERED_S, ask_beside_them)


@pytest.mark.any_user
def test_too_many_clients_are_told_so(airssys, up, waiting: Path) -> None:
    """One user can't take every place; who comes above that is told, and when one leaves there is room again."""
    with up(waiting) as fleet, contextlib.ExitStack() as stack:
        fleet.until("waiting: running")
        clients = [_connect(airssys) for _ in range(40)]
        for client in clients:
            stack.callback(client.close)
        told = []
        for client in clients:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(GetStatus())
            told.append(client.receive(ANSWERS, 10)[0])
        turned_away = [message for message in told if isinstance(message, NotDone)]
        assert 0 < len(turned_away) < len(clients)
        assert {message.kind for message in turned_away} == {"busy"}
        for client in clients[:20]:
            client.close()
        assert _phases(airssys) == {"waiting": "running"}


# ---- logs


@pytest.mark.any_user
def test_what_is_printed_cant_act_on_the_terminal(airssys, component, up) -> None:
    """Control characters are kept as they were and shown escaped; nothing printed can pass for a line of ours."""
    forged = b"\x1b]0;owned\x07\x1b[2Jtext\n2026-01-01T00:00:00.000000000Z system F all is well\n\ttab\n"
    evil = component("evil", _printing(forged))
    with up(evil, "--until-done") as fleet:
        assert fleet.end() == 0
    kept = (airssys.state / "logs" / "evil.log").read_bytes()
    assert b"\x1b]0;owned\x07" in kept
    shown = airssys("logs", "evil").stdout
    assert not any(byte in shown for byte in "\x1b\x07")
    assert "\\x1b]0;owned\\x07" in shown
    lines = [json.loads(line) for line in airssys("logs", "evil", "--json").stdout.splitlines()]
    assert [line["stream"] for line in lines] == ["system", "stdout", "stdout", "stdout", "system"]
    assert lines[2]["text"] == "2026-01-01T00:00:00.000000000Z system F all is well"
    assert airssys("logs", "evil", "--plain").stdout.splitlines()[-1] == "\ttab"


@pytest.mark.any_user
def test_logs_follow_a_component_to_its_supervisors_end(airssys, up, waiting: Path, hello: Path) -> None:
    """-f shows what is there and what comes, and ends with the supervisor; --since leaves out what is older."""
    with up(waiting, hello) as fleet:
        fleet.until("waiting: running")
        fleet.until("hello: done")
        with airssys.start("logs", "waiting", "-f") as follower:
            assert follower.stdout is not None
            assert b"runs as waiting-" in follower.stdout.readline()
            assert airssys("down").code == 0
            assert b"was ended" in follower.stdout.readline()
            assert follower.wait(30) == 0
        assert fleet.end() == 0
    assert airssys("logs", "hello", "--since", "1h").stdout
    assert airssys("logs", "hello", "--since", "2099-01-01").stdout == ""
    wrong = airssys("logs", "hello", "--since", "yesterday")
    assert wrong.code == 64
    unknown = airssys("logs", "nobody-here")
    assert unknown.code == 69
    for name in ("../audit", "hello.log", ""):
        assert airssys("logs", name).code == 65


@pytest.mark.any_user
def test_a_flood_of_output_is_paced_and_kept_within_bounds(airssys, component, up, waiting: Path) -> None:
    """A component that prints without end gets no more than its pace, and the others are answered meanwhile."""
    flood = component("flood", _printing(b"x" * 4095 + b"\n", lines=2**31 - 1))

    def kept_bytes() -> int:
        return sum(path.stat().st_size for path in (airssys.state / "logs").glob("flood.log*"))

    started_s = time.monotonic()
    with up(flood, waiting) as fleet:
        fleet.until("flood: running")
        fleet.until("waiting: running")
        for _ in range(5):
            assert _phases(airssys)["waiting"] == "running"
        while (kept := kept_bytes()) <= 1 << 20 and time.monotonic() < started_s + 30:
            assert _phases(airssys)["waiting"] == "running"
        # A burst of one second, and what it was paced to since it began.
        assert 1 << 20 < kept < (2 << 20) * (time.monotonic() - started_s + 2)


# ---- the warden that all share


def test_a_warden_that_dies_is_replaced_once_for_all(airssys, component, up, waiting: Path) -> None:
    """Killed under two components, one warden takes its place, and both go on."""
    other = component("other", "block-poll.wat")
    with up(waiting, other) as fleet:
        fleet.until("waiting: running")
        fleet.until("other: running")
        (warden,) = [p for p in fleet.tree if any("ipc.warden.shell" in word for word in p.cmdline())]
        warden.kill()

        def records(event: str) -> list[dict[str, object]]:
            lines = airssys("audit", "query", "--json").stdout.splitlines()
            return [record for record in map(json.loads, lines) if record["event"] == event]

        until_s = time.monotonic() + 20
        while len(records("warden_restarted")) < 2 and time.monotonic() < until_s:
            pass
        assert sorted(str(r["component"]) for r in records("warden_restarted")) == ["other", "waiting"]
        wardens = [p for p in fleet.tree if any("ipc.warden.shell" in word for word in p.cmdline())]
        assert len(wardens) == 1
        assert _phases(airssys) == {"waiting": "running", "other": "running"}
