"""The cache of compiled code: what isn't exactly what we stored, or could be written by others, is never used."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

import pytest
from msgspec import structs

from ipc import codec, memory_file
from ipc.errors import ConfigError
from ipc.messages import EngineSettings
from supervisor.code import artifacts
from supervisor.code.artifacts import ArtifactCache, ArtifactRecord, cache_key, wasmtime_version

CODE = b"\x7fELF machine code " * 500
KEY = cache_key("ab" * 32, "50.0.1", EngineSettings())


def _record(data: bytes = CODE) -> ArtifactRecord:
    digest = hashlib.sha256(data).hexdigest()
    return ArtifactRecord("ab" * 32, "50.0.1", digest, len(data), "module", ("wasi:x",), ("_start",))


def _stored(directory: Path, data: bytes = CODE, key: str = KEY) -> ArtifactCache:
    cache = ArtifactCache(str(directory))
    sealed = memory_file.from_bytes("artifact", data)
    try:
        cache.store(key, _record(data), sealed)
    finally:
        os.close(sealed)
    return cache


def _found(cache: ArtifactCache, key: str = KEY) -> bytes | None:
    found = cache.lookup(key)
    if found is None:
        return None
    try:
        return memory_file.read_all(found[1])
    finally:
        os.close(found[1])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A place for a cache, not made yet."""
    return tmp_path / "cache"


def test_what_was_stored_is_found(directory: Path) -> None:
    """The record and the bytes come back, the bytes in a sealed file that closes on exec."""
    found = _stored(directory).lookup(KEY)
    assert found is not None
    record, sealed = found
    try:
        assert record == _record()
        assert memory_file.read_all(sealed) == CODE
        assert not os.get_inheritable(sealed)
        with pytest.raises(PermissionError):
            os.pwrite(sealed, b"X", 0)
    finally:
        os.close(sealed)


def test_another_key_is_not_found(directory: Path) -> None:
    """A lookup finds its own key only."""
    assert _found(_stored(directory), cache_key("cd" * 32, "50.0.1", EngineSettings())) is None


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


def _replace_by_other_code(path: Path) -> None:
    path.write_bytes(b"\x7fELF evil code".ljust(path.stat().st_size, b"\x90"))


@pytest.mark.parametrize("damage", [_flip_a_bit, _truncate, _empty, _append, _replace_by_other_code])
def test_a_changed_artifact_is_not_used_and_is_removed(directory: Path, damage: object) -> None:
    """One bit, one byte less, one more: the artifact isn't handed out, and both files go away."""
    cache = _stored(directory)
    assert callable(damage)
    damage(directory / f"{KEY}.cwasm")
    assert _found(cache) is None
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("damage", [_flip_a_bit, _truncate, _empty, _append])
def test_a_changed_record_is_not_believed(directory: Path, damage: object) -> None:
    """A damaged record gives nothing, or at most the record with the artifact's true hash."""
    cache = _stored(directory)
    assert callable(damage)
    damage(directory / f"{KEY}.record")
    assert _found(cache) in (None, CODE)


def test_a_forged_hash_in_the_record_gives_nothing(directory: Path) -> None:
    """A record that names another hash than the artifact has is of no use."""
    cache = _stored(directory)
    forged = structs.replace(_record(), artifact_sha256="00" * 32)
    (directory / f"{KEY}.record").write_bytes(codec.pack(forged))
    assert _found(cache) is None


@pytest.mark.parametrize("missing", ["record", "cwasm"])
def test_half_an_entry_gives_nothing(directory: Path, missing: str) -> None:
    """An artifact without its record, or a record without its artifact, isn't used."""
    cache = _stored(directory)
    (directory / f"{KEY}.{missing}").unlink()
    assert _found(cache) is None


@pytest.mark.parametrize("which", ["record", "cwasm"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_used(directory: Path, which: str, mode: int) -> None:
    """Group- or world-writable files are refused although their content is right."""
    cache = _stored(directory)
    (directory / f"{KEY}.{which}").chmod(mode)
    assert _found(cache) is None


@pytest.mark.parametrize("which", ["record", "cwasm"])
def test_a_link_is_not_followed(directory: Path, tmp_path: Path, which: str) -> None:
    """A symbolic link in place of a file is refused, although it leads to the right content."""
    cache = _stored(directory)
    path = directory / f"{KEY}.{which}"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert _found(cache) is None


@pytest.mark.needs_root
@pytest.mark.parametrize("which", ["record", "cwasm"])
def test_a_foreign_file_is_not_used(directory: Path, which: str) -> None:
    """A file that belongs to somebody else is refused although its content is right."""
    cache = _stored(directory)
    os.chown(directory / f"{KEY}.{which}", 12_345, 12_345)
    assert _found(cache) is None


@pytest.mark.needs_root
def test_a_foreign_directory_is_refused(directory: Path) -> None:
    """A cache directory that belongs to somebody else is a configuration error."""
    directory.mkdir(0o755)
    ArtifactCache(str(directory))
    os.chown(directory, 12_345, 12_345)
    with pytest.raises(ConfigError, match="must belong to you"):
        ArtifactCache(str(directory))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_refused(directory: Path, mode: int) -> None:
    """A cache directory with write rights for others is a configuration error, with what mends it."""
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigError, match="chmod go-w"):
        ArtifactCache(str(directory))
    directory.chmod(0o755)
    ArtifactCache(str(directory))


def test_what_is_written_is_owner_only_and_whole(directory: Path) -> None:
    """Directory and files are for the owner alone; no temporary file is left."""
    _stored(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in directory.iterdir()) == [f"{KEY}.cwasm", f"{KEY}.record"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())


def test_a_failed_write_leaves_the_old_entry(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the write can't be finished (here: no fsync), nothing half-written takes the place of what was there."""
    cache = _stored(directory)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", fail)
    sealed = memory_file.from_bytes("artifact", b"new")
    try:
        with pytest.raises(OSError, match="No space left"):
            cache.store(KEY, _record(b"new"), sealed)
    finally:
        os.close(sealed)
    monkeypatch.undo()
    assert _found(cache) == CODE
    assert len(list(directory.iterdir())) == 2


def test_storing_again_replaces(directory: Path) -> None:
    """The second artifact of a key takes the first one's place."""
    _stored(directory)
    assert _found(_stored(directory, b"second")) == b"second"


def test_an_artifact_beyond_the_bound_gives_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than an artifact may be isn't an error that ends a run: it isn't used."""
    cache = _stored(directory)
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT_BYTES", len(CODE) - 1)
    assert _found(cache) is None


def test_discarding_twice_is_no_error(directory: Path) -> None:
    """Removing what is gone already changes nothing."""
    cache = _stored(directory)
    cache.discard(KEY)
    cache.discard(KEY)
    assert list(directory.iterdir()) == []


def test_everything_that_changes_the_code_changes_the_key() -> None:
    """Bytes, version and each engine setting are in the key; the same again gives the same key."""
    keys = {
        KEY,
        cache_key("cd" * 32, "50.0.1", EngineSettings()),
        cache_key("ab" * 32, "50.0.2", EngineSettings()),
        *(
            cache_key("ab" * 32, "50.0.1", structs.replace(EngineSettings(), **{f.name: not f.default}))
            for f in structs.fields(EngineSettings)
        ),
    }
    assert len(keys) == 3 + len(structs.fields(EngineSettings))
    assert cache_key("ab" * 32, "50.0.1", EngineSettings()) == KEY


def test_the_version_is_read_without_loading_wasmtime() -> None:
    """The installed version is the one that the package's metadata names."""
    assert wasmtime_version() == version("wasmtime")
