"""Whose files are touched: never root's, whatever is asked; and a uid of its own for each worker."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.host import identity
from supervisor.host.identity import NOBODY, WORKER_UID_BASE, WORKER_UID_COUNT, resolve_run_as, worker_uid

ORDINARY = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, NOBODY) and entry.pw_gid != 0)


def test_root_becomes_nobody() -> None:
    """Root without sudo and without a wish gets nobody."""
    found = resolve_run_as(None, 0, {})
    assert (found.uid, found.name) == (NOBODY, pwd.getpwuid(NOBODY).pw_name)


def test_sudo_becomes_its_caller() -> None:
    """Under sudo the files are the caller's, with the caller's own groups."""
    found = resolve_run_as(None, 0, {"SUDO_UID": str(ORDINARY.pw_uid)})
    assert (found.uid, found.gid, found.name) == (ORDINARY.pw_uid, ORDINARY.pw_gid, ORDINARY.pw_name)
    assert found.groups


@pytest.mark.parametrize("sudo_uid", ["0", "00", "", "-1", "x", "1 ", "²", "+5"])
def test_a_sudo_uid_that_is_none_is_not_followed(sudo_uid: str) -> None:
    """root's own sudo, and what isn't a number, fall back to nobody."""
    assert resolve_run_as(None, 0, {"SUDO_UID": sudo_uid}).uid == NOBODY


@pytest.mark.parametrize("asked", [ORDINARY.pw_name, str(ORDINARY.pw_uid)])
def test_root_may_name_a_user(asked: str) -> None:
    """By name or by number, and without group 0."""
    found = resolve_run_as(asked, 0, {"SUDO_UID": "65534"})
    assert (found.uid, found.gid) == (ORDINARY.pw_uid, ORDINARY.pw_gid)
    assert 0 not in found.groups


@pytest.mark.parametrize("asked", ["0", "00", "root"])
def test_never_root(asked: str) -> None:
    """Root can't be asked for, in any spelling."""
    with pytest.raises(ConfigError, match="never touched as root"):
        resolve_run_as(asked, 0, {})


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, 2**64, 10**40])
def test_no_number_that_the_kernel_takes_for_another(uid: int) -> None:
    """setresuid(2) reads 2**32 - 1 as "unchanged" and larger numbers cut: both would leave root as it is."""
    for asked, environment in ((str(uid), {}), (None, {"SUDO_UID": str(uid)})):
        with pytest.raises(ConfigError, match="no such uid"):
            resolve_run_as(asked, 0, environment)


@pytest.mark.parametrize("uid", [WORKER_UID_BASE, WORKER_UID_BASE + WORKER_UID_COUNT - 1])
def test_no_uid_of_a_worker(uid: int) -> None:
    """Files are never touched as a uid that some worker has."""
    with pytest.raises(ConfigError, match="range that workers get"):
        resolve_run_as(str(uid), 0, {})
    assert resolve_run_as(str(WORKER_UID_BASE - 1), 0, {}).uid == WORKER_UID_BASE - 1


@pytest.mark.parametrize("asked", ["no-such-user-here", "", "²", "-1"])
def test_an_unknown_user(asked: str) -> None:
    """A name that nobody has is an error."""
    with pytest.raises(ConfigError, match="no such user"):
        resolve_run_as(asked, 0, {})


def test_a_uid_without_an_entry() -> None:
    """A number that no entry names is that uid and the gid of the same number."""
    free = next(n for n in range(61_000, 65_000) if not _known(n))
    found = resolve_run_as(str(free), 0, {})
    assert (found.uid, found.gid, found.groups) == (free, free, (free,))


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@pytest.mark.parametrize("asked", [None, ORDINARY.pw_name, str(ORDINARY.pw_uid)])
def test_an_ordinary_user_is_itself(asked: str | None) -> None:
    """Without root it is the invoking user, SUDO_UID or not."""
    assert resolve_run_as(asked, ORDINARY.pw_uid, {"SUDO_UID": "0"}).uid == ORDINARY.pw_uid


@pytest.mark.parametrize("asked", ["root", "0", "nobody", "no-such-user-here"])
def test_an_ordinary_user_can_not_be_another(asked: str) -> None:
    """Only root can run as somebody else."""
    with pytest.raises(ConfigError, match="only root can"):
        resolve_run_as(asked, ORDINARY.pw_uid, {})


def test_group_root_is_not_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is in group 0 touches files without it."""
    monkeypatch.setattr(identity.os, "getgrouplist", lambda *_: [ORDINARY.pw_gid, 0, 50])
    assert resolve_run_as(ORDINARY.pw_name, 0, {}).groups == (ORDINARY.pw_gid, 50)


def test_workers_have_uids_of_their_own(tmp_path: Path) -> None:
    """While held, a uid isn't given twice; afterwards it is free again; nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(worker_uid(str(tmp_path))) for _ in range(5)]
        assert held == list(range(WORKER_UID_BASE, WORKER_UID_BASE + 5))
    with worker_uid(str(tmp_path)) as uid:
        assert uid == WORKER_UID_BASE
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_uid_is_freed_by_an_error(tmp_path: Path) -> None:
    """A run that fails gives its uid back."""
    with pytest.raises(KeyError), worker_uid(str(tmp_path)):
        raise KeyError
    with worker_uid(str(tmp_path)) as uid:
        assert uid == WORKER_UID_BASE


def test_when_all_uids_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none left the run is refused; two workers never share one."""
    monkeypatch.setattr(identity, "WORKER_UID_COUNT", 2)
    with (
        worker_uid(str(tmp_path)),
        worker_uid(str(tmp_path)),
        pytest.raises(ConfigError, match="worker uids are in use"),
        worker_uid(str(tmp_path)),
    ):
        pytest.fail("a third uid was given")
