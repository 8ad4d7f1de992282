"""What hosts are called in signed approvals, and patterns of such names. Pure."""

from __future__ import annotations

import re
from typing import Final

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_HOST_PATTERN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_*-]+(?:\.[a-z0-9_*-]+)*")


def check_host_name(text: str) -> str | None:
    """Return what is wanted instead of this host's name, None where it is one."""
    return None if _HOST.fullmatch(text) else 'a host\'s name in lower case, such as "web-1.example.com"'


def check_host_pattern(text: str) -> str | None:
    """Return what is wanted instead of this pattern of hosts, None where it is one."""
    return None if _HOST_PATTERN.fullmatch(text) and "**" not in text else 'a pattern of hosts\' names such as "web-*"'


def covers_host(pattern: str, name: str) -> bool:
    """Whether a host's name has as many labels as a pattern, and each is covered; `*` covers what has no dot."""
    labels, wanted = name.split("."), pattern.split(".")
    if check_host_name(name) or len(labels) != len(wanted):
        return False
    return all(map(_covers_label, wanted, labels))


def _covers_label(pattern: str, label: str) -> bool:
    """Cover a label in one pass: a pattern of many stars takes no longer than its length."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == label
    *between, last = rest
    if not label.startswith(first) or not label.endswith(last) or len(label) < len(first) + len(last):
        return False
    at, end = len(first), len(label) - len(last)
    for part in between:
        found = label.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
