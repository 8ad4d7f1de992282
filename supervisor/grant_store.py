"""What a user said yes to: remembered for exactly these bytes and exactly this set of requests, per user.

The file's name is a hash over the manifest's digest, the program's digest and the bound requests: change one byte of
the component or one pattern of what it asks, and the question is asked again.
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


def request_key(manifest_digest: str, wasm_sha256: str, grants: Sequence[Grant]) -> str:
    """Return the key of one request."""
    asked = sorted((grant.action, grant.pattern_text, *sorted(grant.methods)) for grant in grants)
    material = json.dumps([manifest_digest, wasm_sha256, asked], ensure_ascii=True)
    return hashlib.sha256(material.encode()).hexdigest()


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
            status = os.lstat(os.path.join(self._directory, key))
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022

    def remember(self, key: str, component: str, grants: Sequence[Grant]) -> None:
        """Record a yes, for this tool to find and for a person to read."""
        document = {
            "component": component,
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
