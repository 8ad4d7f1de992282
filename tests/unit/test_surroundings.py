"""What a policy is told of this host: where programs are started from, and where people keep their keys."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from ipc.policy.capability import Grant
from ipc.policy.decision import Deny, PolicyDocument, compile_policy
from supervisor.host import surroundings
from supervisor.host.surroundings import home_directories, path_directories

ROOT = Path(__file__).resolve().parents[2]


def test_directories_of_path_are_absolute_and_real(tmp_path: Path) -> None:
    """Relative and empty entries say nothing; a symbolic link is told together with what it leads to."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "link").symlink_to("bin")
    found = path_directories({"PATH": f"{tmp_path}/link/::bin:{tmp_path}/bin/../bin"})
    assert f"{tmp_path}/link" in found
    assert f"{tmp_path}/bin" in found
    assert not any(not path.startswith("/") or ".." in path for path in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("place", [ROOT / "ipc", ROOT / "worker/filters", ROOT / "supervisor/cli", Path(sys.prefix)])
def test_a_component_can_not_write_where_we_are(place: Path) -> None:
    """Whatever is granted: our packages and what is installed for us are read-only; a neighbour of theirs is not."""
    document = PolicyDocument(
        "c",
        "",
        grants=(
            Grant("filesystem.write", f"{ROOT}/**", "the test"),
            Grant("filesystem.read", f"{ROOT}/**", "the test"),
        ),
        path_directories=path_directories({}),
    )
    policy = compile_policy(document)
    refused = policy.decide("filesystem.write", f"{place}/evil.py")
    assert isinstance(refused, Deny)
    assert refused.code == "A1101"
    assert not isinstance(policy.decide("filesystem.read", f"{ROOT}/ipc/errors.py"), Deny)
    assert not isinstance(policy.decide("filesystem.write", f"{ROOT}/examples/out.txt"), Deny)


def _entry(uid: int, home: str) -> pwd.struct_passwd:
    return pwd.struct_passwd(("name", "x", uid, uid, "", home, "/bin/sh"))


def test_homes_of_daemons_in_the_systems_trees_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/usr/sbin` of a daemon is nobody's home; a person's is one wherever it lies, and so is $HOME."""
    entries = [_entry(2, "/usr/sbin"), _entry(1000, "/usr/lib"), _entry(3, "/dev"), _entry(4, "/var")]
    monkeypatch.setattr(surroundings.pwd, "getpwall", lambda: entries)
    monkeypatch.setenv("HOME", "/usr/share")
    assert set(home_directories()) == {
        os.path.realpath("/usr/lib"),
        os.path.realpath("/usr/share"),
        os.path.realpath("/var"),
    }
