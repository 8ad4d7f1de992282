"""Long payloads of guests, through the hatch: what the engine carries is empty, and what the host gets is whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import wasmtime
import wasmtime.component

from ipc import codec
from ipc.broker.messages import MAX_PAYLOAD_BYTES, Accepted, FromWorker, Get, Value
from ipc.messages import EngineSettings
from ipc.policy.decision import PolicyDocument
from worker import abi, hatch
from worker import engine_package as package
from worker.engine import Runner
from worker.host import capabilities, custom, messaging, services, storage, types
from worker.value_types import Ok

pytestmark = pytest.mark.any_user
LONG = hatch.LONG_BYTES
SIZES = [0, 1, LONG - 1, LONG, LONG + 1, hatch.PIECE_BYTES, hatch.PIECE_BYTES + 1, 65_536, 1 << 20, MAX_PAYLOAD_BYTES]


class Bulk:
    """One guest with its guards, and the host's own interfaces over a list in the broker's place."""

    def __init__(self, component: bytes, opened: bool = True) -> None:
        self.asked: list[FromWorker] = []
        self.hatch = hatch.Hatch()
        self.runner = Runner.new(EngineSettings(epoch=False))
        self.runner.memories.limit_bytes = 64 << 20
        if opened:
            self.runner.memories.hatch = self.hatch
        engine = package.engine_of(self.runner.engine)
        self.store = wasmtime.Store(engine)
        self.store.set_wasi(wasmtime.WasiConfig())
        linker = package.linker_of(self.runner.components, engine)
        imports = abi.Imports(failures := abi.Failures(), self.hatch)
        sequence = itertools.count()

        def ask(build: Callable[[int], FromWorker]) -> Accepted | Value:
            self.asked.append(build(next(sequence)))
            return Value(0, None) if isinstance(self.asked[-1], Get) else Accepted(0, 1, 1)

        interfaces: dict[str, Any] = {
            messaging.NAME: messaging.Messaging(None, ask, "self"),  # type: ignore[arg-type]
            storage.NAME: storage.Storage(ask, self.hatch),  # type: ignore[arg-type]
            custom.NAME: custom.Custom(ask, self.hatch),  # type: ignore[arg-type]
            services.NAME: services.Services(ask, None),  # type: ignore[arg-type]
            capabilities.NAME: capabilities.Capabilities(codec.pack_map(PolicyDocument("guest", "").to_wire())),
        }
        for name, interface in interfaces.items():
            imports.define(linker, name, interface.functions())
        instance = linker.instantiate(self.store, wasmtime.component.Component(engine, component))
        lifecycle = instance.get_export_index(self.store, types.interface("component-lifecycle"))

        def find(name: str) -> abi.Function:
            index = instance.get_export_index(self.store, name, lifecycle)
            assert index is not None
            func = instance.get_func(self.store, index)
            assert func is not None
            return abi.Function(self.store, func, failures)

        self._handle = find("handle-message")
        assert find("initialize")(b"{}") == Ok(None)

    def ask(self, payload: bytes) -> Any:
        """Give it a message; return what the engine returned, and what was handed over beside."""
        payload = self.hatch.give(hatch.MESSAGE, payload)
        return self._handle(("tester", payload, None, True)), self.hatch.take()
