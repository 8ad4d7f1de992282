"""Sockets of every family, in a sealed worker and with each layer off, against listeners that are really there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

from supervisor.code.compilation import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Steps, World, Worlds

STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
FAMILIES: dict[str, tuple[int, int, int]] = {
    "unix_stream": (1, STREAM, 0),
    "unix_dgram": (1, DGRAM, 0),
    "unix_seqpacket": (1, SEQPACKET, 0),
    "inet_stream": (2, STREAM, 0),
    "inet_dgram": (2, DGRAM, 0),
    "inet_raw": (2, RAW, 1),
    "inet_ping": (2, DGRAM, 1),
    "inet_mptcp": (2, STREAM, 262),
    "inet_sctp": (2, STREAM, 132),
    "inet6_stream": (10, STREAM, 0),
    "inet6_dgram": (10, DGRAM, 0),
    "netlink_route": (16, RAW, 0),
    "netlink_audit": (16, RAW, 9),
    "netlink_uevent": (16, DGRAM, 15),
    "packet": (17, RAW, 0x0300),
    "key": (15, RAW, 2),
    "can": (29, RAW, 1),
    "tipc": (30, SEQPACKET, 0),
    "bluetooth": (31, SEQPACKET, 0),
    "alg": (38, SEQPACKET, 0),
    "vsock": (40, STREAM, 0),
    "qrtr": (42, DGRAM, 0),
    "smc": (43, STREAM, 0),
    "xdp": (44, RAW, 0),
    "family_0": (0, STREAM, 0),
    "family_99": (99, STREAM, 0),
}
EVERYWHERE = {"unix_stream", "unix_dgram", "unix_seqpacket", "inet_stream", "inet_dgram", "netlink_route"}
"""What every kernel gives to everybody."""


@pytest.mark.parametrize("name", ["sealed", "without landlock", "without namespaces", "without rlimits"])
def test_no_family_of_sockets_can_be_made(worlds: Worlds, name: str) -> None:
    """Every family is refused alike, on record, and the worker lives on; with all layers off the usual ones open."""
    steps = [(label, "socket", *arguments) for label, arguments in FAMILIES.items()]
    ran = worlds[name].probe(steps)
    assert ran.report.verdict.outcome == "exited"
    assert list(ran.results) == list(FAMILIES)
    assert {label for label, result in ran.results.items() if result not in (-errno.EACCES, -errno.EPERM)} == set()
    assert "A1702" in {code for _, code in ran.denied()}
    control = worlds["bare"].probe(steps).results
    assert {label for label in EVERYWHERE if control[label] < 0} == set()


@contextlib.contextmanager
def listeners(place: Path) -> Iterator[dict[str, tuple[int, int, str, list[socket.socket]]]]:
    """Yield name → (family, type, address as bytes in hex, sockets) of listeners here that anybody may reach."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        path = str(place / "s")
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(path)
        os.chmod(path, 0o777)
        named.listen()
        hidden = f"airssys-test-{os.getpid()}"
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{hidden}")
        abstract.listen()
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"\0{hidden}-d")

        def inet(port: int) -> str:
            return (b"\2\0" + port.to_bytes(2, "big") + b"\x7f\0\0\1" + bytes(8)).hex()

        def unix(name: str) -> str:
            return (b"\1\0" + name.encode()).hex()

        yield {
            "tcp": (2, STREAM, inet(tcp.getsockname()[1]), [tcp]),
            "udp": (2, DGRAM, inet(udp.getsockname()[1]), [udp]),
            "unix_path": (1, STREAM, unix(path + "\0"), [named]),
            "unix_abstract": (1, STREAM, unix(f"\0{hidden}"), [abstract]),
            "unix_datagram": (1, DGRAM, unix(f"\0{hidden}-d"), [datagrams]),
        }


def connecting(place: dict[str, tuple[int, int, str, list[socket.socket]]]) -> Steps:
    """Return the steps that connect to each listener."""
    return [
        step
        for name, (family, kind, address, _) in place.items()
        for step in (
            (f"{name}_socket", "socket", family, kind, 0),
            (name, "connect", f"r:{name}_socket", f"x:{address}", len(address) // 2),
        )
    ]


@pytest.mark.parametrize("name", ["sealed", "without seccomp", "without landlock", "without namespaces"])
def test_listeners_of_this_host_are_out_of_reach(worlds: Worlds, short_dir: Path, name: str) -> None:
    """TCP, UDP, named, abstract and datagram listeners can't be connected to; with all layers off every one can."""
    with listeners(short_dir) as place:
        steps = connecting(place)
        results = worlds[name].probe(steps).results
        assert set(place) <= set(results)
        reached = {label for label in place if results[label] >= 0}
        assert reached == set()
        control = worlds["bare"].probe(steps).results
        assert {label for label in place if control[label] < 0} == set()


def test_nothing_is_sent_without_a_connection(worlds: Worlds, sealed: World, short_dir: Path) -> None:
    """sendto to an abstract datagram socket needs no connect: it ends the worker, and arrives without layers."""
    with listeners(short_dir) as place:
        family, kind, address, (receiver,) = place["unix_datagram"]
        steps: Steps = [
            ("socket", "socket", family, kind, 0),
            ("x", "sendto", "r:socket", "s:out", 3, 0, f"x:{address}", len(address) // 2),
        ]
        assert worlds["bare"].probe(steps).results["x"] == 3
        receiver.settimeout(5)
        assert receiver.recv(16) == b"out"
        sealed.assert_ends(steps)
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(16)


COMPONENT_SOCKETS = """
(component
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $ec (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
      "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
      "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
      "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
      "permanent-resolver-failure"))
    (export "error-code" (type (eq $ec)))
    (type $af (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $af)))))
  (alias export $network "error-code" (type $ec))
  (alias export $network "ip-address-family" (type $af))
  (import "wasi:sockets/@KIND@@0.2.0" (instance $kind (export "@KIND@-socket" (type (sub resource)))))
  (alias export $kind "@KIND@-socket" (type $socket))
  (import "wasi:sockets/@KIND@-create-socket@0.2.0" (instance $create
    (alias outer 1 $ec (type $ec1)) (export "error-code" (type $ec2 (eq $ec1)))
    (alias outer 1 $af (type $af1)) (export "ip-address-family" (type $af2 (eq $af1)))
    (alias outer 1 $socket (type $s1)) (export "@KIND@-socket" (type $s2 (eq $s1)))
    (export "create-@KIND@-socket" (func (param "address-family" $af2)
      (result (result (own $s2) (error $ec2)))))))
  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $create (canon lower (func $create "create-@KIND@-socket") (memory (core memory $libc "memory"))))
  (core module $main
    (import "" "create" (func $create (param i32 i32)))
    (import "" "memory" (memory 1))
    (func (export "run") (result i32)
      (call $create (i32.const 0) (i32.const 16))
      ;; 0 only for an error, and that error is access-denied (1)
      (if (i32.ne (i32.load8_u (i32.const 16)) (i32.const 1)) (then (return (i32.const 1))))
      (i32.ne (i32.load8_u (i32.const 20)) (i32.const @EXPECTED@))))
  (core instance $main (instantiate $main (with "" (instance
    (export "create" (func $create)) (export "memory" (memory $libc "memory"))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))
"""


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_component_gets_no_socket_from_preview_2(sealed: World, short_dir: Path, kind: str) -> None:
    """`wasi:sockets` of preview 2 answers access-denied; the same program that expects otherwise fails."""
    for expected, exit_code in ((1, 0), (2, 1)):
        path = short_dir / f"{kind}-{expected}.wasm"
        text = COMPONENT_SOCKETS.replace("@KIND@", kind).replace("@EXPECTED@", str(expected))
        path.write_bytes(wasmtime.wat2wasm(text))
        ran = sealed.run(wasm=path)
        assert ran.report.verdict.exit_code == exit_code
        # No call of it reaches anybody who could record it, so its start says what it can ask for.
        (told,) = [record for record in ran.records if record["event"] == "sockets_imported"]
        assert (told["decision"], told["code"]) == ("info", "A1702")
        assert told["detail"] == {"imports": [f"wasi:sockets/{kind}{what}@0.2.0" for what in ("", "-create-socket")]}
    without = sealed.run("exit", "0", wasm="tool.component.wasm")
    assert [record for record in without.records if record["event"] == "sockets_imported"] == []


def test_imports_that_lead_to_the_network_are_named_before_anything_runs(sealed: World, short_dir: Path) -> None:
    """A component that imports `wasi:http` is refused by name, and no instruction of it runs."""
    path = short_dir / "http.wasm"
    text = '(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))'
    path.write_bytes(wasmtime.wat2wasm(text))
    try:
        verdict = sealed.run(wasm=path).report.verdict
        message = verdict.message
        assert verdict.outcome == "refused"
    except CompileError as error:
        message = str(error)
    assert "wasi:http/outgoing-handler@0.2.0" in message
