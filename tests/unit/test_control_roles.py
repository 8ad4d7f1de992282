"""Who may what on the control socket: a total table, roles from names, and the kernel's word on who asks."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from itertools import product

import pytest

from ipc.errors import ConfigError
from supervisor.config.settings import Control
from supervisor.control.messages import MAY_ASK, REQUESTS, CallComponent, GetStatus, Role, ShutDown, may_ask
from supervisor.control.roles import Peer, Roles, read_roles
from supervisor.control.serving import peer_of


def test_the_table_names_every_request() -> None:
    """Each request takes a role, and none is open to nobody."""
    assert set(MAY_ASK) == set(REQUESTS)
    for role, request in product(Role, REQUESTS):
        assert may_ask(role, request) is (role >= MAY_ASK[request])
    assert not any(may_ask(Role.NOBODY, request) for request in REQUESTS)


@pytest.mark.parametrize(
    ("role", "may"),
    [(Role.VIEWER, (True, False, False)), (Role.OPERATOR, (True, True, False)), (Role.ADMIN, (True, True, True))],
)
def test_a_role_may_what_the_ones_before_it_may(role: Role, may: tuple[bool, ...]) -> None:
    """Viewers look, operators send, admins end it."""
    assert tuple(may_ask(role, request) for request in (GetStatus, CallComponent, ShutDown)) == may


def test_roles_follow_from_user_and_groups() -> None:
    """Root and the supervisor's own user are admins; others have the highest of what is said of them."""
    roles = Roles(1000, {1001: Role.VIEWER}, {50: Role.OPERATOR, 51: Role.VIEWER})

    def role(uid: int, *groups: int) -> Role:
        return roles.role_of(Peer(1, uid, frozenset(groups)))

    assert [role(0), role(1000), role(1001), role(1002)] == [Role.ADMIN, Role.ADMIN, Role.VIEWER, Role.NOBODY]
    assert [role(1001, 50), role(1002, 51), role(1002, 51, 50), role(1002, 52)] == [
        Role.OPERATOR,
        Role.VIEWER,
        Role.OPERATOR,
        Role.NOBODY,
    ]


def test_who_has_a_vote() -> None:
    """Those who are named, by user or group; our own user where nobody is; never root, and no admin for being one."""

    def voters(roles: Roles) -> list[bool]:
        peers: list[tuple[int, tuple[int, ...]]] = [(0, ()), (1000, ()), (1001, ()), (1002, (50,)), (1003, ())]
        return [roles.has_vote(Peer(1, uid, frozenset(groups))) for uid, groups in peers]

    assert voters(Roles(1000, {}, {})) == [False, True, False, False, False]
    assert voters(Roles(0, {}, {})) == [False] * 5
    assert voters(Roles(1000, {}, {}, frozenset({1001}), frozenset({50}))) == [False, False, True, True, False]
    assert voters(Roles(1000, {1003: Role.ADMIN}, {}, frozenset({0, 1001}))) == [False, False, True, False, False]
    user = pwd.getpwuid(65534)
    named = read_roles(Control(approvers=(user.pw_name,)), 1000)
    assert named.approving_users == {user.pw_uid}
    assert named.role_of(Peer(1, user.pw_uid, frozenset())) is Role.VIEWER


def test_names_are_found_or_refused() -> None:
    """Users and groups are looked up when the supervisor starts; one that isn't there is told, not passed over."""
    user, group = pwd.getpwuid(65534), grp.getgrall()[0]
    roles = read_roles(Control(viewers=(f"@{group.gr_name}", user.pw_name), admins=(user.pw_name,)), 1000)
    assert roles.users == {user.pw_uid: Role.ADMIN}
    assert roles.groups == {group.gr_gid: Role.VIEWER}
    for wrong in ("no-such-user-here", "@no-such-group-here"):
        with pytest.raises(ConfigError, match="no-such"):
            read_roles(Control(operators=(wrong,)), 1000)


@pytest.mark.parametrize(
    ("users", "groups", "mode", "group"),
    [
        ({}, {}, 0o660, None),
        ({}, {50: Role.VIEWER}, 0o660, 50),
        ({1001: Role.VIEWER}, {}, 0o666, None),
        ({1001: Role.VIEWER}, {50: Role.VIEWER}, 0o666, None),
        ({}, {50: Role.VIEWER, 51: Role.ADMIN}, 0o666, None),
    ],
)
def test_the_socket_is_open_to_who_is_named(
    users: dict[int, Role], groups: dict[int, Role], mode: int, group: int | None
) -> None:
    """For us alone or one group it is 0660; the kernel has no mode for more than that, and the table decides."""
    roles = Roles(1000, users, groups)
    assert (roles.socket_mode, roles.socket_group) == (mode, group)


def test_the_kernel_says_who_asks() -> None:
    """The peer of a socket pair is this very process, with the groups that it has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert {os.getgid(), *os.getgroups()} == peer.groups
