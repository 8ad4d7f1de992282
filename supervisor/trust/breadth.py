"""Which entries of `[[trust.sources]]` trust more people than whoever wrote them may have thought of. Pure."""

from __future__ import annotations

from typing import Final

from ipc.policy.patterns import is_too_broad
from supervisor.trust.sources import GitSource, LocalSource, OciSource, TrustSource

_SHARED_DIRECTORIES: Final = ("/", "/home", "/tmp", "/var/tmp", "/dev/shm", "/run", "/mnt", "/media")  # noqa: S108 - named to warn
"""Beneath each of these lies what different people have put there."""
_SECOND_LEVEL: Final = ("ac", "co", "com", "edu", "gov", "net", "org")
"""Labels under which some countries give names to everybody: `*.co.uk` is no one's."""


def breadth_warning(source: TrustSource) -> str:
    """Return who else could be trusted by an entry, in a sentence; empty where it names somebody in particular."""
    if isinstance(source, LocalSource):
        return _local(source)
    if isinstance(source, GitSource):
        if source.place is not None:
            return _local(source.place)
        return _host(source.url.host) or _first(source.url.path, "whoever may have a repository on that host")
    if isinstance(source, OciSource):
        return (
            _host(source.repository.host)
            or _first(source.repository.path, "whoever may push to that registry")
            or _loopback(source.repository.host)
        )
    return ""


def _local(source: LocalSource) -> str:
    if is_too_broad(source.pattern) or (source.fixed_part in _SHARED_DIRECTORIES and "*" in source.pattern):
        return f"too broad: it trusts what anybody puts beneath {source.fixed_part}"
    return ""


def _host(host: str) -> str:
    labels = host.split(".")
    open_labels = [number for number, label in enumerate(labels) if "*" in label]
    if not open_labels:
        return ""
    behind = labels[open_labels[-1] + 1 :]
    if len(behind) < 2 or (len(behind) == 2 and behind[0] in _SECOND_LEVEL and len(behind[1]) == 2):
        return f"too broad: it trusts hosts of whoever has registered a name that {host} covers"
    return ""


def _loopback(host: str) -> str:
    # There registries are spoken to without TLS.
    if host in ("localhost", "[::1]") or host.startswith("127."):
        return "not authenticated: any user of this machine who listens on that port first answers in its place"
    return ""


def _first(path: str, who: str) -> str:
    return f"too broad: its first segment is a pattern, so it trusts {who}" if "*" in path.split("/")[1] else ""
