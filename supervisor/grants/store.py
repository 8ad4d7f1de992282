"""What a user said yes to: remembered for exactly these bytes and exactly this set of requests, per user.

The file's name is a hash over the manifest's digest, the program's digest, that of its whole package where it asks to
read its own directory, and the bound requests: change one byte of that or one pattern of what it asks, and the question
is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence

from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import Struct, replace

_KEY_LENGTH = 64
_MAX_RECORD_BYTES = 1024 * 1024


class RememberedGrant(Struct, frozen=True):
    """One yes, as it was written down; a digest is empty where it was remembered before digests were."""

    key: str
    component: str
    granted_at: str
    grants: tuple[str, ...]
    wasm_sha256: str = ""
    manifest_sha256: str = ""


def request_key(manifest_digest: str, wasm_sha256: str, grants: Sequence[Grant], package: str = "") -> str:
    """Return the key of one request; `package` as `read_package` says."""
    asked = sorted((grant.action, grant.pattern_text, *sorted(grant.methods)) for grant in grants)
    material = json.dumps([manifest_digest, wasm_sha256, asked, *([package] if package else [])], ensure_ascii=True)
    return hashlib.sha256(material.encode()).hexdigest()


def read_package(directory: str, grants: Sequence[Grant]) -> str:
    """Return the digest of a component's package where it asks to read of its own directory; "" where it doesn't.

    What an interpreter reads there is its program; of what is installed the place has its digest in its name. Also ""
    where it may write there, so that what it reads is its own, and for a directory that is no package: there is nothing
    that could be said yes to once and for all.
    """
    actions = {each.action for each in grants if f"{each.pattern_text}/".startswith(f"{directory}/")}
    if "filesystem.read" not in actions or "filesystem.write" in actions:
        return ""
    # Only here: most components read nothing of their own.
    from supervisor.packages.directory import read_directory

    try:
        return read_directory(directory).digest
    except ConfigError:
        return ""


def lasting_grants(grants: Sequence[Grant], tmp: str) -> tuple[Grant, ...]:
    """Return the grants with `${tmp}` by its name: it is another directory at each start, and the same request."""

    def lasting(grant: Grant) -> Grant:
        if grant.pattern_text != tmp and not grant.pattern_text.startswith(f"{tmp}/"):
            return grant
        return replace(grant, pattern_text="${tmp}" + grant.pattern_text[len(tmp) :])

    return tuple(lasting(grant) for grant in grants)


class GrantStore:
    """One directory of remembered answers, owner-only."""

    def __init__(self, directory: str) -> None:
        """Open `directory`, made if missing; raises ConfigError when others could put answers there."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(directory)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"{directory}: must belong to you and be writable by nobody else", hint=f"chmod go-w {directory}"
            )
        self._directory = directory

    def remembered(self, key: str) -> bool:
        """Whether this very request was granted before."""
        try:
            return _is_ours(os.lstat(os.path.join(self._directory, key)))
        except FileNotFoundError:
            return False

    def remembered_grants(self) -> tuple[RememberedGrant, ...]:
        """Return every yes that counts, the oldest first; one that can't be read is there with what is known."""
        found = []
        for name in os.listdir(self._directory):
            if _is_key(name) and self.remembered(name):
                found.append(self._read(name))
        return tuple(sorted(found, key=lambda each: (each.granted_at, each.component, each.key)))

    def forget(self, key: str) -> bool:
        """Take one yes back, durable; whether there was one. What runs already goes on."""
        try:
            os.unlink(os.path.join(self._directory, key))
        except FileNotFoundError:
            return False
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def _read(self, key: str) -> RememberedGrant:
        try:
            descriptor = os.open(os.path.join(self._directory, key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                document = json.loads(stream.read(_MAX_RECORD_BYTES))
        except (OSError, ValueError, RecursionError):
            document = None
        fields = document if isinstance(document, dict) else {}
        texts = {
            name: value if isinstance(value := fields.get(name), str) else ""
            for name in ("component", "granted_at", "wasm_sha256", "manifest_sha256")
        }
        grants = fields.get("grants")
        lines = tuple(line for line in grants if isinstance(line, str)) if isinstance(grants, list) else ()
        return RememberedGrant(key=key, grants=lines, **texts)

    def remember(
        self, key: str, component: str, grants: Sequence[Grant], wasm_sha256: str = "", manifest_sha256: str = ""
    ) -> None:
        """Record a yes, for this tool to find and for a person to read."""
        document = {
            "component": component,
            "wasm_sha256": wasm_sha256,
            "manifest_sha256": manifest_sha256,
            "granted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "grants": [f"{grant.action} {grant.pattern_text}" for grant in grants],
        }
        path = os.path.join(self._directory, key)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(document, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(f"{path}.new", path)


def _is_key(name: str) -> bool:
    return len(name) == _KEY_LENGTH and all(character in "0123456789abcdef" for character in name)


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
