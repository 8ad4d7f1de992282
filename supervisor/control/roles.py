"""Who has which role on the control socket: `[control]` of airssys.toml against what the kernel says of a peer."""

from __future__ import annotations

import grp
import os
import pwd

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.config.settings import Control as ControlSettings
from supervisor.control.messages import Role
from supervisor.terminal import visible


class Peer(Struct, frozen=True):
    """A process that has connected: its number, user and groups when it did."""

    pid: int
    uid: int
    groups: frozenset[int]


class Roles(Struct, frozen=True):
    """The users and groups of each role. The supervisor's own user, and root, are admins."""

    own_uid: int
    users: dict[int, Role]
    groups: dict[int, Role]
    approving_users: frozenset[int] = frozenset()
    approving_groups: frozenset[int] = frozenset()

    def has_vote(self, peer: Peer) -> bool:
        """Whether the peer's yes counts in an approval: never root's; our own user's where no approver is named."""
        if peer.uid == 0:
            return False
        if not (self.approving_users or self.approving_groups):
            return peer.uid == self.own_uid
        return peer.uid in self.approving_users or not self.approving_groups.isdisjoint(peer.groups)

    def role_of(self, peer: Peer) -> Role:
        """Return the highest role that the peer's user or one of its groups has."""
        if peer.uid in (0, self.own_uid):
            return Role.ADMIN
        of_groups = [role for gid, role in self.groups.items() if gid in peer.groups]
        return max((self.users.get(peer.uid, Role.NOBODY), *of_groups))

    @property
    def others(self) -> bool:
        """Whether anybody else is named."""
        return bool(self.users or self.groups)

    @property
    def socket_group(self) -> int | None:
        """The one group that the socket can be given to; None where there is none, or several are named."""
        return next(iter(self.groups)) if len(self.groups) == 1 and not self.users else None

    @property
    def socket_mode(self) -> int:
        """0660, which lets the owner's group or the one that is named connect; 0666 where more than that are named."""
        return 0o666 if self.others and self.socket_group is None else 0o660


def read_roles(settings: ControlSettings, own_uid: int) -> Roles:
    """Find the users and groups that are named; raises ConfigError for one that isn't there."""
    users: dict[int, Role] = {}
    groups: dict[int, Role] = {}
    approving: tuple[set[int], set[int]] = (set(), set())
    named = (
        ("viewers", Role.VIEWER, settings.viewers),
        ("operators", Role.OPERATOR, settings.operators),
        # Who approves has to see; what else the others may is not theirs.
        ("approvers", Role.VIEWER, settings.approvers),
        ("admins", Role.ADMIN, settings.admins),
    )
    for word, role, names in named:
        for name in names:
            found, number = (groups, _gid(name[1:])) if name.startswith("@") else (users, _uid(name))
            if number is None:
                key = f"[control] {word}"
                kind = "group" if name.startswith("@") else "user"
                raise ConfigError(f"{key}: there is no {kind} {visible(name.removeprefix('@'))!r} on this machine")
            found[number] = max(role, found.get(number, Role.NOBODY))
            if word == "approvers":
                approving[found is groups].add(number)
    return Roles(own_uid, users, groups, *map(frozenset, approving))


def own_roles(settings: ControlSettings) -> Roles:
    """Return the roles for a supervisor of the current user."""
    return read_roles(settings, os.getuid())


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
