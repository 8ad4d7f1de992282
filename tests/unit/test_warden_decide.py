"""The warden's pure decisions: what a call asks for, and what the rules say to it."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ipc.policy.capability import READ, WRITE, Grant
from ipc.policy.decision import Policy, PolicyDocument, compile_policy
from ipc.struct import replace
from ipc.warden.decide import (
    Allowed,
    Facts,
    Refusal,
    decide_directory_rename,
    decide_kind,
    decide_link_target,
    decide_missing,
    decide_open,
    decide_widening,
    link_leads_to,
    may_show,
)
from ipc.warden.open_request import OpenRequest, normalise_flags, parse_open

FILE = Facts(stat.S_IFREG | 0o644, 1)
DIRECTORY = Facts(stat.S_IFDIR | 0o755, 2)
LINK = Facts(stat.S_IFLNK | 0o777, 1)


def policy(*grants: tuple[str, str]) -> Policy:
    """Compile a policy of file grants."""
    return compile_policy(
        PolicyDocument("c", "", grants=tuple(Grant(f"filesystem.{v}", p, "the test", True) for v, p in grants))
    )


RULES = policy(
    ("read", "/in/**"), ("write", "/out/**"), ("read", "/both/**"), ("write", "/both/**"), ("list", "/names/")
)


@pytest.mark.parametrize(
    ("flags", "actions"),
    [
        (os.O_RDONLY, (READ,)),
        (os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, (READ,)),
        (os.O_WRONLY, (WRITE,)),
        (os.O_WRONLY | os.O_APPEND, (WRITE,)),
        (os.O_RDWR, (READ, WRITE)),
        (os.O_RDONLY | os.O_TRUNC, (READ, WRITE)),
        (os.O_RDONLY | os.O_CREAT, (READ, WRITE)),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, (WRITE,)),
        (3, (READ, WRITE)),
        (os.O_PATH, ()),
        (os.O_PATH | os.O_DIRECTORY, ()),
    ],
)
def test_an_open_needs_these_actions(flags: int, actions: tuple[str, ...]) -> None:
    """Each combination of flags needs exactly the actions that it could perform."""
    request = parse_open(flags, 0, 0, False)
    assert isinstance(request, OpenRequest)
    assert request.actions == actions


@pytest.mark.parametrize(
    ("flags", "mode", "resolve", "strict", "number"),
    [
        (os.O_TMPFILE | os.O_RDWR, 0o600, 0, False, errno.EOPNOTSUPP),
        (1 << 30, 0, 0, False, errno.EINVAL),
        (1 << 40, 0, 0, True, errno.EINVAL),
        (0o20000, 0, 0, False, errno.EINVAL),  # O_ASYNC
        (0, 0, 0x40, True, errno.EINVAL),
        (0, 0, 0x20, True, errno.EAGAIN),  # RESOLVE_CACHED
        (0, 0o600, 0, True, errno.EINVAL),
        (os.O_CREAT, 0o10000, 0, True, errno.EINVAL),
        (os.O_PATH | os.O_RDWR, 0, 0, True, errno.EINVAL),
        (os.O_CREAT | os.O_DIRECTORY, 0o600, 0, False, errno.EINVAL),
    ],
)
def test_what_is_not_understood_is_refused(flags: int, mode: int, resolve: int, strict: bool, number: int) -> None:
    """Unknown flags, bits of resolution and modes are an errno, never ignored."""
    assert parse_open(flags, mode, resolve, strict) == number


def test_a_created_mode_holds_permissions_only() -> None:
    """Set-id and sticky bits of a mode are dropped; without O_CREAT open(2) has no mode at all."""
    made, opened = parse_open(os.O_CREAT | os.O_WRONLY, 0o7777, 0, False), parse_open(0, 0o7777, 0, False)
    assert isinstance(made, OpenRequest)
    assert isinstance(opened, OpenRequest)
    assert (made.mode, opened.mode) == (0o777, 0)


def test_the_flags_of_aarch64_mean_the_same() -> None:
    """The four flags whose numbers differ are moved, others are left as they are."""
    assert normalise_flags(0o40000 | 0o100000 | os.O_CREAT, "aarch64") == 0o200000 | 0o400000 | os.O_CREAT
    assert normalise_flags(0o200000 | 0o400000, "aarch64") == 0o40000 | 0o100000
    assert normalise_flags(0o200000, "x86_64") == 0o200000


@pytest.mark.parametrize(
    ("path", "flags", "facts", "expected"),
    [
        ("/in/a", os.O_RDONLY, FILE, "allowed"),
        ("/in/a", os.O_RDWR, FILE, "A1203"),
        ("/in/a", os.O_WRONLY, FILE, "A1203"),
        ("/out/a", os.O_WRONLY, FILE, "allowed"),
        ("/out/a", os.O_RDONLY, FILE, "A1203"),
        ("/out/a", os.O_PATH, FILE, "allowed"),
        ("/both/a", os.O_RDWR, FILE, "allowed"),
        ("/else/a", os.O_RDONLY, FILE, "A1203"),
        ("/else/a", os.O_PATH, FILE, "A1203"),
        ("/in", os.O_RDONLY, DIRECTORY, "allowed"),
        ("/", os.O_RDONLY | os.O_DIRECTORY, DIRECTORY, "allowed"),
        ("/else", os.O_RDONLY, DIRECTORY, "A1203"),
        ("/both/d", os.O_RDWR, DIRECTORY, errno.EISDIR),
        ("/else/d", os.O_RDWR, DIRECTORY, "A1203"),
        ("/in/a", os.O_RDONLY | os.O_DIRECTORY, FILE, errno.ENOTDIR),
        ("/else/a", os.O_RDONLY | os.O_DIRECTORY, FILE, "A1203"),
        ("/both/a", os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE, errno.EEXIST),
        ("/in/a", os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE, "A1203"),
        ("/in/l", os.O_RDONLY | os.O_NOFOLLOW, LINK, errno.ELOOP),
        ("/in/l", os.O_PATH | os.O_NOFOLLOW, LINK, "allowed"),
        ("/else/l", os.O_RDONLY | os.O_NOFOLLOW, LINK, "A1203"),
        ("/in/p", os.O_RDONLY, Facts(stat.S_IFIFO | 0o644, 1), "A1205"),
        ("/in/p", os.O_PATH, Facts(stat.S_IFCHR | 0o644, 1), "A1205"),
        ("/else/p", os.O_RDONLY, Facts(stat.S_IFIFO | 0o644, 1), "A1203"),
        ("/in/a", os.O_RDONLY, Facts(stat.S_IFREG, 0), "A1209"),
        ("/in/a", os.O_RDONLY, replace(FILE, special_filesystem="proc"), "A1102"),
        ("/in/a", os.O_RDONLY, replace(FILE, forbidden_as="/etc/shadow"), "A1101"),
        ("/both/s", os.O_WRONLY, Facts(stat.S_IFREG | 0o4755, 1), "A1208"),
        ("/both/s", os.O_RDONLY, Facts(stat.S_IFREG | 0o4755, 1), "allowed"),
        ("/both/s", os.O_RDONLY | os.O_TRUNC, Facts(stat.S_IFREG | 0o2755, 1), "A1208"),
    ],
)
def test_opening_an_existing_object(path: str, flags: int, facts: Facts, expected: str | int) -> None:
    """The rights, the kind of object and where it is decide together; what is uncovered is refused for that first."""
    request = parse_open(flags, 0o600, 0, False)
    assert isinstance(request, OpenRequest)
    answer = decide_open(RULES, request, path, facts)
    if isinstance(answer, Allowed):
        assert expected == "allowed"
    else:
        assert expected == (answer.code or answer.errno)


@pytest.mark.parametrize(
    ("path", "actions", "directory", "number"),
    [
        ("/in/none", (READ,), False, errno.ENOENT),
        ("/out/none", (READ,), False, errno.ENOENT),
        ("/else/none", (READ,), False, errno.EACCES),
        ("/else/none", (), False, errno.EACCES),
        ("/none", (READ,), True, errno.EACCES),
    ],
)
def test_a_missing_name(path: str, actions: tuple[str, ...], directory: bool, number: int) -> None:
    """Its absence is told where some right covers the name, and nowhere else."""
    assert decide_missing(RULES, path, actions, directory, errno.ENOENT).errno == number


@pytest.mark.parametrize(
    ("source", "target", "widened"),
    [
        ("/out/a", "/out/b", False),
        ("/both/a", "/out/b", False),
        ("/both/a", "/both/b", False),
        ("/out/a", "/both/b", True),
        ("/out/a", "/in/b", True),
        ("/in/a", "/both/b", True),
    ],
)
def test_a_new_name_confers_no_new_right(source: str, target: str, widened: bool) -> None:
    """A rename or link is refused exactly where the new name has a right that the old one lacks."""
    refusal = decide_widening(RULES, source, target)
    assert (refusal is not None) == widened
    assert refusal is None or refusal.code == "A1211"


def test_directories_move_only_where_rules_are_alike() -> None:
    """Within one grant a directory is renamed; into another it is EXDEV."""
    assert decide_directory_rename(RULES, "/out/d", "/out/e") is None
    refusal = decide_directory_rename(RULES, "/out/d", "/both/e")
    assert refusal is not None
    assert (refusal.errno, refusal.code) == (errno.EXDEV, "A1206")


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("x", False),
        ("../out/x", False),
        ("d/e/f", False),
        ("./d", False),
        ("../in/a", False),
        ("/out/x", True),
        ("../else/x", True),
        ("d/../../else", True),
        ("d/../x", True),
        ("../../../etc/passwd", True),
        ("..", True),
        (".", False),
        ("../names", False),
    ],
)
def test_where_a_symbolic_link_may_lead(target: str, refused: bool) -> None:
    """Relative, down after up and never up after down, and to where something is granted, not only further down."""
    refusal = decide_link_target(RULES, "/out/link", target, link_leads_to("/out", target))
    assert (refusal is not None) == refused
    assert refusal is None or refusal.code == "A1204"


@pytest.mark.parametrize(
    ("name", "target", "refused"),
    [
        (".vscode", "v", True),
        (".cargo", "d/e", True),
        ("tool.git", "v", True),
        (".config", "d", True),
        (".VSCode", "v", True),
        ("current", "v1", False),
        ("in", "../in", False),
        ("here", ".", False),
        ("again", ".vscode", False),
        ("lib64", "lib", False),
    ],
)
def test_a_link_gives_nothing_a_forbidden_name(name: str, target: str, refused: bool) -> None:
    """A link under whose name files would be forbidden to write can't lead to where they are not; others can."""
    refusal = decide_link_target(RULES, f"/out/{name}", target, link_leads_to("/out", target))
    assert (refusal is not None) == refused
    assert refusal is None or refusal.code == "A1101"


@pytest.mark.parametrize(
    ("path", "entry_type", "shown"),
    [
        ("/in/a", 8, True),
        ("/in/l", 10, True),
        ("/in/d", 4, True),
        ("/in/p", 1, False),
        ("/in/s", 12, False),
        ("/in/c", 2, False),
        ("/names/x", 8, True),
        ("/in", 4, True),
        ("/else", 4, False),
        ("/in-file", 8, False),
    ],
)
def test_which_names_a_listing_shows(path: str, entry_type: int, shown: bool) -> None:
    """Covered files, links and directories, and directories on the way; never pipes, sockets or devices."""
    assert may_show(RULES, path, entry_type) == shown


def test_a_refusal_names_rule_and_nearest_grant() -> None:
    """What a person needs to mend a denial is in the refusal."""
    request = parse_open(os.O_RDONLY, 0, 0, False)
    assert isinstance(request, OpenRequest)
    answer = decide_open(policy(("read", "/data/in/**")), request, "/data/x.csv", FILE)
    assert isinstance(answer, Refusal)
    assert answer.errno == errno.EACCES
    assert answer.nearest is not None
    assert "/data/in/**" in answer.nearest


def test_kinds_are_judged_for_names_too() -> None:
    """A directory on a guarded file system holds no names of a component's."""
    refusal = decide_kind(replace(DIRECTORY, special_filesystem="cgroup2"), WRITE, "/x/y", writing=False)
    assert refusal is not None
    assert refusal.code == "A1102"
