"""The host and port of a URL or of a registry's name, in the one form in which they are compared. Pure.

What two programs could read differently (a percent sign, a backslash, a letter that only looks like another, an empty
port) is refused and not repaired: trust is decided on the host that is really asked (RFC 3986 §3.2.2, RFC 1123 §2.1).
"""

from __future__ import annotations

import re
from typing import Final

from ipc.errors import ConfigError

HOST_MAX_CHARS: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LABEL_PATTERN: Final = re.compile(r"[a-z0-9_*](?:[a-z0-9_*-]{0,61}[a-z0-9_*])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")


class UnclearNameError(ConfigError):
    """A URL or name isn't in a form that is judged; `reason` says why, for a sentence with the name in it."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def read_authority(text: str, default_port: int, pattern: bool = False) -> tuple[str, int]:
    """Return host and port of `HOST[:PORT]`; the port is 0 where it is the default one. Raises UnclearNameError.

    The host is in lower case and without the root's dot; an IPv6 address is in brackets and in its shortest form. In a
    `pattern` a label may hold `*`.
    """
    if text.startswith("["):
        address, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise UnclearNameError("its host is no address in brackets")
        return _read_ipv6(address), _read_port(rest[1:] if rest else None, default_port)
    host, colon, port = text.partition(":")
    return _read_host(host, pattern), _read_port(port if colon else None, default_port)


def _read_port(text: str | None, default: int) -> int:
    if text is None:
        return 0
    if not _PORT.fullmatch(text) or int(text) > 65_535:
        raise UnclearNameError("its port is no number from 1 to 65535")
    return 0 if int(text) == default else int(text)


def _read_host(text: str, pattern: bool) -> str:
    if not text.isascii():
        raise UnclearNameError("its host is not in ASCII; write an international name in its xn-- form")
    host = text.lower().removesuffix(".")
    if not host:
        raise UnclearNameError("it names no host")
    if pattern and "**" in host:
        raise UnclearNameError("** in its host: a * stands for one label, and none for several")
    form = _LABEL_PATTERN if pattern else _LABEL
    if len(host) > HOST_MAX_CHARS or not all(form.fullmatch(label) for label in host.split(".")):
        raise UnclearNameError("its host is no name of letters, digits, hyphens and dots")
    return host


def _read_ipv6(text: str) -> str:
    import ipaddress  # costs milliseconds, and only such an address needs it

    try:
        if "%" in text:
            raise ValueError
        return f"[{ipaddress.IPv6Address(text).compressed}]"
    except ValueError:
        raise UnclearNameError("its host is no IPv6 address") from None
