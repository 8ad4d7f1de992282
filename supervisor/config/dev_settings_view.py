"""What whoever reads the settings should know of dev mode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.config.settings import Settings


def dev_warnings(settings: Settings) -> list[str]:
    """Return what whoever reads the settings should know: what is in dev mode, and what that leaves out."""
    without = "" if not settings.approval_rules else ", and no approval is needed for what that allows"
    found = []
    for each in settings.dev:
        place = f"what lies in {each.directory}" if each.directory else "what is installed"
        found.append(f"DEV MODE of {each.identity}, {place} ({each.origin}): nobody is asked what it may{without}")
        real = os.path.realpath(each.directory) if each.directory else ""
        if real != each.directory:
            found.append(
                f"dev.components.{each.identity} ({each.origin}) names nothing: it is really {real}; write that"
            )
    return found
