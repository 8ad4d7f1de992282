"""Commands in hints of `airssys approvals`, so that they find what was found: the same socket or state. Pure."""

from __future__ import annotations

import argparse
import re
from typing import Final

from supervisor.report import shell_quoted

_COMMAND: Final = re.compile(
    r"(airssys approvals (?:list --all|list|show|approve|reject|revoke|narrow|request)(?: \d+)?)(?! FILE)"
)


def where_words(args: argparse.Namespace) -> str:
    """Return the options by which a command has found the approvals, with a space in front; empty for none."""
    socket = getattr(args, "socket", None)
    if socket:  # whoever asks by it has no use for the rest
        return f" --socket {shell_quoted(socket)}"
    options = (("--state-dir", args.state_dir), ("--config", args.config))
    return "".join(f" {name} {shell_quoted(value)}" for name, value in options if value)


def in_place(hint: str | None, where: str) -> str | None:
    """Return a hint with `where` in each command that it names: who gave it doesn't know how it was reached."""
    if hint is None or not where or where in hint:
        return hint
    return _COMMAND.sub(lambda found: found[1] + where, hint)
