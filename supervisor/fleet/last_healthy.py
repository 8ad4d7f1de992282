"""Which version of a component was healthy last, and which have failed in its place since: a file for each.

It is written whole and durable before anything follows from it, so that a supervisor that is killed and started again
starts what was approved and healthy, and not what failed. It carries a digest of what it says, as the registry's rows
do: what was damaged or edited by hand counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from typing import Final

from ipc.struct import Struct, ValidationError, convert, replace, to_builtins
from supervisor.terminal import visible

DIRECTORY: Final = "versions"
FAILED_MAX: Final = 20
"""So many failed versions of one component are remembered; those are asked about that failed last."""
_BYTES_MAX: Final = 64 * 1024
_REASON_MAX_CHARS: Final = 1_000


class FailedVersion(Struct, frozen=True):
    """A version that was to take another's place and couldn't: its package's digest, and why, in words."""

    version: str
    package: str
    reason: str
    at_ns: int
    """UTC."""


class LastHealthy(Struct, frozen=True):
    """What a component ran last that was healthy, and what has failed since, the oldest first."""

    version: str = ""
    package: str = ""
    failed: tuple[FailedVersion, ...] = ()

    def after_success(self, version: str, package: str) -> LastHealthy:
        """Return it once a version was found healthy; of the same one it stays known what failed in its place."""
        return self if package == self.package else LastHealthy(version, package)

    def after_failure(self, failed: FailedVersion) -> LastHealthy:
        """Return it once a version has failed."""
        others = [each for each in self.failed if each.package != failed.package]
        shown = replace(failed, reason=failed.reason[:_REASON_MAX_CHARS])
        return replace(self, failed=(*others, shown)[-FAILED_MAX:])

    def failure(self, package: str) -> FailedVersion | None:
        """Return how a package has failed; None where it hasn't."""
        return next((each for each in self.failed if each.package == package), None)

    def instead_of(self, package: str, installed: Collection[str]) -> str:
        """Return the package to start where a name means `package` but that can't be: "" where there is none."""
        return self.package if self.package != package and self.package in installed else ""

    @property
    def failed_packages(self) -> frozenset[str]:
        """Return the packages that failed."""
        return frozenset(each.package for each in self.failed)


class LastHealthyFiles:
    """The files of one state directory."""

    def __init__(self, state_directory: str) -> None:
        """Nothing is made before something is written."""
        self.directory = os.path.join(state_directory, DIRECTORY)

    def read(self, name: str) -> LastHealthy:
        """Return what is known of a component; nothing where there is no file, or it isn't as it was written."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                document = json.loads(stream.read(_BYTES_MAX))
            found = convert(document["last_healthy"], LastHealthy)
            return found if document["seal"] == _seal(name, found) else LastHealthy()
        except (OSError, ValueError, KeyError, TypeError, ValidationError, RecursionError):
            return LastHealthy()

    def note_success(self, name: str, version: str, package: str) -> None:
        """Keep that a version is healthy; raises OSError."""
        known = self.read(name)
        after = known.after_success(version, package)
        if after != known:
            self._write(name, after)

    def note_failure(self, name: str, failed: FailedVersion) -> None:
        """Keep that a version has failed; raises OSError."""
        self._write(name, self.read(name).after_failure(failed))

    def _write(self, name: str, known: LastHealthy) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        document = {"last_healthy": to_builtins(known), "seal": _seal(name, known)}
        new = f"{self._path(name)}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2)
            stream.flush()
            os.fsync(descriptor)
        os.rename(new, self._path(name))
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, f"{name}.json")


def failed_words(name: str, runs: str, healthy: str, version: str, reason: str) -> str:
    """Say what `runs`, in the place of a `version` that failed, why, and how to stay with the one that is healthy."""
    return visible(f"{runs}; {version} failed: {reason}; to stay: airssys rollback {name} {healthy}")


def _seal(name: str, known: LastHealthy) -> str:
    text = json.dumps([name, to_builtins(known)], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(f"airssys last healthy, version 1\n{text}".encode()).hexdigest()
