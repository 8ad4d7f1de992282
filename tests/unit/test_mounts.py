"""What is mounted at several places is denied at each of them."""

from __future__ import annotations

import pytest

from ipc.policy.access import AclEntry
from ipc.policy.capability import Grant
from ipc.policy.decision import Allow, PolicyDocument, compile_policy
from supervisor.host.mounts import Mount, other_names, parse_mounts, read_mounts, under_all_names

ROOT = Mount("8:1", "/", "/")
TMP = Mount("0:30", "/", "/tmp")
OF_HOME = Mount("8:1", "/home/me", "/work")
OF_STATE = Mount("8:1", "/home/me/state/grants", "/mnt/a b")
OF_ETC = Mount("8:1", "/etc", "/config")
MOUNTS = (ROOT, TMP, OF_HOME, OF_STATE, OF_ETC)
INFO = """24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 24 0:30 / /tmp rw - tmpfs tmpfs rw
31 24 8:1 /home/me /work rw,relatime shared:1 - ext4 /dev/sda1 rw
32 24 8:1 /home/me/state/grants /mnt/a\\040b rw - ext4 /dev/sda1 rw
33 24 8:1 /etc /config rw - ext4 /dev/sda1 rw
"""


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    """With what it escapes; none of them matters where each file system is mounted once."""
    assert parse_mounts(INFO) == MOUNTS
    assert parse_mounts("\n".join(INFO.splitlines()[:2])) == ()
    assert parse_mounts("garbage\n\n1 2 3\n") == ()
    assert all(each.point.startswith("/") for each in read_mounts())


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/home/me/state", [("/work/state", ""), ("/mnt/a b", "grants")]),
        ("/home/me", [("/work", ""), ("/mnt/a b", "state/grants")]),
        ("/work/state/grants/x", [("/home/me/state/grants/x", ""), ("/mnt/a b/x", "")]),
        ("/home/you", []),
        ("/home/me-too", []),
        ("/tmp/home/me", []),
        ("/mnt/a b/c", [("/home/me/state/grants/c", ""), ("/work/state/grants/c", "")]),
    ],
)
def test_other_names(path: str, others: list[tuple[str, str]]) -> None:
    """Of a place, of what lies in it, from whichever of its names; nothing of another file system."""
    assert list(other_names(path, MOUNTS)) == others


def _document() -> PolicyDocument:
    everything = tuple(Grant(f"filesystem.{right}", "/**", "test") for right in ("read", "write"))
    denials = (AclEntry("*", "filesystem.write", "/home/me/plugins/*/", "deny", "trusted"),)
    return PolicyDocument(
        "c", "", everything, acl=denials, host_paths=("/home/me/state",), path_directories=("/home/me/bin",)
    )


@pytest.mark.parametrize(
    ("action", "path"),
    [
        ("filesystem.read", "/work/state/grants/key"),
        ("filesystem.write", "/mnt/a b/key"),
        ("filesystem.write", "/work/plugins/csv/Component.toml"),
        ("filesystem.write", "/work/bin/tool"),
        ("filesystem.read", "/config/letsencrypt/live/x/privkey.pem"),
        ("filesystem.read", "/config/shadow-"),
        ("filesystem.write", "/config/hostname"),
    ],
)
def test_what_is_denied_is_denied_by_each_name(action: str, path: str) -> None:
    """The host's own, trusted places, programs, forbidden places; without another mount it is another place."""
    document = _document()
    denied = compile_policy(under_all_names(document, MOUNTS)).decide(action, path)
    assert not isinstance(denied, Allow), path
    assert isinstance(compile_policy(under_all_names(document, (ROOT, TMP))).decide(action, path), Allow)
    assert under_all_names(document, ()) == document
    assert isinstance(compile_policy(under_all_names(document, MOUNTS)).decide("filesystem.read", "/config/x"), Allow)
    elsewhere = compile_policy(under_all_names(document, MOUNTS)).decide("filesystem.write", "/work/own/x")
    assert isinstance(elsewhere, Allow), "only what is denied"


def test_a_subtree_that_is_mounted_elsewhere_is_denied_where_a_pattern_covers_it() -> None:
    """A component's directory alone, bound elsewhere, is no other place either; what no denial covers is."""
    mounts = (ROOT, Mount("8:1", "/home/me/plugins/csv", "/one"), Mount("8:1", "/home/me/other", "/two"))
    policy = compile_policy(under_all_names(_document(), mounts))
    assert not isinstance(policy.decide("filesystem.write", "/one/Component.toml"), Allow)
    assert isinstance(policy.decide("filesystem.write", "/two/x"), Allow)
