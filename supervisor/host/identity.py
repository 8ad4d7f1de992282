"""Whose files the warden may touch (`run_as`), and which uid a worker gets. The warden is never root.

Default of `run_as`: the invoking user; under sudo as root, the user who called sudo; else for root `nobody`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
from collections.abc import Iterator, Mapping

from ipc.errors import ConfigError
from ipc.struct import Struct

NOBODY = 65534
WORKER_UID_BASE = 2_000_000_000
"""First uid of the range that workers get when the supervisor is root: far above what systems hand out."""
WORKER_UID_COUNT = 4_096
_UID_MAX = 2**32 - 2
"""The greatest uid there is: setresuid(2) takes 2**32 - 1 for "leave it as it is", which for us would be root."""


class Identity(Struct, frozen=True):
    """A file identity: what the warden becomes."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def actor() -> str:
    """Return who acts, as the audit log names a person: by the uid that the kernel knows."""
    return f"uid {os.getuid()}"


def resolve_run_as(asked: str | None, own_uid: int, environment: Mapping[str, str]) -> Identity:
    """Return the identity for `asked` (a name or uid) or the default; raises ConfigError for root or nobody known."""
    if own_uid != 0:
        own = _by_uid(own_uid)
        if asked is not None and asked not in (own.name, str(own_uid)):
            raise ConfigError(f"run_as {asked!r}: only root can run as another user (you are {own.name})")
        return own
    if asked is None:
        sudo_uid = environment.get("SUDO_UID", "")
        identity = _by_uid(int(sudo_uid)) if _is_number(sudo_uid) and int(sudo_uid) else _by_uid(NOBODY)
    elif _is_number(asked):
        identity = _by_uid(int(asked))
    else:
        try:
            identity = _from_entry(pwd.getpwnam(asked))
        except KeyError:
            raise ConfigError(f"run_as {asked!r}: no such user") from None
    if identity.uid == 0 or identity.gid == 0:
        raise ConfigError(f"run_as {identity.name!r}: files are never touched as root; name an ordinary user")
    if WORKER_UID_BASE <= identity.uid < WORKER_UID_BASE + WORKER_UID_COUNT:
        raise ConfigError(f"run_as {identity.name!r}: that uid is of the range that workers get")
    return identity


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _by_uid(uid: int) -> Identity:
    if uid > _UID_MAX:
        raise ConfigError(f"run_as {str(uid)[:32]}: no such uid (the greatest is {_UID_MAX})")
    try:
        return _from_entry(pwd.getpwuid(uid))
    except KeyError:
        gid = os.getgid() if uid == os.getuid() else uid
        groups = tuple(os.getgroups()) if uid == os.getuid() else (gid,)
        return Identity(str(uid), uid, gid, groups)


def _from_entry(entry: pwd.struct_passwd) -> Identity:
    own = entry.pw_uid == os.getuid()
    groups = tuple(os.getgroups() if own else os.getgrouplist(entry.pw_name, entry.pw_gid))
    # Group 0 often owns what only root should read; a file identity doesn't carry it.
    kept = tuple(g for g in groups if g != 0) or (entry.pw_gid,)
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, kept)


@contextlib.contextmanager
def worker_uid(run_directory: str) -> Iterator[int]:
    """Hold a uid of its own for one worker while the context lasts (root only); a lock file keeps other runs off it."""
    directory = os.path.join(run_directory, "uids")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for slot in range(WORKER_UID_COUNT):
        descriptor = os.open(os.path.join(directory, str(slot)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            yield WORKER_UID_BASE + slot
        finally:
            os.close(descriptor)
        return
    raise ConfigError(f"all {WORKER_UID_COUNT} worker uids are in use")
