"""The guest's linear memories, kept by us: one exact sum over all of them, and every refusal counted.

wasmtime's own limiter counts per memory, so that N memories hold N times the limit, and it doesn't tell that it
refused. Here `wasmtime_config_host_memory_creator_set` (C API, config.h) asks us for each memory and each growth.
A growth costs microseconds, an access nothing (measured in docs/adr/, "one sum over all memories").
"""

from __future__ import annotations

import contextlib
import ctypes

from worker import engine_api as api
from worker import libc
from worker.hatch import PAGE_BYTES, Hatch


def _refusal() -> int:
    """Return a new wasmtime_error_t, which the engine owns: what a callback says for "no"; 0 says "yes"."""
    return api.new_error(b"refused: over the memory limit")


class _Memory:
    """One memory: a guard, the reservation, a guard; the first `size_bytes` of the reservation are usable."""

    __slots__ = ("base", "guard_bytes", "hatch", "reserved_bytes", "size_bytes")

    def __init__(
        self, base: int, size_bytes: int, reserved_bytes: int, guard_bytes: int, hatch: Hatch | None = None
    ) -> None:
        self.base = base
        self.hatch = hatch
        self.size_bytes = size_bytes
        self.reserved_bytes = reserved_bytes
        self.guard_bytes = guard_bytes


class LinearMemories:
    """All memories of one process. `limit_bytes` bounds their sum; set it before anything is instantiated."""

    def __init__(self) -> None:
        """Start empty, with nothing allowed."""
        self.limit_bytes = 0
        self.used_bytes = 0
        self.peak_bytes = 0
        self.refusals = 0
        self.refused_bytes = 0
        """How much the last refused request asked for."""
        self.last_refused = False
        """Whether the newest request was refused: a guest that got memory later wasn't ended by its limit."""
        self.hatch: Hatch | None = None
        """Who takes what guards hand over, where somebody does. Its page is ours, and not counted."""
        self._memories: dict[int, _Memory] = {}
        self._next = 1
        # ctypes keeps no reference to what C holds: these attributes do.
        self._new = api.MEMORY_NEW(self._new_memory)
        self._get = api.MEMORY_GET(self._get_memory)
        self._grow = api.MEMORY_GROW(self._grow_memory)
        self._finalize = api.FINALIZER(self._finalize_memory)
        self._nothing = api.FINALIZER(lambda _: None)
        self._creator = api.MemoryCreator()

    def install(self, config: int) -> None:
        """Make an engine with this configuration ask here for its memories; self must outlive the engine."""
        self._creator.env = None
        self._creator.new_memory = self._new
        self._creator.finalizer = self._nothing
        api.config_memory_creator(config, ctypes.byref(self._creator))

    def grant(self, asked_bytes: int) -> bool:
        """Decide whether `asked_bytes` more may be used, and count."""
        if asked_bytes > self.limit_bytes - self.used_bytes:
            return self._refuse(asked_bytes)
        self.used_bytes += asked_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        self.last_refused = False
        return True

    def forget(self) -> None:
        """Count from the beginning again; what memories are left goes on counting."""
        self.limit_bytes = self.peak_bytes = self.refusals = self.refused_bytes = 0
        self.last_refused = False

    def _refuse(self, asked_bytes: int) -> bool:
        self.refusals += 1
        self.refused_bytes = asked_bytes
        self.last_refused = True
        return False

    # -- called by the engine; an exception would be lost on the way, so each ends as a refusal ------------------------

    def _new_memory(
        self,
        _env: int | None,
        _kind: object,
        minimum_bytes: int,
        maximum_bytes: int,
        reserved_bytes: int,
        guard_bytes: int,
        result: ctypes._Pointer[api.LinearMemory],
    ) -> int:
        hatch = self.hatch if self.hatch is not None and self.hatch.is_for(minimum_bytes, maximum_bytes) else None
        if hatch is None and not self.grant(minimum_bytes):
            return _refusal()
        try:
            reserved_bytes = max(reserved_bytes, minimum_bytes)
            start = libc.reserve(guard_bytes + reserved_bytes + guard_bytes)
            memory = _Memory(start + guard_bytes, minimum_bytes, reserved_bytes, guard_bytes, hatch)
            if minimum_bytes:
                libc.make_usable(memory.base, minimum_bytes)
            if hatch is not None:
                hatch.open(memory.base)
            number = self._next
            self._next += 1
            self._memories[number] = memory
            slot = result[0]
            slot.env = number
            slot.get_memory = self._get
            slot.grow_memory = self._grow
            slot.finalizer = self._finalize
        except Exception:  # ENOMEM above all: RLIMIT_DATA or RLIMIT_AS, the outer bounds
            if hatch is None:
                self.used_bytes -= minimum_bytes
            self._refuse(minimum_bytes)
            return _refusal()
        return 0

    def _get_memory(
        self, number: int, size: ctypes._Pointer[ctypes.c_size_t], most: ctypes._Pointer[ctypes.c_size_t]
    ) -> int:
        memory = self._memories[number]
        size[0] = memory.size_bytes
        most[0] = memory.reserved_bytes
        return memory.base

    def _grow_memory(self, number: int, new_bytes: int) -> int:
        memory = self._memories[number]
        if memory.hatch is not None:
            with contextlib.suppress(Exception):  # what wasn't done, the guard sees
                memory.hatch.grow((new_bytes - memory.size_bytes) // PAGE_BYTES)
            return _refusal()
        more_bytes = new_bytes - memory.size_bytes
        if new_bytes > memory.reserved_bytes:
            # A 64-bit memory beyond its reservation of 4 GiB would have to move; it is refused.
            self._refuse(more_bytes)
            return _refusal()
        if not self.grant(more_bytes):
            return _refusal()
        try:
            if more_bytes:
                libc.make_usable(memory.base, new_bytes)
        except OSError:
            self.used_bytes -= more_bytes
            self._refuse(more_bytes)
            return _refusal()
        memory.size_bytes = new_bytes
        return 0

    def _finalize_memory(self, number: int) -> None:
        memory = self._memories.pop(number)
        if memory.hatch is None:
            self.used_bytes -= memory.size_bytes
        libc.release(memory.base - memory.guard_bytes, memory.reserved_bytes + 2 * memory.guard_bytes)
