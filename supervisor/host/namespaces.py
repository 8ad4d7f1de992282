"""Starting our own processes: isolated Python, an empty environment, and where possible a user namespace around it.

The child enters the user namespace before execve(2), so that the program's memory belongs to that namespace and whoever
has capabilities there (the warden, this process) may look into it (user_namespaces(7), ptrace(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Literal, NoReturn

from ipc import libc
from ipc.errors import ConfinementError

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""All that a process of ours gets; -I makes Python ignore its own variables anyway."""
_CHILD_FAILED = 127
_MAX_ERROR_BYTES = 4096


def isolated_python(code: str) -> tuple[str, ...]:
    """Return the command that runs `code` in this interpreter, without environment, user site or current directory.

    The collector of cycles is off until `code` switches it on: while modules are imported it finds nothing and takes a
    sixth of the time.
    """
    return (sys.executable, "-I", "-c", f"import gc; gc.disable()\n{code}")


class Spawned:
    """A process that we started; owns its pidfd and the file its standard error goes to."""

    __slots__ = ("pid", "pidfd", "stderr", "wait_status")

    def __init__(self, pid: int, pidfd: int, stderr: int) -> None:
        """Take over the descriptors."""
        self.pid = pid
        self.pidfd = pidfd
        self.stderr = stderr
        self.wait_status: int | None = None

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it has ended; False when the time was over first."""
        if self.wait_status is not None:
            return True
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        if not poller.poll(None if timeout_s is None else round(timeout_s * 1000)):
            return False
        with contextlib.suppress(ChildProcessError):
            _, self.wait_status = os.waitpid(self.pid, 0)
        if self.wait_status is None:
            self.wait_status = 0
        return True

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended already is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def last_words(self) -> str:
        """Return the end of what it wrote to standard error."""
        size_bytes = os.fstat(self.stderr).st_size
        start = max(0, size_bytes - _MAX_ERROR_BYTES)
        return os.pread(self.stderr, _MAX_ERROR_BYTES, start).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close what is held; ends nothing."""
        os.close(self.pidfd)
        os.close(self.stderr)


def spawn(
    argv: Sequence[str],
    pass_descriptors: Sequence[int] = (),
    join: int | Literal["new"] | None = None,
) -> Spawned:
    """Start a process in a session of its own, with /dev/null as input and output, and only the given descriptors.

    `join` is an open user namespace to enter, "new" to make one that maps this user (root: everybody), or None.
    Raises ConfinementError when the namespace can't be had.
    """
    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    status_r, status_w = os.pipe2(os.O_CLOEXEC)
    go_r, go_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(argv, pass_descriptors, join, stderr, status_w, go_r, go_w)
    os.close(status_w)
    os.close(go_r)
    try:
        first = os.read(status_r, 1) if join == "new" else b""
        if first == b"u":
            first = b""
            _write_maps(pid)
            os.write(go_w, b"g")
        os.close(go_w)
        go_w = -1
        failure = first + os.read(status_r, 64)
        if failure:
            number, _, call = failure.decode().partition(" ")
            raise ConfinementError("user_namespace", call, int(number))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(stderr)
        raise
    finally:
        os.close(status_r)
        if go_w >= 0:
            os.close(go_w)
    return Spawned(pid, os.pidfd_open(pid), stderr)


def _write_maps(pid: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    everybody = "0 0 4294967295"
    try:
        if uid != 0:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", everybody if uid == 0 else f"{uid} {uid} 1")
        _write(f"/proc/{pid}/gid_map", everybody if uid == 0 else f"{gid} {gid} 1")
    except OSError as error:
        raise ConfinementError("user_namespace", "write uid_map", error.errno or 0) from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _become(
    argv: Sequence[str],
    pass_descriptors: Sequence[int],
    join: int | Literal["new"] | None,
    stderr: int,
    status_w: int,
    go_r: int,
    go_w: int,
) -> NoReturn:
    """Be the child: from fork(2) to execve(2). The status pipe closes at execve(2), or carries errno and call."""
    call = "setup"
    try:
        os.close(go_w)
        os.setsid()
        if join is not None:
            call = _enter(join, status_w, go_r)
        call = "execve"
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(stderr, 2)
        for descriptor in pass_descriptors:
            os.set_inheritable(descriptor, True)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir("/")
        os.execve(argv[0], list(argv), ENVIRONMENT)  # noqa: S606 # a shell is what must not be there
    except OSError as error:
        os.write(status_w, f"{error.errno or errno.EIO} {error.filename or call}".encode()[:64])
    finally:
        os._exit(_CHILD_FAILED)


def _enter(join: int | Literal["new"], status_w: int, go_r: int) -> str:
    """Enter the user namespace and keep its capabilities over execve(2); returns the name of the last step."""
    if join == "new":
        libc.unshare(libc.CLONE_NEWUSER)
        os.write(status_w, b"u")
        if os.read(go_r, 1) != b"g":
            os._exit(_CHILD_FAILED)
        # Some hosts (AppArmor on Ubuntu) give the namespace but not its capabilities: only using one tells.
        libc.unshare(libc.CLONE_NEWUTS)
    else:
        libc.setns(join, libc.CLONE_NEWUSER)
    if os.geteuid() != 0:
        # execve(2) takes an ordinary user's capabilities, except the ambient ones (capabilities(7)).
        libc.keep_capabilities_over_exec()
    return "capset"
