"""Custom capabilities under `airssys up`: the example's SQL, and providers that are killed, hang and send garbage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ipc import memory_file
from supervisor.control.client import Address, ControlClient, NobodyAnswersError
from supervisor.control.messages import CallAnswer, CallComponent, GetStatus, ProviderStatus

ROOT = Path(__file__).resolve().parents[3]
SQL = """[providers.sql]
capabilities = ["customer-db"]
python = "sql_provider:Sql"
path = "{place}"
timeout = "20s"
max_payload = "1kB"
[providers.sql.settings]
database = "{place}/data/customers.db"
writes = ["rename"]
actions.read = "select id, name from customers where id = :id and region = :grant_region"
actions.rename = "update customers set name = :name where id = :id and region = :grant_region"
actions.wipe = "delete from customers"
actions.slow = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) as n from c"
"""
BAD = '''"""A provider that does what no provider does."""
import contextlib
import os
import signal
import struct

from ipc.provider import Request


def serve(request: Request) -> bytes:
    """Do it by the name of the action."""
    held = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            held[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    (channel,) = [number for number, what in held.items() if what.startswith("socket:")]
    match request.action:
        case "hang":
            signal.pause()
        case "garbage":
            os.write(channel, b"Hello, world")
        case "oversize":
            os.write(channel, struct.pack(">I", 1 << 31))
        case "twice":
            os.write(channel, struct.pack(">I", 6) + b"\\x81\\xa4call\\x01")
        case "leave":
            os._exit(3)
        case "print":
            print("this goes to the log")
        case "inherited":
            kept = [what for number, what in held.items() if number > 2 and not what.startswith("/")]
            return f"{len(kept)} {dict(os.environ)}".encode()
    return request.payload
'''
PERL = r"""#!/usr/bin/perl
binmode STDIN; binmode STDOUT; $| = 1;
sub get { my ($n, $body); exit unless read(STDIN, $n, 4) == 4; read(STDIN, $body, unpack("N", $n)); return $body }
sub put { print pack("N", length $_[0]), $_[0] }
get(); put("\x80");
while (1) {
    get() =~ /^.\xa4call(\xcd..|\xcc.|[\x00-\x7f])/s;
    put("\x82\xa4call$1\xa7payload\xc4\x09from Perl");
}
"""
Caller = Callable[[str, str], subprocess.CompletedProcess[str]]


def asker(component, name: str, actions: str) -> Path:
    """An actor of the example that was granted these actions."""
    may = f'[capabilities.custom.customer-db]\nactions = [{actions}]\nmetadata = {{ region = "eu" }}\n'
    return component(name, (ROOT / "examples" / "customers" / "customers.wasm").read_bytes(), may)


@pytest.fixture
def configured(airssys) -> Callable[[str], Path]:
    """Write airssys.toml, beside a directory that providers can be in."""
    place = airssys.directory / "programs"
    place.mkdir()

    def write(text: str) -> Path:
        airssys.environment["AIRSSYS_CONFIG"] = str(airssys.directory / "airssys.toml")
        (airssys.directory / "airssys.toml").write_text("schema = 1\n" + text.format(place=place))
        return place

    return write


def asking(airssys) -> ControlClient:
    """A connection to the supervisor: as `airssys call` and `status` have it, in a tenth of the time."""
    return ControlClient(Address(str(airssys.state / "control.sock"), "--socket", trusted=True))


def told(airssys, name: str, message: str) -> str:
    """What a call brings: the answer, or the error in words."""
    file = memory_file.from_bytes("request", message.encode())
    try:
        with asking(airssys) as client:
            ((part, files),) = client.ask(CallComponent(name, wants_answer=True, timeout_ms=30_000), (file,))
    except NobodyAnswersError as error:
        return str(error)
    finally:
        os.close(file)
    assert isinstance(part, CallAnswer)
    return "".join(memory_file.take(each, 1 << 20).decode() for each in files) or f"{part.kind}: {part.reason}"


def provider(airssys) -> ProviderStatus:
    """How the one provider is."""
    with asking(airssys) as client:
        (found,) = [part for part, _ in client.ask(GetStatus()) if isinstance(part, ProviderStatus)]
    return found


def until(airssys, condition: Callable[[ProviderStatus], object], what: str) -> ProviderStatus:
    """Look at the provider until it is so."""
    until_s = time.monotonic() + 30
    while not condition(found := provider(airssys)):
        assert time.monotonic() < until_s, f"{what}: {found}"
        time.sleep(0.005)
    return found


def records(airssys, event: str) -> list[dict[str, object]]:
    """What is on record of one kind."""
    lines = airssys("audit", "query", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


@contextlib.contextmanager
def calling(airssys, name: str, message: str) -> Iterator[subprocess.Popen[bytes]]:
    """A call that is under way."""
    with airssys.start("call", name, "--json", message) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_example_asks_an_operators_database(airssys, up, component, configured) -> None:
    """Rows come by the named statements, within the grant; refusals are on record; a killed one is followed."""
    place = configured(SQL)
    shutil.copy(ROOT / "examples" / "sql-provider" / "sql_provider.py", place)
    (place / "data").mkdir()
    with contextlib.closing(sqlite3.connect(place / "data" / "customers.db")) as database:
        database.executescript((ROOT / "examples" / "sql-provider" / "customers.sql").read_text())
    if os.getuid() == 0:  # the provider is nobody then
        os.chown(place / "data", 65534, 65534)
        os.chown(place / "data" / "customers.db", 65534, 65534)
    actor = asker(component, "shop", '"read", "rename", "wipe", "slow"')
    twin = asker(component, "twin", '"read"')
    with up(actor, twin, "--grant", "asked") as fleet:
        fleet.until("shop: running")
        fleet.until("twin: running")
        assert json.loads(told(airssys, "shop", '{"read": {"id": 1}}')) == [{"id": 1, "name": "Ada"}]
        assert json.loads(told(airssys, "shop", '{"rename": {"id": 1, "name": "A"}}')) == {"changed": 1}
        assert json.loads(told(airssys, "twin", '{"read": {"id": 1}}')) == [{"id": 1, "name": "A"}]
        # Of another region, which the grant says and the component can't; injected; written by one that only reads.
        assert json.loads(told(airssys, "shop", '{"read": {"id": 3}}')) == []
        assert "not-permitted" in told(airssys, "shop", '{"read": {"id": 3, "grant_region": "us"}}')
        assert json.loads(told(airssys, "shop", '{"read": {"id": "1 or 1=1"}}')) == []
        assert "failed" in told(airssys, "shop", '{"wipe": {}}')
        assert "too-large: 1000" in told(airssys, "shop", json.dumps({"read": {"id": "x" * 2000}}))
        assert "A1201" in told(airssys, "twin", '{"rename": {"id": 1, "name": "B"}}')
        (refused,) = [r for r in records(airssys, "denied") if r["component"] == "twin"]
        assert (refused["action"], refused["resource"]) == ("custom.customer-db.rename", "customer-db")
        used = {record["action"] for record in records(airssys, "capability_used")}
        assert used == {f"custom.customer-db.{action}" for action in ("read", "rename", "wipe")}
        with calling(airssys, "shop", '{"slow": {}}') as call:
            (pid,) = until(airssys, lambda found: found.busy, "it is at it").pids
            psutil.Process(pid).kill()
            _, errors = call.communicate(timeout=30)
        assert b"unavailable: the provider ended; whether it was done is not known" in errors
        assert json.loads(told(airssys, "shop", '{"read": {"id": 1}}')) == [{"id": 1, "name": "A"}]
        (lost,) = records(airssys, "provider_lost")
        assert (lost["resource"], lost["reason"]) == ("sql", "it was ended by signal 9")
        assert "provider sql (customer-db): ready, 10 calls" in airssys("status").stdout


def test_a_provider_that_misbehaves_ends_alone(airssys, up, component, configured) -> None:
    """A hang times out while others are answered; garbage, too much, and an end by itself are errors; each is named."""
    place = configured(
        '[providers.bad]\ncapabilities = ["customer-db"]\npython = "bad:serve"\npath = "{place}"\n'
        'timeout = "1s"\nparallel = 2\nenv = {{ GREETING = "hello" }}\n'
    )
    (place / "bad.py").write_text(BAD)
    actions = ("hang", "garbage", "oversize", "twice", "leave", "print", "inherited", "echo")
    every = ", ".join(f'"{each}"' for each in actions)
    with up(asker(component, "one", every), asker(component, "two", every), "--grant", "asked") as fleet:
        fleet.until("one: running")
        fleet.until("two: running")
        until(airssys, lambda found: len(found.pids) == 2 and found.state == "ready", "both are ready")
        with calling(airssys, "one", '{"hang": {}}') as call:
            until(airssys, lambda found: found.busy, "it hangs")
            assert told(airssys, "two", '{"echo": {"n": 1}}').strip() == '{"n": 1}'
            _, errors = call.communicate(timeout=30)
        assert b"timed-out" in errors
        for action in ("garbage", "oversize", "twice", "leave"):
            assert "unavailable" in told(airssys, "one", json.dumps({action: {}})), action
            assert told(airssys, "two", '{"echo": {"n": 1}}').strip() == '{"n": 1}'
        assert "this goes to the log" not in told(airssys, "one", '{"print": {}}')
        assert "this goes to the log" in airssys("logs", "provider.bad").stdout
        found = told(airssys, "two", '{"inherited": {}}')
        assert "{'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'GREETING': 'hello'}" in found
        assert found.startswith("1 "), "its channel, and nothing else"
        lost = records(airssys, "provider_lost")
        assert [each["code"] for each in lost] == ["A1811", "A1813", "A1813", "A1813", None]
        assert "it ended with 3" in str(lost[-1]["reason"])
        assert airssys("down").code == 0
        assert fleet.end() == 0


def test_an_executable_in_any_language_serves(airssys, up, component, configured) -> None:
    """Frames on its standard input and output; after a broker's death it is started anew, and serves the next one."""
    place = configured('[providers.perl]\ncapabilities = ["customer-db"]\ncommand = ["{place}/serve"]\n')
    (place / "serve").write_text(PERL)
    (place / "serve").chmod(0o755)
    with up(asker(component, "one", '"read"'), "--grant", "asked") as fleet:
        fleet.until("one: running")
        assert told(airssys, "one", '{"read": {}}') == "from Perl"
        (before,) = provider(airssys).pids
        (broker,) = [p for p in fleet.tree if any("worker.broker" in word for word in p.cmdline())]
        broker.suspend()
        assert (provider(airssys).state, provider(airssys).calls) == ("ready", -1), "a stuck broker holds nobody up"
        broker.kill()
        until_s = time.monotonic() + 30
        while told(airssys, "one", '{"read": {}}') != "from Perl":
            assert time.monotonic() < until_s
        (after,) = provider(airssys).pids
        assert after != before
        assert not psutil.pid_exists(before)


def test_a_provider_that_can_not_be_started_is_told_of(airssys, up, component, configured) -> None:
    """Before anything is started where it can be seen; by the answer and the status where it shows at its start."""
    place = configured('[providers.bad]\ncapabilities = ["customer-db"]\npython = "bad:missing"\npath = "{place}"\n')
    actor = asker(component, "one", '"read"')
    refused = airssys("up", actor, "--grant", "asked")
    assert (refused.code, "there is no module bad" in refused.stderr) == (65, True)
    (place / "bad.py").write_text(BAD)
    with up(actor, "--grant", "asked") as fleet:
        fleet.until("provider bad: bad:missing: AttributeError")
        fleet.until("one: running")
        until(airssys, lambda found: found.state == "failing", "it fails")
        answer = told(airssys, "one", '{"read": {}}')
        assert ("the provider can't be started" in answer, "AttributeError" in answer) == (True, False)
