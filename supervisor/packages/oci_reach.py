"""Where a registry may send whoever asks it, and what goes along. Pure.

Blobs often lie elsewhere, with a service made for large files, and tokens are given out by another host: both are named
by the registry, which nobody has to believe.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

CONNECT_S: Final = 10
READ_S: Final = 30
"""How long a registry may be silent."""
BLOB: Final = "application/octet-stream, */*"
"""What is accepted where a blob is asked for, by which such a request is known."""
Origin = tuple[str, str, int | None]
"""Scheme, host, port."""


def origin_of(url: str) -> Origin:
    """Return whom a URL names; raises ValueError for a port that is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def why_not_followed(url: str, target: str) -> str:
    """Return why a registry at `url` may not send us to `target`; "" where it may.

    Never from TLS to none, nor from another machine to this one, nor from this machine to another.
    """
    before, after = urlsplit(url), urlsplit(target)
    if not after.scheme and not after.netloc:
        return ""
    if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme != "https"):
        return "not by TLS"
    if after.hostname != before.hostname and before.scheme == "http":
        return "from this machine to another one"
    if after.hostname != before.hostname and names_this_machine(after.hostname or ""):
        return "from another machine to this one"
    return ""


def names_this_machine(host: str) -> bool:
    """Whether a host is this machine, or a place that only this one sees, in any of the spellings of its address."""
    host = host.lower().rstrip(".").partition("%")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return is_this_machine(host)
    except ValueError:
        pass
    try:
        return is_this_machine(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001, 2130706433
    except (OSError, UnicodeError):
        return False


def is_this_machine(address: str) -> bool:
    """Whether an IP address is this machine's own, or of the link (a cloud's metadata); raises ValueError for none."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback or found.is_unspecified or found.is_link_local
