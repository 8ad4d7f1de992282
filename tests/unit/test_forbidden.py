"""Forbidden and guarded paths: no grant reaches them, and each table entry is effective."""

import pytest

from ipc.policy import forbidden_paths as lists
from ipc.policy.capability import Grant, path_segments
from ipc.policy.decision import (
    Allow,
    Deny,
    Policy,
    PolicyDocument,
    compile_policy,
    forbidden_objects,
    write_forbidden_objects,
)
from ipc.policy.forbidden import GUARDED_TREES, ForbiddenPaths, fold_segments
from ipc.policy.patterns import Malformed, parse_pattern

EVERYTHING = tuple(
    Grant(f"filesystem.{verb}", pattern, "test") for verb in ("read", "write", "list") for pattern in ("/", "/**")
)
ALL_RIGHTS = frozenset(("read", "write", "list"))
HOST = PolicyDocument(
    "c",
    "",
    grants=EVERYTHING,
    host_paths=("/srv/airssys/state", "/srv/airssys.toml"),
    path_directories=("/opt/tools/bin", ".", "/", "/opt/more/bin/"),
    home_directories=("/home/me",),
)


@pytest.fixture(scope="module")
def policy() -> Policy:
    """A policy that grants everything."""
    return compile_policy(HOST)


def example_of(pattern: str) -> str:
    """A path that a table pattern matches."""
    filled = pattern.replace("/**/", "/x/").replace("[0-9]", "1").replace("*", "x")
    return filled if filled.startswith("/") else f"/home/me/{filled}"


def test_ordinary_files_are_untouched(policy: Policy) -> None:
    """The positive control: what is not on a list has all the rights granted."""
    for path in ("/home/me/data.csv", "/srv/app/.env", "/tmp/x", "/home/me/ssh/x", "/opt/tools/lib/y", "/x.git/y"):
        assert policy.rights(path) == ALL_RIGHTS


@pytest.mark.parametrize("text", [text for text, _ in (*lists.FORBIDDEN_AT, *lists.FORBIDDEN_ANYWHERE)])
def test_every_forbidden_entry_refuses(policy: Policy, text: str) -> None:
    """Each entry of the tables refuses its object, what lies beneath a directory, and in any case of letters."""
    path = example_of(text).rstrip("/")
    for name in (path, path.upper(), *((f"{path}/deep/er",) if text.endswith("/") else ())):
        assert policy.rights(name) == frozenset(), name
        assert not policy.reaches(name)
        decision = policy.decide("filesystem.read", name)
        assert isinstance(decision, Deny)
        assert decision.code == "A1101"
        assert decision.rule.startswith("forbidden ")


@pytest.mark.parametrize("text", [text for text, _ in (*lists.WRITE_FORBIDDEN_AT, *lists.WRITE_FORBIDDEN_ANYWHERE)])
def test_every_entry_that_forbids_writing_refuses(policy: Policy, text: str) -> None:
    """Each entry for writing refuses writing; most leave reading alone."""
    path = example_of(text).rstrip("/")
    for name in (path, path.upper(), *((f"{path}/deep/er",) if text.endswith("/") else ())):
        decision = policy.decide("filesystem.write", name)
        assert isinstance(decision, Deny), name
        assert decision.code == "A1101"
        assert "write" not in policy.rights(name)


@pytest.mark.parametrize(
    "path", ["/usr/share/x", "/etc/hosts", "/home/me/.bashrc", "/p/.git/config", "/home/me/.vimrc"]
)
def test_forbidden_to_write_may_be_read(policy: Policy, path: str) -> None:
    """Start-up files and system files can be read if that was granted."""
    assert policy.rights(path) == frozenset(("read", "list"))


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/.ssh",
        "/home/me/.ssh/id_ed25519",
        "/home/me/backup/.ssh/config",
        "/home/me/.SSH/config",
        "/home/me/.\u017f\u017fh/config",  # long s folds to s
        "/home/me/.\u212aube/config",  # the Kelvin sign folds to k
        "/root/.gnupg/private-keys-v1.d/x",
        "/home/me/.config/google-chrome/Default/Cookies",
        "/home/me/.mozilla/firefox/p/logins.json",
        "/home/me/keys/id_rsa",
        "/etc/shadow",
        "/etc/shadow-",
        "/proc/1/mem",
        "/proc/4711",
        "/proc/self/environ",
        "/proc/thread-self/mem",
        "/dev/mem",
        "/run/user/1000/bus",
        "/srv/airssys/state",
        "/srv/airssys/state/audit/1.jsonl",
        "/srv/airssys.toml",
    ],
)
def test_a_deeper_grant_does_not_evade(path: str) -> None:
    """Naming the forbidden object itself, its directory or its parent as a grant changes nothing."""
    parent = path.rsplit("/", 1)[0]
    grants = tuple(Grant("filesystem.read", text, "t") for text in (path, f"{path}/", f"{path}/**", f"{parent}/*"))
    granted = compile_policy(
        PolicyDocument("c", "", grants=grants, host_paths=HOST.host_paths, guarded_lifted=(path, parent))
    )
    decision = granted.decide("filesystem.read", path)
    assert isinstance(decision, Deny)
    assert decision.code == "A1101"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/opt/tools/bin/ls", False),
        ("/opt/tools/bin", False),
        ("/opt/more/bin/x/y", False),
        ("/opt/tools/bins", True),
        ("/opt/x", True),
        ("/x", True),
    ],
)
def test_directories_of_path_are_not_written(policy: Policy, path: str, allowed: bool) -> None:
    """Where programs are started from, nothing is written; `.` and `/` in PATH don't forbid everything."""
    assert ("write" in policy.rights(path)) is allowed
    assert "read" in policy.rights(path)


@pytest.mark.parametrize(
    "path",
    ["/proc", "/proc/cpuinfo", "/proc/sys/vm/swappiness", "/sys/class/net", "/dev/null", "/boot/vmlinuz", "/dev"],
)
def test_guarded_paths_are_lifted_exactly(path: str) -> None:
    """A guarded path is refused (A1102), and lifted by its exact path only; a grant is needed as well."""
    guarded = compile_policy(PolicyDocument("c", "", grants=EVERYTHING))
    decision = guarded.decide("filesystem.read", path)
    assert isinstance(decision, Deny)
    assert decision.code == "A1102"
    assert not guarded.reaches(path)

    lifted = compile_policy(PolicyDocument("c", "", grants=EVERYTHING, guarded_lifted=(path,)))
    assert isinstance(lifted.decide("filesystem.read", path), Allow)
    assert lifted.reaches(path)
    beneath = lifted.decide("filesystem.read", f"{path}/zz")
    assert isinstance(beneath, Deny)
    assert beneath.code == "A1102"

    ungranted = compile_policy(PolicyDocument("c", "", guarded_lifted=(path,)))
    assert isinstance(ungranted.decide("filesystem.read", path), Deny)


def test_the_way_to_a_lifted_path_is_reached() -> None:
    """The directories above a lifted file may be held as handles, with no right on them."""
    lifted = compile_policy(PolicyDocument("c", "", grants=EVERYTHING, guarded_lifted=("/proc/sys/vm/swappiness",)))
    assert lifted.reaches("/proc/sys/vm")
    assert lifted.rights("/proc/sys/vm") == frozenset()
    assert not lifted.reaches("/proc/sys/fs")


def test_concrete_paths() -> None:
    """The objects to recognise by inode: fixed ones, the host's own, and those in home directories, as spelled."""
    found = forbidden_objects(HOST)
    assert {"/etc/sudoers.d", "/srv/airssys/state"} <= set(found.paths)
    assert {".ssh", ".Xauthority"} <= set(found.in_homes)
    assert "/home/me" in found.homes
    assert list(found.paths) == sorted(set(found.paths))
    assert not any(set(path) & set("*?[") or path.endswith("/") for path in (*found.paths, *found.in_homes))
    writing = write_forbidden_objects(HOST)
    assert {"/usr", "/opt/tools/bin", "/opt/more/bin"} <= set(writing.paths)
    assert {".bashrc", ".config/autostart"} <= set(writing.in_homes)
    assert "/" not in (*writing.paths, *writing.homes)
    assert "." not in (*writing.paths, *writing.homes)


@pytest.mark.parametrize("writing", [False, True])
def test_the_quick_test_misses_nothing(writing: bool) -> None:
    """The condition that spares most paths a closer look agrees with the patterns themselves."""
    rules = [parse_pattern(text.casefold()) for text, _ in lists.FORBIDDEN_AT]
    rules += [parse_pattern(f"/**/{text}".casefold()) for text, _ in lists.FORBIDDEN_ANYWHERE]
    if writing:
        rules += [parse_pattern(text.casefold()) for text, _ in lists.WRITE_FORBIDDEN_AT]
        rules += [parse_pattern(f"/**/{text}".casefold()) for text, _ in lists.WRITE_FORBIDDEN_ANYWHERE]
    forbidden = ForbiddenPaths()
    names = sorted({part for rule in rules for part in example_of(rule.text).split("/") if part})
    for first in ("etc", "home", "proc", "p"):
        for name in names:
            path = f"/{first}/{name}/x"
            segments = path_segments(path)
            assert not isinstance(segments, Malformed)
            refusal = forbidden.find(path, segments, fold_segments(segments, path), writing)
            expected = any(rule.matches(path.casefold()) for rule in rules) or f"/{first}" in GUARDED_TREES
            assert (refusal is not None) is expected, path


def test_what_one_policy_lifts_is_lifted_in_no_other() -> None:
    """Tables are compiled once: of policies that differ in what is lifted, or in the host's paths, each has its own."""
    path = "/proc/sys/vm/swappiness"
    for _ in range(3):
        lifted = compile_policy(PolicyDocument("c", "", grants=EVERYTHING, guarded_lifted=(path,)))
        plain = compile_policy(PolicyDocument("c", "", grants=EVERYTHING))
        host = compile_policy(PolicyDocument("c", "", grants=EVERYTHING, host_paths=("/srv/own",)))
        assert isinstance(lifted.decide("filesystem.read", path), Allow)
        assert isinstance(plain.decide("filesystem.read", path), Deny)
        assert isinstance(host.decide("filesystem.read", path), Deny)
        assert isinstance(host.decide("filesystem.read", "/srv/own/key"), Deny)
        assert isinstance(plain.decide("filesystem.read", "/srv/own/key"), Allow)
