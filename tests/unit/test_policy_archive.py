"""Policies are kept by their hash: owner-only, found again, and never believed when they were changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ipc.audit.errors import AuditLogError
from ipc.policy.access import AclEntry, Role
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from supervisor.audit.policy_archive import PolicyNotKeptError, forget_policies, keep_policy, read_policy

DOCUMENT = PolicyDocument(
    component="demo",
    instance="a",
    grants=(
        Grant("filesystem.read", "/in/**", "Component.toml:3"),
        Grant("network.connect", "https://example.com", "Component.toml:4", False, ("GET",)),
    ),
    acl=(AclEntry("*", "filesystem.read", "/srv/**", "deny"),),
    roles=(Role("r", ("filesystem.read:/in/**",), ()),),
    assigned_roles=("r",),
    host_paths=("/var/lib/x", "/undecodable-\udcff"),
    path_directories=("/usr/bin",),
    home_directories=("/home/a",),
)
DIGEST = DOCUMENT.digest()
DAY_NS = 86_400 * 10**9


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """The document comes back as it was, undecodable names included, and keeping it twice is no change."""
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    kept = tmp_path / "policies" / DIGEST
    before = kept.stat()
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    assert read_policy(str(tmp_path), DIGEST) == DOCUMENT
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(kept.parent) == [DIGEST]


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """The directory is 0700 and the file 0600, whatever the umask."""
    previous = os.umask(0)
    try:
        keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    finally:
        os.umask(previous)
    assert (tmp_path / "policies").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "policies" / DIGEST).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["0" * 64, DIGEST[:-1], "../head", "", "x\0y"])
def test_what_is_not_kept_is_told(tmp_path: Path, name: str) -> None:
    """An unknown hash, and what is no hash, is an error of its own that says where was looked."""
    with pytest.raises(PolicyNotKeptError, match="isn't kept in"):
        read_policy(str(tmp_path), name)
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    with pytest.raises(PolicyNotKeptError, match="isn't kept in"):
        read_policy(str(tmp_path), name)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"/in/**", b"/**", 1),
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"instance":"a"', b'"instance":7'),
        lambda data: data.replace(b'"roles"', b'"rolls"'),
    ],
)
def test_a_changed_policy_is_not_believed(tmp_path: Path, change) -> None:
    """Whatever was changed, the hash tells; keeping the real one again mends it."""
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    kept = tmp_path / "policies" / DIGEST
    data = kept.read_bytes()
    kept.write_bytes(change(data))
    with pytest.raises(AuditLogError, match="its hash is another"):
        read_policy(str(tmp_path), DIGEST)
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    assert kept.read_bytes() == data


def test_links_and_fifos_are_not_followed(tmp_path: Path) -> None:
    """A link in place of the directory is refused; a link or FIFO in place of a file is never read through."""
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "policies").symlink_to(tmp_path / "other")
    with pytest.raises(AuditLogError):
        keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    assert os.listdir(tmp_path / "other") == []
    (tmp_path / "policies").unlink()
    (tmp_path / "policies").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "policies" / DIGEST)
    with pytest.raises(AuditLogError):
        read_policy(str(tmp_path), DIGEST)
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    assert read_policy(str(tmp_path), DIGEST) == DOCUMENT


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Where others could put a policy there is none of ours."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies").chmod(0o777)
    with pytest.raises(AuditLogError, match="writable by nobody else"):
        keep_policy(str(tmp_path), DOCUMENT, DIGEST)


def test_a_policy_stays_as_long_as_records_can_name_it(tmp_path: Path) -> None:
    """What was used since the oldest record that is kept stays, with two days more; what wasn't, and debris, goes."""
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    kept = tmp_path / "policies" / DIGEST
    debris = tmp_path / "policies" / f".{DIGEST}-0123"
    debris.write_bytes(b"{")
    (tmp_path / "policies" / "README").write_text("somebody's own")
    now_ns = time.time_ns()
    for path, days in ((kept, 10), (debris, 10), (tmp_path / "policies" / "README", 10)):
        os.utime(path, ns=(now_ns - days * DAY_NS, now_ns - days * DAY_NS))
    assert forget_policies(str(tmp_path), now_ns - 9 * DAY_NS) == 0
    assert forget_policies(str(tmp_path), now_ns - 7 * DAY_NS) == 2
    assert os.listdir(tmp_path / "policies") == ["README"]
    assert forget_policies(str(tmp_path / "none"), now_ns) == 0


def test_use_is_noted(tmp_path: Path) -> None:
    """A policy that is used again after days counts as used now, so it isn't forgotten."""
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    kept = tmp_path / "policies" / DIGEST
    now_ns = time.time_ns()
    os.utime(kept, ns=(now_ns - 100 * DAY_NS, now_ns - 100 * DAY_NS))
    keep_policy(str(tmp_path), DOCUMENT, DIGEST)
    assert kept.stat().st_mtime_ns > now_ns - DAY_NS
    assert forget_policies(str(tmp_path), now_ns) == 0
    assert read_policy(str(tmp_path), DIGEST) == DOCUMENT
