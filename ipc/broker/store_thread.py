"""The store's thread: calls wait here by namespace, take turns, and share transactions; results are fetched afterwards.

While one transaction waits for the disk the next one's calls gather, so that one fsync(2) serves all who wait. Calls of
one namespace are carried out in their order; a listing that takes several steps lets others go first.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import Final

from ipc.broker.events import Store as StoreOrder
from ipc.broker.events import Stored, StoreResult
from ipc.broker.messages import MAX_PAYLOAD_BYTES, CompareAndSet, Get, Set
from ipc.broker.store import Job, Listing, Store
from ipc.errors import LocalProtocolError

CALLS_MAX: Final = 256
"""How many calls share a transaction."""
BATCH_BYTES: Final = 8 << 20
"""How many bytes of values they write or read."""
TURN_CALLS: Final = 32
"""How many of them are of one namespace, while others wait."""
TURN_BYTES: Final = 4 << 20
"""How many bytes of values one namespace writes or reads in a transaction, at least one call."""
STORED_BYTES: Final = 8 << 20
"""Values that were read and not taken yet; beyond, nothing more is read: many who ask for large ones at a time must not
fill the memory with them."""
WAITING_CALLS: Final = 1_024
WAITING_BYTES: Final = 8 << 20
"""How much of one namespace may wait; a call beyond that is answered with a failure at once."""

CROWDED: Final = "too many storage calls of this component wait already"


class Removed:
    """A removal that waits, and what came of it."""

    __slots__ = ("failure", "namespace", "ticket")

    def __init__(self, namespace: str, ticket: int) -> None:
        """`ticket` is the caller's own."""
        self.namespace = namespace
        self.ticket = ticket
        self.failure = ""


class _Waiting:
    """What one namespace has to be done."""

    __slots__ = ("jobs", "size_bytes")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.size_bytes = 0


class StoreThread:
    """Owns a `Store`. Methods are for one other thread; `fileno` becomes readable when something is done."""

    def __init__(self, store: Store) -> None:
        """Start the thread; the store is its own from now on."""
        self._store = store
        self._changed = threading.Condition()
        # Guarded by _changed: in the order in which namespaces get their turn.
        self._waiting: dict[str, _Waiting] = {}
        self._removals: deque[Removed] = deque()
        self._stored: list[Stored] = []
        self._stored_bytes = 0
        self._removed: list[Removed] = []
        self._stopping = False
        self._died = ""
        self._done_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return the eventfd(2), for poll(2)."""
        return self._done_fd

    def submit(self, order: StoreOrder) -> None:
        """Have a call carried out; its Stored is fetched with `take_stored`."""
        size_bytes = _size_bytes(order)
        with self._changed:
            waiting = self._waiting.get(order.namespace)
            if waiting is None:
                waiting = self._waiting[order.namespace] = _Waiting()
            if len(waiting.jobs) >= WAITING_CALLS or (waiting.jobs and waiting.size_bytes + size_bytes > WAITING_BYTES):
                self._stored.append(Stored(order.ticket, StoreResult(failure=CROWDED)))
                self._tell()
                return
            waiting.jobs.append((order, None))
            waiting.size_bytes += size_bytes
            self._changed.notify()

    def remove(self, namespace: str, ticket: int) -> None:
        """Have a namespace removed, after what waits of it; fetched with `take_removed`."""
        with self._changed:
            self._removals.append(Removed(namespace, ticket))
            self._changed.notify()

    def take_stored(self) -> list[Stored]:
        """Return what was carried out since the last time, and clear the eventfd.

        Raises LocalProtocolError when the thread has ended: nothing will be carried out any more.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._done_fd)
        with self._changed:
            if self._died:
                raise LocalProtocolError(f"the store's thread has ended: {self._died}")
            stored, self._stored = self._stored, []
            if self._stored_bytes:
                self._stored_bytes = 0
                self._changed.notify()
        return stored

    def take_removed(self) -> list[Removed]:
        """Return the removals that were carried out since the last time."""
        with self._changed:
            removed, self._removed = self._removed, []
        return removed

    @property
    def broken(self) -> str:
        """Why nothing is carried out any more; "" as long as all is well."""
        return self._store.broken

    def usage_bytes(self, namespace: str) -> int:
        """Return what a namespace uses, by what was committed last."""
        return self._store.account(namespace).usage_bytes

    def close(self) -> None:
        """Carry out what waits, then close the store."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._store.close()
        os.close(self._done_fd)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._carry_out()
        except BaseException as error:  # noqa: BLE001,RUF100 # for want of memory, too: who waits must not wait for ever
            with self._changed:
                self._died = repr(error)
                self._tell()

    def _carry_out(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._removals or self._stopping) or self._is_full():
                    self._changed.wait()
                removals = [removal for removal in self._removals if removal.namespace not in self._waiting]
                for removal in removals:
                    self._removals.remove(removal)
                jobs = self._take()
                if not jobs and not removals:
                    return
            if jobs:
                self._finish(jobs, self._store.execute(jobs))
            for removal in removals:
                removal.failure = self._store.remove(removal.namespace)
                with self._changed:
                    self._removed.append(removal)
                    self._tell()

    def _is_full(self) -> bool:
        return self._stored_bytes >= STORED_BYTES and not self._stopping

    def _cost_bytes(self, order: StoreOrder) -> int:
        """What a call writes, or at most brings into memory."""
        if isinstance(order.call, Get):
            return min(MAX_PAYLOAD_BYTES, self._store.account(order.namespace).usage_bytes)
        return _size_bytes(order)

    def _take(self) -> list[Job]:
        """Take a turn of each namespace that waits, until there is enough for one transaction."""
        taken: list[Job] = []
        batch_bytes = 0
        for name in list(self._waiting):
            if len(taken) >= CALLS_MAX or batch_bytes > BATCH_BYTES - TURN_BYTES:
                break
            waiting = self._waiting.pop(name)
            size_bytes = 0
            for _ in range(min(TURN_CALLS, len(waiting.jobs))):
                order = waiting.jobs[0][0]
                job_bytes = self._cost_bytes(order)
                if size_bytes and size_bytes + job_bytes > TURN_BYTES:
                    break
                size_bytes += job_bytes
                taken.append(waiting.jobs.popleft())
                waiting.size_bytes -= _size_bytes(order)
            batch_bytes += size_bytes
            if waiting.jobs:
                self._waiting[name] = waiting  # behind the others
        return taken

    def _finish(self, jobs: list[Job], results: list[StoreResult | Listing]) -> None:
        with self._changed:
            for (order, _), result in zip(jobs, results, strict=True):
                if isinstance(result, StoreResult):
                    self._stored.append(Stored(order.ticket, result))
                    self._stored_bytes += len(result.value or b"")
                else:
                    waiting = self._waiting.setdefault(order.namespace, _Waiting())
                    waiting.jobs.append((order, result))
            if self._stored:
                self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._done_fd, 1)


def _size_bytes(order: StoreOrder) -> int:
    call = order.call
    if isinstance(call, Set):
        return len(call.value)
    if isinstance(call, CompareAndSet):
        return len(call.value or b"") + len(call.expected or b"")
    return 0
