"""Whether a start is in dev mode, and by whose word: that of the host's settings, or of who typed `--dev`. Pure.

Neither a package nor a variable of the environment is asked. What dev mode allows is `supervisor.grants.dev_grants`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.config.dev_settings import DevComponent

FLAG: Final = "--dev"
_OF_SYSTEM: Final = re.compile(
    r"[0-9]+:[^:\n]*:/system\.slice/(?:[^\n]*/)?(?P<unit>[^/\n]+\.service)(?:/[^\n]*)?$", re.M
)


class DevMode(Struct, frozen=True):
    """By whose word a start is in dev mode; `approval` of its records says so."""

    by: str

    @property
    def here(self) -> bool:
        """Whether the working directory is the project's: whoever types a flag stands there."""
        return self.by == FLAG


class DevRefusedError(ConfigError):
    """`--dev` isn't for this."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


def decide_dev_mode(
    flag: bool, entry: DevComponent | None, service: str, *, installed: bool = False, nameable: str = ""
) -> DevMode | None:
    """Return the mode; None where neither the settings' `entry` nor the flag says so. Raises DevRefusedError.

    `service` says why this is no developer's command (`why_service`), "" where it is one; `nameable` what would have to
    be written so that it may be after all, "" for a bare program, which can't be named.
    """
    if entry is not None:
        return DevMode(f"dev.components.{entry.identity} ({entry.origin})")
    if not flag:
        return None
    instead = f"; or by name, in airssys.toml: [dev.components] {nameable}" if nameable else ""
    if service:
        raise DevRefusedError(
            f"--dev is not for {service}",
            hint=f"run it as the user whose project this is, or grant what it may{instead}",
        )
    if installed:
        raise DevRefusedError(
            "--dev is for what is being written, and not for what is installed",
            hint=f"name the directory that it is written in{instead}",
        )
    return DevMode(FLAG)


def why_service(uid: int, environment: Mapping[str, str], pid: int, cgroups: str, has_terminal: bool) -> str:
    """Return in words why a process is root's or a service's, and no developer's; "" where it isn't.

    `cgroups` is what /proc/PID/cgroup says (cgroups(7)). systemd sets `NOTIFY_SOCKET` for a service that tells when it
    is ready (sd_notify(3)), and in `SYSTEMD_EXEC_PID` the pid of what it has started itself (systemd.exec(5)).
    `INVOCATION_ID` says nothing: what is started from a desktop inherits it. A unit of the system counts where there is
    no terminal: who logs in where nothing puts sessions apart stays in the unit of sshd.
    """
    if uid == 0:
        return "root: what it allows unasked, root could do to everybody"
    if environment.get("NOTIFY_SOCKET"):
        return "a service ($NOTIFY_SOCKET is set)"
    if environment.get("SYSTEMD_EXEC_PID") == str(pid):
        return "a service (systemd has started it)"
    unit = _OF_SYSTEM.search(cgroups)
    return f"a system service (it is in {unit['unit']}, and has no terminal)" if unit and not has_terminal else ""


def banner(mode: DevMode) -> str:
    """Return what is said, loudly, of a start in dev mode."""
    where, by = ("its own and the working directory", "") if mode.here else ("its own directory", f" by {mode.by}")
    return f"DEV MODE{by}: nobody was asked; it may read and write {where}, and each record says dev"
