"""The store of packages: what is in it is what was installed, or it isn't given out."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.packages.contents import PackageError
from supervisor.packages.directory import copy_directory, read_directory
from supervisor.packages.store import InUseError, PackageStore, StoredPackage, StoreRefusedError

from .conftest import Installation

MakePackage = Callable[..., Path]


def _opened(installation: Installation, digest: str, unread: tuple[str, ...] = ()) -> str:
    package = installation.store().open(digest, unread)
    package.close()
    return package.directory


def _writable(path: Path) -> Path:
    """Let its owner change it, as somebody who edits the store would."""
    os.chmod(path, 0o700 if path.is_dir() else 0o600)
    return path


def test_what_is_kept_is_whole_and_read_only(installation: Installation, make_package: MakePackage) -> None:
    """A package's files and no other, nothing of them writable, and its digest is its name."""
    new = installation.install(make_package())
    directory = _opened(installation, new.digest)
    assert os.path.basename(directory) == new.digest
    assert read_directory(directory).digest == new.digest
    for top, _, names in os.walk(directory):
        assert stat.S_IMODE(os.stat(top).st_mode) == 0o555
        assert all(stat.S_IMODE(os.stat(os.path.join(top, name)).st_mode) == 0o444 for name in names)
    assert installation.left() == {new.digest, f"{new.digest}.files"}
    mode = stat.S_IMODE(os.stat(installation.packages).st_mode)
    assert mode == (0o711 if os.getuid() == 0 else 0o700)


def _edit(package: Path) -> None:
    _writable(package / "p.wasm").write_text("PROGRAM")


def _grow(package: Path) -> None:
    _writable(package / "data/a.txt").write_text("aa")


def _add(package: Path) -> None:
    (_writable(package) / "more").write_text("")


def _take_away(package: Path) -> None:
    (_writable(package / "data") / "a.txt").unlink()


def _link(package: Path) -> None:
    (_writable(package / "data") / "a.txt").unlink()
    (package / "data/a.txt").symlink_to("/etc/hostname")


def _link_directory(package: Path) -> None:
    _writable(package).rename(package.parent / "elsewhere")
    package.symlink_to("elsewhere")


def _remove(package: Path) -> None:
    _writable(package).rename(package.parent / "elsewhere")


def _open_to_all(package: Path) -> None:
    os.chmod(package, 0o777)


def _other_statement(package: Path) -> None:
    statement = package.parent / f"{package.name}.files"
    _writable(statement).write_bytes(statement.read_bytes().replace(b" 1 data/a.txt", b" 2 data/a.txt"))


def _no_statement(package: Path) -> None:
    (package.parent / f"{package.name}.files").unlink()


_CHANGES = {
    "edit": (_edit, "p.wasm holds something else"),
    "grow": (_grow, "data/a.txt has another size"),
    "add": (_add, "more is no part of it"),
    "take away": (_take_away, "data/a.txt is missing"),
    "link": (_link, "data/a.txt: a symbolic link"),
    "linked directory": (_link_directory, "a link in place of the package"),
    "removed": (_remove, "no such file or directory"),
    "mode 0777": (_open_to_all, "that nobody else can write to"),
    "other statement": (_other_statement, "it is another package's"),
    "no statement": (_no_statement, "no such file or directory"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_changed_package_is_refused(installation: Installation, make_package: MakePackage, change: str) -> None:
    """Each change of the store is found and named before anything is used; control: it is opened before the change.

    Installed again, it is whole again.
    """
    source = make_package()
    new = installation.install(source)
    directory = Path(_opened(installation, new.digest))
    make, words = _CHANGES[change]
    make(directory)
    with pytest.raises(StoreRefusedError, match=words) as caught:
        _opened(installation, new.digest)
    assert caught.value.exit_code == 77
    assert str(directory) in caught.value.message
    installation.install(source)
    assert read_directory(_opened(installation, new.digest)).digest == new.digest


def test_what_is_left_unread_has_its_size(installation: Installation, make_package: MakePackage) -> None:
    """A file whose bytes its user compares is looked at all the same: its place, its kind and its size."""
    new = installation.install(make_package())
    directory = Path(_opened(installation, new.digest))
    _edit(directory)
    _opened(installation, new.digest, ("p.wasm",))
    (directory / "p.wasm").write_text("more than it was")
    with pytest.raises(StoreRefusedError, match=r"p\.wasm has another size"):
        _opened(installation, new.digest, ("p.wasm",))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o703])
def test_a_store_that_others_can_write_to_is_refused(installation: Installation, mode: int) -> None:
    """Control: the same store with its own mode."""
    installation.store()
    os.chmod(installation.packages, mode)
    with pytest.raises(StoreRefusedError, match="nobody else can write to"):
        installation.store()
    os.chmod(installation.packages, 0o700)
    installation.store()


def test_a_link_is_no_store(installation: Installation, tmp_path: Path) -> None:
    """Whoever can put a link there would choose what is run."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.symlink(tmp_path / "elsewhere", installation.packages)
    with pytest.raises(StoreRefusedError):
        installation.store()


def test_what_was_refused_leaves_nothing(installation: Installation, make_package: MakePackage) -> None:
    """A source that is no package: nothing of it stays."""
    source = make_package()
    (source / "link").symlink_to("/etc/hostname")
    with pytest.raises(PackageError):
        installation.install(source)
    assert installation.left() == set()


def test_the_same_bytes_twice_at_once(installation: Installation, make_package: MakePackage) -> None:
    """Two that install one package at the same time both succeed, and there is one of it."""
    sources = [make_package(name) for name in ("one", "two")]
    barrier = threading.Barrier(2)

    def put(source: Path) -> None:
        store = installation.store()
        with store.incoming() as incoming:
            contents = copy_directory(str(source), incoming)
            barrier.wait(30)
            with store.locked():
                store.keep(incoming, contents)

    threads = [threading.Thread(target=put, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    digest = read_directory(str(sources[0])).digest
    assert installation.left() == {digest, f"{digest}.files"}
    _opened(installation, digest)


def test_an_installation_under_way_is_left_alone(installation: Installation, make_package: MakePackage) -> None:
    """The next one removes what a killed one left, and not what one under way has written so far."""
    store = installation.store()
    with store.incoming() as incoming:
        copy_directory(str(make_package()), incoming)
        left = Path(installation.packages) / "new.0123456789abcdef"
        left.mkdir(mode=0o500)
        Path(installation.packages, "new.file").write_text("")
        with store.incoming():
            assert not left.exists()
            assert os.path.exists(os.path.join(incoming, "p.wasm"))
    assert installation.left() == set()


def test_what_runs_is_not_removed(installation: Installation, make_package: MakePackage) -> None:
    """A package that somebody holds stays; control: it goes once nobody holds it."""
    new = installation.install(make_package())
    store = installation.store()
    package = store.open(new.digest)
    with store.locked(), pytest.raises(InUseError):
        store.remove(new.digest)
    with store.locked():
        store.clear(frozenset())
    _opened(installation, new.digest)
    package.close()
    with store.locked():
        store.remove(new.digest)
    assert installation.left() == set()


def test_who_may_read_a_package_holds_nobody_up(installation: Installation, make_package: MakePackage) -> None:
    """Others may open root's packages, and so lock them; what a start holds against removal they can't open."""
    new = installation.install(make_package())
    store = installation.store()
    stranger = os.open(store.path(new.digest), os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    opened: list[StoredPackage] = []
    start = threading.Thread(target=lambda: opened.append(store.open(new.digest)), daemon=True)
    start.start()
    start.join(10)
    held_up = start.is_alive()
    os.close(stranger)
    start.join()
    assert not held_up
    statement = os.stat(f"{store.path(new.digest)}.files")
    assert stat.S_IMODE(statement.st_mode) == 0o400
    assert store.is_used(new.digest)
    opened[0].close()
    assert not store.is_used(new.digest)
    installation.install(make_package())
    assert os.stat(f"{store.path(new.digest)}.files").st_ino == statement.st_ino, "whoever runs it still holds it"


def test_root_of_nothing(tmp_path: Path) -> None:
    """A file in the place of the store is told, and nothing is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="file exists"):
        PackageStore(str(tmp_path / "file"))
