"""An installation that is killed anywhere leaves what was there before, or all of the new."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.packages.directory import copy_directory
from supervisor.packages.installed import ComponentName, Installed
from supervisor.packages.installing import InstallRefusedError, enter
from supervisor.packages.naming import Permitted
from supervisor.packages.provenance import Fetched, Provenance

from .conftest import Installation

MakePackage = Callable[..., Path]
_STEPS = ("mkdir", "open", "write", "fsync", "fchmod", "chmod", "rename", "unlink", "rmdir", "makedirs", "close")


class _Killed:
    """Counts the system calls that an installation makes, and kills its process before one of them."""

    def __init__(self, before: int) -> None:
        self._left = before

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count every call by which this process changes or opens something, SQLite's statements among them."""
        for name in _STEPS:
            setattr(os, name, self._watched(getattr(os, name)))
        connect = sqlite3.connect

        def watched_connect(*arguments: object, **options: object) -> sqlite3.Connection:
            connection = connect(*arguments, **options)  # type: ignore[call-overload]
            assert isinstance(connection, sqlite3.Connection)
            connection.set_trace_callback(lambda _: self.step())
            return connection

        sqlite3.connect = watched_connect  # type: ignore[assignment]

    def _watched(self, call: Callable[..., object]) -> Callable[..., object]:
        def watched(*arguments: object, **options: object) -> object:
            self.step()
            return call(*arguments, **options)

        return watched


def _install_and_die(installation: Installation, source: Path, version: str, before: int) -> bool:
    """Install in a process that is killed before its nth step; whether it got to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            _Killed(before).watch()
            installation.install(source, version=version)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


def test_killed_at_each_step_it_leaves_one_or_the_other(installation: Installation, make_package: MakePackage) -> None:
    """Before each call that it makes: the old version or the new one is active and whole; the next one clears up.

    Control: what isn't killed gets to its end, and there the new one is active.
    """
    old = installation.install(make_package("old"))
    third = make_package("third", **{"p.wasm": "the third"})
    source = make_package("old", **{"p.wasm": "another program"})
    seen: set[str] = set()
    for before in range(500):
        done = _install_and_die(installation, source, "1.1.0", before)
        with installation.registry() as registry:
            active = registry.active(ComponentName("c"))
            assert active is not None
            assert {each.digest for each in registry.named("c")} == {old.digest, active.digest}
        seen.add(active.version)
        installation.store().open(active.digest).close()
        if active.version == "1.1.0":
            if done:
                break
            with installation.registry() as registry:
                registry.activate(old, 1, "uid 0")
                registry.remove([active])
    else:
        raise AssertionError("it never got to its end")
    assert before > 30
    assert seen == {"1.0.0", "1.1.0"}
    last = installation.install(third, version="1.2.0", permitted=Permitted(replace_source=True))
    kept = {old.digest, active.digest, last.digest}
    assert installation.left() == kept | {f"{digest}.files" for digest in kept}


def test_nothing_is_entered_that_is_not_on_record(installation: Installation, make_package: MakePackage) -> None:
    """Where the log can't be written nothing is installed; control: the record is there before the entry is."""
    seen: list[int] = []

    def full(_: AuditEvent) -> None:
        with installation.registry() as registry:
            seen.append(len(registry.all()))
        raise AuditLogError("the log is full", hint="make room")

    broken = replace_record(installation, full)
    with pytest.raises(AuditLogError):
        broken.install(make_package())
    with installation.registry() as registry:
        assert registry.all() == ()
    new = installation.install(make_package())
    event = installation.records[-1]
    assert (event.event, event.component, event.detail and event.detail["package"]) == (
        "component_installed",
        "c",
        new.digest,
    )
    assert seen == [0]


def replace_record(installation: Installation, record: Callable[[AuditEvent], None]) -> Installation:
    """Return the same installation with another log."""

    class _Log(list[AuditEvent]):
        def append(self, event: AuditEvent) -> None:
            record(event)

    return Installation(installation.state, _Log())


def test_the_same_name_from_another_source(installation: Installation, make_package: MakePackage) -> None:
    """A package that is called as another one is refused and put on record; control: with the person's word it may."""
    first = installation.install(make_package("mine"))
    theirs = make_package("theirs", **{"p.wasm": "theirs"})
    with pytest.raises(InstallRefusedError, match="from another source") as caught:
        installation.install(theirs, version="9.0.0")
    assert caught.value.exit_code == 77
    assert (installation.records[-1].event, installation.records[-1].code) == ("component_install_refused", "A3102")
    assert installation.left() == {first.digest, f"{first.digest}.files"}
    second = installation.install(theirs, version="9.0.0", permitted=Permitted(replace_source=True))
    with installation.registry() as registry:
        assert registry.active(ComponentName("c")) == second


def test_a_downgrade(installation: Installation, make_package: MakePackage) -> None:
    """An older version of the same source is refused; control: a newer one isn't, nor is it by a person's word."""
    source = make_package()
    installation.install(source, version="1.1.0")
    make_package(**{"p.wasm": "older"})
    with pytest.raises(InstallRefusedError, match=r"is older than 1\.1\.0"):
        installation.install(source, version="1.0.9")
    installation.install(source, version="1.0.9", permitted=Permitted(allow_downgrade=True))
    make_package(**{"p.wasm": "newer"})
    installation.install(source, version="1.1.1")


def test_what_was_looked_at_is_what_is_replaced(installation: Installation, make_package: MakePackage) -> None:
    """Where another installation came between the look and the entry, nothing is entered."""
    source = make_package()
    old = installation.install(source)
    make_package(**{"p.wasm": "second"})
    second = installation.install(source, version="1.1.0")
    make_package(**{"p.wasm": "third"})
    store = installation.store()
    with store.incoming() as incoming, installation.registry() as registry:
        contents = copy_directory(str(source), incoming)
        fetched = Fetched(contents, b"", Provenance("directory", str(source)))
        new: Installed = replace(second, version="1.2.0", digest=contents.digest)
        with pytest.raises(ConfigError, match="meanwhile"):
            enter(store, registry, incoming, fetched, new, Permitted(), old, installation.records.append)
        assert registry.active(new.called) == second
        enter(store, registry, incoming, fetched, new, Permitted(), second, installation.records.append)
        assert registry.active(new.called) == new
