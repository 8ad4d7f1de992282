"""Who somebody is: the uid that the kernel reports, and the name that it has here."""

from __future__ import annotations

import pwd
import re
from typing import Final

_USER: Final = re.compile(r"uid (\d{1,10})", re.ASCII)


def person(who: object) -> str:
    """Return somebody by the name that they have here, too, where they are a user."""
    match = _USER.fullmatch(str(who))
    if match is None:
        return str(who)
    try:
        return f"{pwd.getpwuid(int(match[1])).pw_name} ({who})"
    except (KeyError, OverflowError):
        return str(who)
