"""The inner deadline: a thread that advances the engine's epoch when time is up, armed only while the guest runs."""

from __future__ import annotations

import threading
import types

import wasmtime


class Deadline:
    """A context in which the guest may run for `timeout_ns` nanoseconds; None: no deadline and no thread."""

    def __init__(self, engine: wasmtime.Engine, timeout_ns: int | None) -> None:
        self._engine = engine
        self._timeout_ns = timeout_ns
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Deadline:
        if self._timeout_ns is not None:
            # A daemon: a guest blocked in the host must not keep the process from ending.
            self._thread = threading.Thread(target=self._wait, name="deadline", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._done.set()

    def _wait(self) -> None:
        assert self._timeout_ns is not None
        if not self._done.wait(self._timeout_ns / 1e9):
            self._engine.increment_epoch()
