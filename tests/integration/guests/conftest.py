"""A host for actors in a few lines: wasmtime's own Python interface and plain functions in place of a broker.

What a guest asks is kept in lists and answered from dictionaries, so that a test sees what the guest itself does.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime.component import Component, Func, Instance, Linker, Record, Variant

from worker.payload_guard import guarded

ROOT = Path(__file__).resolve().parents[3]
ACTORS = {
    "echo": ROOT / "examples/echo/echo.wasm",
    "publisher": ROOT / "examples/publisher/publisher.wasm",
    "subscriber": ROOT / "examples/subscriber/subscriber.wasm",
    "misbehaving": ROOT / "tests/guests/actors/misbehaving.wasm",
    "bench": ROOT / "tests/guests/actors/bench.wasm",
    "counter": ROOT / "examples/counter/counter.wasm",
    "requester": ROOT / "examples/requester/requester.wasm",
}
ON_DEMAND = ("counter", "requester")
LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"


def record(**fields: object) -> Record:
    """Return a record; `_` in a name stands for `-`."""
    made = Record()
    for name, value in fields.items():
        setattr(made, name.replace("_", "-"), value)
    return made


class Host:
    """One guest and what it is told. `sent`, `requested`, `published` and `logged` are what it asked for."""

    def __init__(
        self, engine: wasmtime.Engine, component: Component, memory_bytes: int = 256 << 20, directory: str = ""
    ) -> None:
        """Instantiate it, with WASI that has no files but those of a directory, as /d, and initialise it."""
        self.sent: list[tuple[str, bytes]] = []
        self.requested: list[tuple[str, bytes, int]] = []
        self.cancelled: list[int] = []
        self.published: list[tuple[str, bytes]] = []
        self.logged: list[tuple[str, str, list[tuple[str, str]]]] = []
        self.slept_ms: list[int] = []
        self.stored: dict[str, bytes] = {}
        self.refusals: dict[str, Variant] = {}
        """Function → the error that it is refused with."""
        self.before_set: Callable[[], None] = lambda: None
        """Called before each compare-and-set: another instance that is quicker."""
        self.now_ns = 1_700_000_000_123_456_789
        self.store = wasmtime.Store(engine)
        self.store.set_limits(memory_size=memory_bytes)
        wasi = wasmtime.WasiConfig()
        if directory:
            wasi.preopen_dir(directory, "/d")
        self.store.set_wasi(wasi)
        self.store.set_epoch_deadline(1)
        linker = Linker(engine)
        linker.add_wasip2()
        self._define(linker)
        self.instance: Instance = linker.instantiate(self.store, component)
        assert self.call("initialize", b"{}") is None

    def call(self, name: str, *values: object) -> Any:
        """Call an export of the lifecycle."""
        interface = self.instance.get_export_index(self.store, LIFECYCLE)
        index = self.instance.get_export_index(self.store, name, interface)
        assert index is not None, name
        function = self.instance.get_func(self.store, index)
        assert isinstance(function, Func)
        return function(self.store, *values)

    def ask(self, payload: bytes, sender: str = "tester", topic: str | None = None, wants_answer: bool = True) -> Any:
        """Give it a message; return its answer: bytes, None, or a Variant."""
        return self.call(
            "handle-message", record(sender=sender, payload=payload, topic=topic, wants_answer=wants_answer)
        )

    def answer(self, correlation: int, outcome: bytes | Variant) -> Any:
        """Give it the end of a request."""
        return self.call("handle-callback", record(correlation=correlation, outcome=outcome))

    def _define(self, linker: Linker) -> None:
        interfaces: dict[str, dict[str, Callable[..., Any]]] = {
            "host-messaging": {
                "send": lambda to, payload: self.sent.append((to, payload)),
                "request": self._request,
                "cancel-request": self.cancelled.append,
                "broadcast": lambda payload: self.published.append(("", payload)) or 3,
                "publish": lambda topic, payload: self.published.append((topic, payload)) or 2,
                "self-id": lambda: "self-1a2b3c4d",
            },
            "host-services": {
                "log": lambda level, line, fields: self.logged.append((level, line, fields)),
                "current-time": lambda: divmod(self.now_ns, 1_000_000_000),
                "current-time-millis": lambda: self.now_ns // 1_000_000,
                "sleep-millis": self.slept_ms.append,
                "list-components": lambda: ["echo", "counter"],
                "get-component-metadata": lambda name: record(name=name, version="2.0.0", description="of it"),
            },
            "storage": {
                "get": self.stored.get,
                "set": lambda key, value: self.stored.update({key: value}),
                "delete": lambda key: self.stored.pop(key, None) is not None,
                "exists": lambda key: key in self.stored,
                "list-keys": lambda prefix, after, limit: sorted(
                    key for key in self.stored if key.startswith(prefix) and key > after
                )[:limit],
                "usage": lambda: (sum(len(k) + len(v) + 64 for k, v in self.stored.items()), 100_000_000),
                "compare-and-set": self._compare_and_set,
            },
            "capabilities": {
                "granted": lambda: ["messaging.send:echo", "storage.read:*"],
                "allows": lambda action, resource: (action, resource) == ("messaging.send", "echo"),
            },
            "custom": {"invoke": lambda capability, action, payload: f"{capability}.{action}:".encode() + payload},
        }
        with linker.root() as root:
            for name, functions in interfaces.items():
                with root.add_instance(f"airssys:core/{name}@1.0.0") as instance:
                    for function, does in functions.items():
                        instance.add_func(function, self._refusable(function, does))

    def _refusable(self, name: str, does: Callable[..., Any]) -> Callable[..., Any]:
        return lambda _store, *values: self.refusals[name] if name in self.refusals else does(*values)

    def _request(self, to: str, payload: bytes, timeout_ms: int) -> int:
        self.requested.append((to, payload, timeout_ms))
        return (1 << 52) + len(self.requested)

    def _compare_and_set(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        self.before_set()
        if self.stored.get(key) != expected:
            return False
        if value is None:
            self.stored.pop(key, None)
        else:
            self.stored[key] = value
        return True


@pytest.fixture(scope="session")
def engine() -> wasmtime.Engine:
    """An engine whose calls can be interrupted."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    return wasmtime.Engine(config)


@pytest.fixture(scope="session")
def compiled(engine: wasmtime.Engine) -> Callable[[str], Component]:
    """Compile a guest by its name, once."""
    return functools.cache(lambda name: Component(engine, ACTORS[name].read_bytes()))


@pytest.fixture
def host(engine: wasmtime.Engine, compiled: Callable[[str], Component]) -> Callable[..., Host]:
    """Instantiate a guest by its name; those that are not committed are built first."""

    def start(name: str, with_guards: bool = False, **options: Any) -> Host:
        if name in ON_DEMAND:
            made = subprocess.run(
                [ROOT / "scripts/build-guests", name], capture_output=True, text=True, check=False, timeout=500
            )
            assert made.returncode == 0, made.stdout + made.stderr
        component = Component(engine, guarded(ACTORS[name].read_bytes())) if with_guards else compiled(name)
        return Host(engine, component, **options)

    return start
