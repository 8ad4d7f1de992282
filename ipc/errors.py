"""The error tree, by who is at fault.

A refusal is not here: a refused action is a value (`ipc.policy.decision.Deny`), an expected outcome of asking.
Each class carries the exit code (sysexits.h) with which the command line ends when it is not handled.
"""

import errno as errno_names
import os
from typing import ClassVar, Final


class AirssysError(Exception):
    """The root of every error that this project raises on purpose."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE


class ConfigError(AirssysError):
    """The operator's fault: a manifest, a setting or an argument is wrong. `hint` says what would mend it."""

    exit_code: ClassVar[int] = 65  # EX_DATAERR
    kind: ClassVar[str] = "config"
    """What it is called in JSON."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message and the hint."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class PeerProtocolError(AirssysError):
    """The component's or worker's fault: it sent what no correct worker sends. End it, and audit that."""


class LocalProtocolError(AirssysError):
    """Our own fault: one of our trusted processes sent or was given something that it must not be given."""


DOCTOR_HINT: Final = "`airssys doctor` names what is missing here, what that costs, and a command that mends it"


class ConfinementError(AirssysError):
    """A layer of confinement could not be put in place, so the worker must not run (fail closed)."""

    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE
    hint: ClassVar[str] = DOCTOR_HINT

    def __init__(self, layer: str, syscall: str, errno: int, detail: str = "", *, words: str = "") -> None:
        """Name the layer, the system call that failed and its errno; 0 where a check and not a call failed.

        `words` are the whole message, where that is better told than put together from these.
        """
        self.layer = layer
        self.syscall = syscall
        self.errno = errno
        self.detail = detail
        what = f"{layer}: {syscall}"
        if errno:
            what += f" failed with {errno_names.errorcode.get(errno, str(errno))} ({os.strerror(errno)})"
        super().__init__(words or (f"{what}: {detail}" if detail else what))


class AuditError(AirssysError):
    """The audit log can't be written or isn't what was written. Always fatal: what is not recorded is not allowed."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT
