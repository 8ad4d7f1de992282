"""What the supervisor tells a process that becomes a provider: as whom, within which bounds, which program."""

from __future__ import annotations

from ipc.messages import Message

LAUNCH_BYTES_MAX = 512 * 1024


class ProviderLaunch(Message, frozen=True):
    """Supervisor → the process, before all else. Either `command` or `module` and `function`; `path` may be ""."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    parent_pid: int
    memory_bytes: int
    environment: dict[str, str]
    command: tuple[str, ...] = ()
    module: str = ""
    function: str = ""
    path: str = ""
