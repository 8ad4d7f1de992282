"""Holding a call that no grant covers until a person has said yes or no.

Only what could be granted is asked about: a forbidden path, a denial of the host's, a rename that would widen something
stay refused. Each action on each resource is asked about once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import stat
from collections.abc import Callable
from typing import Final

import msgpack

from ipc import codec, memory_file
from ipc.messages import NewPolicy, Question
from ipc.policy.document import PolicyDocument
from ipc.policy.rules import NOT_GRANTED
from ipc.struct import Struct
from ipc.warden.decide import Refusal
from ipc.warden.held_objects import raw

POLICY_MAX_BYTES: Final = 64 << 20


class Widened(Struct, frozen=True):
    """What a person's yes made of the policy."""

    document: PolicyDocument
    digest: str


class Asker:
    """Asks for one worker: the lane's thread in `ask`, the one that hears the supervisor in `answer` and `cancel`."""

    __slots__ = ("_answers", "_asked", "_last", "_send", "_worker_id")

    def __init__(self, worker_id: str, send: Callable[[object], None]) -> None:
        """`send` speaks to the supervisor."""
        self._worker_id = worker_id
        self._send = send
        self._asked: set[tuple[str, str]] = set()
        self._answers: queue.SimpleQueue[tuple[int | None, bool]] = queue.SimpleQueue()
        self._last = False

    def ask(self, refusal: Refusal, call: str, do_due: Callable[[], float]) -> Widened | None:
        """Ask about a refusal, and wait; None when it stands. Raises OSError when nobody can be asked any more.

        Meanwhile `do_due` is called whenever the time has passed that it returned, in seconds: what is due for a worker
        whose other threads run on.
        """
        key = (refusal.action, refusal.resource)
        if self._last or refusal.code not in NOT_GRANTED or key in self._asked:
            return None
        self._asked.add(key)
        self._send(
            Question(
                self._worker_id,
                *key,
                refusal.code,
                refusal.reason,
                refusal.nearest or "",
                call,
                kind_of(refusal.resource),
            )
        )
        policy, last = self._wait(do_due)
        self._last = self._last or last
        if policy is None:
            return None
        told = codec.unpack(NewPolicy, memory_file.take(policy, POLICY_MAX_BYTES), POLICY_MAX_BYTES)
        return Widened(read_document(told.document), told.policy_digest)

    def _wait(self, do_due: Callable[[], float]) -> tuple[int | None, bool]:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=do_due())

    def answer(self, descriptors: list[int], last: bool) -> None:
        """Hand over the supervisor's reply."""
        self._answers.put((descriptors[0] if descriptors else None, last))

    def cancel(self) -> None:
        """The worker has ended: nothing is waited for any more."""
        self._answers.put((None, True))


def read_document(packed: bytes) -> PolicyDocument:
    """Return the policy document that the supervisor packed."""
    return PolicyDocument.from_wire(msgpack.unpackb(packed, raw=False, unicode_errors="surrogateescape"))


def kind_of(path: str) -> str:
    """Say what stands at a real path, for who is asked; nothing is decided by it."""
    try:
        mode = os.lstat(raw(path)).st_mode
    except OSError:
        return "missing"
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
