"""The cache of compiled code: keyed by (sha256 of the bytes, wasmtime version, engine settings), written atomically.

Native code from here runs inside workers, so nobody else may put any in: the directory and its files must belong to us
and be writable by nobody else, the hash of each artifact is recorded beside it, and what is handed to a worker is a
sealed copy whose hash was checked after sealing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import stat

from ipc import codec, memory_file, syscalls
from ipc.errors import ConfigError, PeerProtocolError
from ipc.messages import GUARDS, EngineSettings
from ipc.struct import Struct, asdict
from supervisor.terminal import visible

MAX_ARTIFACT_BYTES = 1 << 31


class ArtifactRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """What is recorded of one compiled program."""

    wasm_sha256: str
    wasmtime_version: str
    artifact_sha256: str
    artifact_bytes: int
    wasm_kind: str
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    functions: tuple[tuple[str, str], ...] = ()
    """(name, signature in words) of what a component exports to be called."""


@functools.cache
def wasmtime_version() -> str:
    """Return the installed version without importing wasmtime: component code has no business in this process.

    Looked up once: the zygote of this process keeps the version that it has imported, too.
    """
    spec = importlib.util.find_spec("wasmtime")
    if spec is None or spec.origin is None:
        raise ConfigError("wasmtime isn't installed in this environment; run scripts/run once")
    site = os.path.dirname(os.path.dirname(spec.origin))
    found = [name for name in os.listdir(site) if name.startswith("wasmtime-") and name.endswith(".dist-info")]
    if len(found) != 1:
        raise ConfigError(f"found {len(found)} versions of wasmtime in {site}; reinstall it")
    return found[0].removeprefix("wasmtime-").removesuffix(".dist-info")


def cache_key(wasm_sha256: str, version: str, engine: EngineSettings) -> str:
    """Return the file name of one combination; everything that changes the machine code is in it."""
    fields = {"wasm": wasm_sha256, "wasmtime": version, "machine": syscalls.machine(), "guards": GUARDS}
    fields |= asdict(engine)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class CacheUnavailableError(ConfigError):
    """There is no directory to keep artifacts in, and none can be made."""


class ArtifactCache:
    """One directory of artifacts."""

    def __init__(self, directory: str) -> None:
        """Open `directory`, made if missing; raises ConfigError when others could write there."""
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise CacheUnavailableError(
                f"{visible(directory)} can't be made: {os.strerror(error.errno or 0)}",
                hint="name a directory that can be written: --state-dir DIR or AIRSSYS_STATE",
            ) from None
        status = os.stat(directory)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"{directory}: must belong to you and be writable by nobody else (chmod go-w {directory})"
            )
        self._directory = directory
        self.discarded = ""
        """Why what was found last was not used, where it wasn't as it had been written."""

    def lookup(self, key: str) -> tuple[ArtifactRecord, int] | None:
        """Return the record and a sealed, checked copy of the artifact; None when absent, damaged or tampered with."""
        record = self._record(key)
        if record is None:
            return None
        try:
            source = os.open(self._path(key, "cwasm"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if not _owned(source):
                self.discarded = "the artifact in the cache belongs to somebody else, or others may write it"
                return None
            sealed = memory_file.from_file("artifact", source, MAX_ARTIFACT_BYTES)
        except ValueError:
            return None
        finally:
            os.close(source)
        if memory_file.sha256(sealed) != record.artifact_sha256:
            os.close(sealed)
            self.discard(key)
            self.discarded = "the artifact in the cache is not the one that was recorded (sha256)"
            return None
        return record, sealed

    def describe(self, key: str) -> ArtifactRecord | None:
        """Return the record alone, for whoever wants to know and not to run; None when absent or tampered with."""
        return self._record(key)

    def store(self, key: str, record: ArtifactRecord, sealed: int) -> None:
        """Write both files, the record last: an artifact without its record is never used."""
        self._write(self._path(key, "cwasm"), sealed)
        described = memory_file.from_bytes("record", codec.pack(record))
        try:
            self._write(self._path(key, "record"), described)
        finally:
            os.close(described)

    def discard(self, key: str) -> None:
        """Remove one artifact, record first."""
        for suffix in ("record", "cwasm"):
            try:
                os.unlink(self._path(key, suffix))
            except FileNotFoundError:
                continue

    def _record(self, key: str) -> ArtifactRecord | None:
        try:
            descriptor = os.open(self._path(key, "record"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if not _owned(descriptor):
                self.discarded = "an artifact's record in the cache belongs to somebody else, or others may write it"
                return None
            return codec.unpack(ArtifactRecord, os.read(descriptor, 1 << 20), max_bytes=1 << 20)
        except PeerProtocolError:
            self.discarded = "an artifact's record in the cache can't be read"
            return None
        finally:
            os.close(descriptor)

    def _write(self, path: str, source: int) -> None:
        temporary = f"{path}.{os.getpid()}.new"
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            offset = 0
            while sent := os.sendfile(target, source, offset, 1 << 24):
                offset += sent
            os.fsync(target)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(target)

    def _path(self, key: str, suffix: str) -> str:
        return os.path.join(self._directory, f"{key}.{suffix}")


def _owned(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
