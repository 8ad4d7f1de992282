"""The kernel's side of a notification listener: receive a stopped system call, answer it, inject a descriptor.

seccomp_unotify(2), include/uapi/linux/seccomp.h. A call is never let continue (SECCOMP_USER_NOTIF_FLAG_CONTINUE): the
worker could change its arguments after they were judged.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from typing import Final, NamedTuple

_NOTIFICATION: Final = struct.Struct("<QIIiIQ6Q")
_RESPONSE: Final = struct.Struct("<QqiI")
_ADDFD: Final = struct.Struct("<QIIII")
_ID: Final = struct.Struct("<Q")


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("!") << 8 | number


_RECV: Final = _ioctl(3, 0, _NOTIFICATION.size)
_SEND: Final = _ioctl(3, 1, _RESPONSE.size)
_ID_VALID: Final = _ioctl(1, 2, _ID.size)
_ADD: Final = _ioctl(1, 3, _ADDFD.size)
_SET_FLAGS: Final = _ioctl(1, 4, 8)
_ADDFD_FLAG_SETFD: Final = 1
_ADDFD_FLAG_SEND: Final = 2
_SYNC_WAKE_UP: Final = 1
_NOTHING: Final = bytes(_NOTIFICATION.size)


class Call(NamedTuple):
    """One stopped system call: `tid` is the calling thread, `arguments` its six registers."""

    id: int
    tid: int
    flags: int
    number: int
    architecture: int
    instruction: int
    a0: int
    a1: int
    a2: int
    a3: int
    a4: int
    a5: int


class CallGone(Exception):  # noqa: N818 # an outcome: the caller was interrupted or killed, nobody waits for an answer
    """The thread that made the call no longer waits for its answer."""


class CallFails(Exception):  # noqa: N818 # an outcome of judging the arguments, nothing that a policy decides
    """The call returns `errno`, as it would without us."""

    def __init__(self, number: int) -> None:
        """Keep the errno."""
        super().__init__(number)
        self.errno = number


class HandOverBroken(Exception):  # noqa: N818 # ends the worker: it may hold a number that means something else
    """We were stopped while we handed a descriptor over: the call returned 0, which is not its number."""


class ForbiddenCall(Exception):  # noqa: N818 # an outcome: the worker ends
    """A call that no working component causes, though the warden answers others of its number."""


class WardenFault(Exception):  # noqa: N818 # ends the worker, never the warden
    """A call can't be answered in a defined way."""


class Listener:
    """Owns a listener descriptor; used by one thread."""

    __slots__ = ("_adding", "_buffer", "_mark", "descriptor", "given", "synchronous")

    def __init__(self, descriptor: int, mark: mmap.mmap | bytearray) -> None:
        """Take over the descriptor; asks for synchronous wake-ups where the kernel (6.6) has them.

        `mark` says to who shares it that a descriptor is being handed over (`ipc.hand_over`).
        """
        self.descriptor = descriptor
        self._mark = mark
        self._buffer = bytearray(_NOTIFICATION.size)
        self._adding = bytearray(_ADDFD.size)
        self.given = -1
        """The number that the worker got with the last `inject`; -1 when it got none."""
        try:
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)
            self.synchronous = True
        except OSError:
            self.synchronous = False

    def receive(self) -> Call | None:
        """Take the next call; None when its thread was gone before. Blocks when there is none: poll first."""
        self._buffer[:] = _NOTHING  # the kernel insists on zeroes
        try:
            fcntl.ioctl(self.descriptor, _RECV, self._buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return tuple.__new__(Call, _NOTIFICATION.unpack(self._buffer))

    def check(self, call: Call) -> None:
        """Raise CallGone unless the calling thread still waits: only then were its memory and number its own."""
        try:
            fcntl.ioctl(self.descriptor, _ID_VALID, _ID.pack(call.id))
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise CallGone from None
            raise

    def answer(self, call: Call, result: int) -> bool:
        """Make the call return `result`, a negative errno or a value; False when nobody waits any more."""
        response = _RESPONSE.pack(call.id, max(result, 0), min(result, 0), 0)
        try:
            fcntl.ioctl(self.descriptor, _SEND, response)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def inject(self, call: Call, descriptor: int) -> None:
        """Give the worker a duplicate of `descriptor`, and make the call return its number.

        Raises CallGone when nobody waits any more; OSError EMFILE when the worker has too many: it still waits then.

        In one step: the call counts as answered before its thread has taken the descriptor. If we are killed or stopped
        in between the kernel takes the descriptor back and the call returns 0. The mark tells of the one; after the
        other the call is no longer to be found, or not waiting: HandOverBroken (docs/adr/0013).
        """
        self.given = -1
        # Deciding may have taken as long as a disk: what is gone since is no hand-over that broke off, and a worker
        # that breaks a rule meanwhile must not have that explained by the mark.
        self.check(call)
        _ADDFD.pack_into(self._adding, 0, call.id, _ADDFD_FLAG_SEND, descriptor, 0, os.O_CLOEXEC)
        self._mark[0] = 1
        try:
            # A mutable argument: only then is the ioctl's own result returned.
            self.given = fcntl.ioctl(self.descriptor, _ADD, self._adding, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                raise HandOverBroken from None
            self._mark[0] = 0
            raise
        self._mark[0] = 0

    def put(self, call: Call, descriptor: int, number: int) -> None:
        """Make `number` of the worker a duplicate of `descriptor`, as dup2(2) would; the call still waits."""
        request = _ADDFD.pack(call.id, _ADDFD_FLAG_SETFD, descriptor, number, os.O_CLOEXEC)
        try:
            fcntl.ioctl(self.descriptor, _ADD, request)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise CallGone from None
            raise

    def close(self) -> None:
        """Close the descriptor: calls that wait for answers get ENOSYS if nobody else holds one."""
        os.close(self.descriptor)
