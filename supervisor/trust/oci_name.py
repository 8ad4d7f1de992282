"""`HOST[:PORT]/NAME` of an OCI registry's repository, parsed into the parts on which trust is decided. Pure.

The grammar of names is that of the OCI Distribution Specification, "Pulling manifests": lower case, `/` between parts.
"""

from __future__ import annotations

import re
from typing import Final

from ipc.struct import Struct
from supervisor.trust.host_name import UnclearNameError, read_authority

_NAME_MAX_CHARS: Final = 255
_HTTPS_PORT: Final = 443
_PART: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_PART_PATTERN: Final = re.compile(r"[a-z0-9._*-]+")


class OciName(Struct, frozen=True):
    """A repository in its one form. Of a pattern `host` and `path` may hold `*`, and `path` `**` as a whole part."""

    host: str
    port: int
    """0 where it is HTTPS's own."""
    path: str
    """The name, with a slash before it."""

    @property
    def text(self) -> str:
        """Return it as it would be written."""
        return f"{self.host}{f':{self.port}' if self.port else ''}{self.path}"


def parse_oci_name(text: str, pattern: bool = False) -> OciName:
    """Return the parts of a repository's name, or of a `pattern` of names; raises UnclearNameError."""
    if not text.isascii() or not text.isprintable():
        raise UnclearNameError("it holds characters outside ASCII, which can look like others")
    authority, slash, name = text.partition("/")
    if not slash or not name:
        raise UnclearNameError("it is not of the form HOST/NAME")
    host, port = read_authority(authority, _HTTPS_PORT, pattern)
    parts = name.split("/")
    form = _PART_PATTERN if pattern else _PART
    if len(name) > _NAME_MAX_CHARS or not all(form.fullmatch(part) for part in parts):
        raise UnclearNameError("its name is not of lower-case letters, digits, and single . _ - between them")
    if pattern and any(part in (".", "..") or ("**" in part and part != "**") for part in parts):
        raise UnclearNameError("** is a whole part of a name, and nothing else stands beside it")
    return OciName(host, port, f"/{name}")
