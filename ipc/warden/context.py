"""What answering one worker's calls has at hand, and the steps that most answers share."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, Protocol

from ipc.libc import AT_FDCWD, Buffer, pidfd_getfd
from ipc.policy.capability import LIST, READ, WRITE
from ipc.policy.decision import Policy
from ipc.struct import Struct
from ipc.warden.broker_door import Connection
from ipc.warden.decide import Allowed, Refusal, decide_actions, decide_any, decide_handle, decide_kind, decide_missing
from ipc.warden.files import Base, Files, Found, Place, Unresolved
from ipc.warden.held_objects import text
from ipc.warden.memory import WorkerMemory
from ipc.warden.notify import Call, CallFails, Listener, WardenFault
from ipc.warden.storage import Storage

_REGISTER_SIGN: Final = 1 << 31


class Recorder(Protocol):
    """Where decisions go before they take effect."""

    def allowed(self, action: str, resource: str, rule: str, call: str, to: str = "") -> None:
        """Put on record what is about to be done; durable when it returns, the first time."""

    def refused(self, refusal: Refusal, call: str, asked: str) -> None:
        """Put a refusal on record; durable when it returns, the first time."""

    def undelivered(self, action: str, resource: str, call: str) -> None:
        """Put on record that something was done and its caller never got the answer."""


class Injection(Struct, frozen=True):
    """The answer is a duplicate of this descriptor; `given` is told the number that the worker got."""

    descriptor: int
    given: Callable[[int], None] | None = None


Answer = int | Injection | Refusal


def signed(register: int) -> int:
    """Return the int in a register: the kernel looks at its low 32 bits only."""
    return (register & 0xFFFF_FFFF ^ _REGISTER_SIGN) - _REGISTER_SIGN


class Context:
    """One worker's calls; used by one thread. `call`, `name` and `asked` belong to the call in hand."""

    __slots__ = (
        "artifact",
        "asked",
        "buffer",
        "call",
        "connection",
        "done",
        "files",
        "listener",
        "machine",
        "memory",
        "name",
        "partly",
        "pidfd",
        "policy",
        "recorder",
        "storage",
        "subject",
    )

    def __init__(
        self,
        policy: Policy,
        files: Files,
        listener: Listener,
        pidfd: int,
        recorder: Recorder,
        machine: str,
        artifact: int | None,
        storage: Storage | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Bind the parts; `artifact` is the sealed file that the worker loads, once.

        No `storage`: no quota of it; no `connection`: no way to the broker.
        """
        self.policy = policy
        self.files = files
        self.listener = listener
        self.memory = WorkerMemory(listener)
        self.pidfd = pidfd
        self.recorder = recorder
        self.machine = machine
        self.artifact = artifact
        self.storage = storage
        self.connection = connection
        self.buffer = Buffer(64 * 1024)
        self.name = ""
        self.asked = ""
        self.subject: tuple[str, str] | None = None
        self.done: tuple[str, str] | None = None
        self.partly: set[str] | None = None
        """Where it is asked about: the directories of which somebody said that not all names are to be seen."""
        self.call = Call(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def begin(self, call: Call, name: str) -> None:
        """Turn to the next call."""
        self.call = call
        self.name = name
        self.asked = ""
        self.subject = None
        self.done = None

    def path(self, address: int) -> bytes:
        """Return the path argument at `address` of the worker."""
        path = self.memory.read_path(self.call, address)
        self.asked = text(path)
        return path

    def path_and(self, address: int, other: int, length: int) -> tuple[bytes, bytes]:
        """Return the path argument at `address` and the `length` bytes at `other`."""
        path, rest = self.memory.read_path_and(self.call, address, other, length)
        self.asked = text(path)
        return path, rest

    def duplicate(self, register: int) -> int:
        """Return a duplicate of the worker's descriptor, held until the call is answered."""
        try:
            return self.files.keep(pidfd_getfd(self.pidfd, signed(register)))
        except OSError as error:
            if error.errno == errno.EBADF:
                raise CallFails(errno.EBADF) from None
            raise WardenFault(f"a descriptor of the worker can't be had: {error.strerror}") from None

    def base(self, register: int, path: bytes, action: str = READ) -> Base | Refusal:
        """Return where `path` starts: at the descriptor in `register`, or at the root when it is absolute."""
        if path[:1] == b"/":
            return self.files.root_base()
        if signed(register) == AT_FDCWD:
            reason = "a worker has no working directory to which a path could be relative"
            return Refusal(errno.EACCES, action, text(path), "A1207", reason)
        base = self.files.base_of(self.duplicate(register))
        if isinstance(base, Unresolved):
            if base.errno == errno.ENOENT:
                reason = "its directory has been unlinked: no name, so no rule for it"
                return Refusal(errno.ENOENT, action, base.path, "A1209", reason)
            raise CallFails(base.errno)
        return base

    def find(
        self,
        base: Base,
        path: bytes,
        nofollow: bool,
        actions: tuple[str, ...] = (),
        directory: bool = False,
        resolve: int = 0,
    ) -> Found | Unresolved | Refusal:
        """Hold the object at `path`; a refusal where the path passes through what no grant reaches."""
        if b".." in path:
            refusal = self.passes(base, path, actions, directory)
            if refusal is not None:
                return refusal
        return self.files.look(base, path, nofollow, resolve)

    def passes(self, base: Base, path: bytes, actions: tuple[str, ...], directory: bool) -> Refusal | None:
        """Refuse a path that goes down into a directory that no grant reaches, and up again: it would tell of it."""
        for step in self.files.climbs(base, path):
            if isinstance(step, Unresolved):
                return self.missing(step, actions, directory)
            answer = decide_handle(self.policy, step.path)
            if isinstance(answer, Refusal):
                return answer
        return None

    def missing(self, unresolved: Unresolved, actions: tuple[str, ...], directory: bool = False) -> Refusal:
        """Answer for a path that leads to nothing, or out of its base."""
        action = actions[-1] if actions else LIST if directory else READ
        if unresolved.escaped:
            if unresolved.link:
                # Only who may know of the link hears where it leads; for others it is not told from nothing at all.
                answer = decide_missing(self.policy, unresolved.link, actions, directory, unresolved.errno)
                if answer.code:
                    return answer
            reason = "it leaves the directory that the path starts from, by `..` or by a symbolic link"
            return Refusal(errno.EXDEV, action, unresolved.path, "A1204", reason)
        answer = decide_missing(self.policy, unresolved.path, actions, directory, unresolved.errno)
        if not answer.code and unresolved.errno in (errno.EACCES, errno.EPERM):
            return self.system_refuses(unresolved.errno, action, unresolved.path)
        return answer

    def place(self, register: int, path: bytes, action: str) -> tuple[Place, Allowed] | Refusal:
        """Hold the directory of a name that is to be made, removed, moved or read, and decide `action` on that name."""
        base = self.base(register, path, action)
        if isinstance(base, Refusal):
            return base
        if b".." in path:
            refusal = self.passes(base, path.rstrip(b"/").rpartition(b"/")[0], (action,), False)
            if refusal is not None:
                return refusal
        place = self.files.place(base, path)
        if isinstance(place, Unresolved):
            return self.missing(place, (action,))
        answer = (
            decide_any(self.policy, place.path)
            if action == READ
            else decide_actions(self.policy, (action,), place.path)
        )
        if isinstance(answer, Refusal):
            return answer
        self.subject = (action, place.path)
        return self.unfit_parent(place, action) or (place, answer)

    def unfit_parent(self, place: Place, action: str) -> Refusal | None:
        """Refuse names in directories that are forbidden or guarded as objects."""
        facts = place.parent.facts
        if facts.links == 0:
            raise CallFails(errno.ENOENT)
        return decide_kind(facts, action, place.path, writing=action == WRITE)

    def allow(self, allowed: Allowed, path: str, did: bool = True, to: str = "") -> None:
        """Put on record, durable the first time, what is about to be done; nothing that comes before is done yet.

        `to` is another name that the object at `path` gets.
        """
        for action, rule in allowed.by:
            self.recorder.allowed(action, path, rule, self.name, to)
            self.subject = (action, path)
            if did:
                self.done = (action, path)

    def system_refuses(self, number: int, action: str, path: str) -> Refusal:
        """Say that the policy allows it and the operating system does not."""
        reason = f"the operating system refuses ({os.strerror(number)}, as uid {os.geteuid()})"
        return Refusal(number, action, path, "A1601", reason)
