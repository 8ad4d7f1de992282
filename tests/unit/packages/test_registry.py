"""The registry: what a name means, and that nobody has changed it by hand."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from ipc.struct import replace
from supervisor.packages.installed import ComponentName, Installed
from supervisor.packages.provenance import Provenance
from supervisor.packages.registry import FILE, HISTORY_MAX, Registry, RegistryError

ONE = Installed(
    "c", "", "1.0.0", "1" * 64, "c.wasm", Provenance("directory", "/srv/c"), "/srv/c", ("ssh-ed25519 A",), 5, "uid 1"
)
TWO = replace(ONE, version="1.1.0", digest="2" * 64, installed_ns=6)
NAME = ComponentName("c")


@pytest.fixture
def state(tmp_path: Path) -> str:
    """Two versions of one component and an instance, the newer version active."""
    path = str(tmp_path / "state")
    with Registry(path) as registry:
        registry.add(ONE, b"signatures")
        registry.add(TWO, b"")
        registry.add(replace(ONE, instance="acme"), b"")
    return path


def test_it_is_what_was_entered(state: str) -> None:
    """Every field comes back, and who is active is the last one entered."""
    with Registry(state) as registry:
        assert registry.all() == (ONE, TWO, replace(ONE, instance="acme"))
        assert registry.named("c") == registry.all()
        assert registry.named("d") == ()
        assert registry.active(NAME) == TWO
        assert registry.active(ComponentName("c", "acme")) == replace(ONE, instance="acme")
        assert registry.active(ComponentName("c", "other")) is None
        assert (registry.signatures(ONE), registry.signatures(TWO)) == (b"signatures", b"")
        assert [each.digest for each in registry.history(NAME)] == [ONE.digest, TWO.digest]
    assert os.stat(os.path.join(state, FILE)).st_mode & 0o777 == 0o600


def test_going_back_is_another_activation(state: str) -> None:
    """What a name means changes; what is installed doesn't."""
    with Registry(state) as registry:
        registry.activate(ONE, 9, "uid 2")
        assert registry.active(NAME) == ONE
        assert registry.history(NAME)[-1].by == "uid 2"
        assert len(registry.all()) == 3
        with pytest.raises(RegistryError, match="removed meanwhile"):
            registry.activate(replace(ONE, digest="3" * 64), 9, "uid 2")


def test_the_same_package_entered_again_has_its_new_facts(state: str) -> None:
    """One row for one package under one name."""
    with Registry(state) as registry:
        registry.add(replace(TWO, source="/elsewhere"), b"new")
        assert registry.active(NAME) == replace(TWO, source="/elsewhere")
        assert registry.signatures(TWO) == b"new"
        assert len(registry.named("c")) == 3


def test_what_is_removed_is_named_if_nothing_else_means_it(state: str) -> None:
    """A digest that another instance has stays."""
    with Registry(state) as registry:
        assert registry.remove([TWO]) == {TWO.digest}
        assert registry.active(NAME) == ONE
        assert registry.remove([ONE]) == frozenset()
        assert registry.active(NAME) is None
        assert registry.remove([replace(ONE, instance="acme")]) == {ONE.digest}
        assert registry.all() == ()


def test_the_history_is_bounded(state: str) -> None:
    """The last activations are kept, and not all that ever were."""
    with Registry(state) as registry:
        for number in range(HISTORY_MAX + 5):
            registry.activate((ONE, TWO)[number % 2], number, "uid 1")
        assert len(registry.history(NAME)) == HISTORY_MAX


_EDITS = {
    "another version is made active": "UPDATE activated SET digest = (SELECT digest FROM activated WHERE id = 1) "
    "WHERE id = 2",
    "another package": "UPDATE installed SET digest = substr(digest, 2) || 'f'",
    "another origin": "UPDATE installed SET facts = replace(facts, '/srv/c', '/srv/d')",
    "another signer": "UPDATE installed SET facts = replace(facts, 'ssh-ed25519 A', 'ssh-ed25519 B')",
    "other signatures": "UPDATE installed SET signatures = x'00'",
    "a newer version is taken out": "DELETE FROM activated WHERE id = 2",
    "a version is taken out": "DELETE FROM installed WHERE version = '1.0.0'",
    "a row is copied": "INSERT INTO activated (name, instance, digest, at_ns, by, seal) "
    "SELECT name, instance, digest, at_ns, by, seal FROM activated WHERE id = 1",
    "the order is turned": "UPDATE activated SET id = 9 WHERE id = 1",
    "the seal is taken out": "DELETE FROM sealed",
    "a column holds bytes that are no text": "UPDATE installed SET facts = CAST(x'ff' AS TEXT)",
    "a table is gone": "DROP TABLE activated",
}


def _read_all(registry: Registry) -> None:
    for each in registry.all():
        registry.active(each.called)


@pytest.mark.parametrize("edit", _EDITS)
def test_an_edited_registry_is_refused(state: str, edit: str) -> None:
    """Each change by hand is found by whoever reads what was changed, and by whoever writes anything at all.

    Control: before the change it is read and written.
    """
    with Registry(state) as registry:
        _read_all(registry)
        registry.add(TWO, b"")
        with sqlite3.connect(os.path.join(state, FILE)) as database:
            database.execute(_EDITS[edit])
        database.close()
        for act in (lambda: _read_all(registry), lambda: registry.add(TWO, b"")):
            with pytest.raises(RegistryError) as caught:
                act()
            assert caught.value.exit_code == 73
            assert FILE in caught.value.message


@pytest.mark.parametrize("where", [0, 100, 5000, 9000])
def test_a_damaged_file_is_refused(state: str, where: int) -> None:
    """Garbage in the file is an error of one line, whatever it hits, or hits nothing that is used."""
    path = Path(state, FILE)
    data = bytearray(path.read_bytes())
    data[where : where + 200] = b"\xa5" * 200
    path.write_bytes(data)
    try:
        with Registry(state) as registry:
            found = registry.all()
    except RegistryError:
        return
    assert found == (ONE, TWO, replace(ONE, instance="acme"))


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\0" + b"\0" * 84])
def test_another_file_is_refused_or_begun(tmp_path: Path, content: bytes) -> None:
    """An empty file is a new registry; anything else is told."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    descriptor = os.open(state / FILE, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, content)
    os.close(descriptor)
    if not content:
        with Registry(str(state)) as registry:
            assert registry.all() == ()
        return
    with pytest.raises(RegistryError):
        Registry(str(state))


def test_another_versions_registry_is_left_alone(state: str) -> None:
    """A schema that isn't known is neither read nor written."""
    with sqlite3.connect(os.path.join(state, FILE)) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(RegistryError, match="not a registry of this version"):
        Registry(state)


@pytest.mark.parametrize(("path", "mode"), [("", 0o770), ("", 0o777), (FILE, 0o640), (FILE, 0o666)])
def test_a_registry_that_others_could_use_is_refused(state: str, path: str, mode: int) -> None:
    """The directory is nobody else's to write, the file nobody else's at all."""
    os.chmod(os.path.join(state, path), mode)
    with pytest.raises(RegistryError, match="must belong to you"):
        Registry(state)


def test_a_link_is_no_registry(state: str) -> None:
    """Whoever can put a link there would choose what is run."""
    path = Path(state, FILE)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    with pytest.raises(RegistryError):
        Registry(state)
