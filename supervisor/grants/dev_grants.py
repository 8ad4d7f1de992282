"""What `--dev` allows without asking: all beneath a few directories of the developer's, hidden names excepted. Pure."""

from __future__ import annotations

from typing import Final

from ipc.errors import ConfigError
from ipc.policy.access import AclEntry
from ipc.policy.capability import FILE_ACTIONS, Grant
from ipc.policy.patterns import literal_pattern_text
from supervisor.terminal import visible

SOURCE: Final = "--dev"
HIDDEN_SOURCE: Final = "--dev leaves names that begin with a dot alone"
_HIDDEN: Final = (".*", "**/.*", ".*/**", "**/.*/**")


def dev_grants(directories: tuple[str, ...], homes: tuple[str, ...]) -> tuple[Grant, ...]:
    """Return the grants on all beneath these real directories; raises ConfigError where that holds a whole home."""
    grants = []
    for directory in dict.fromkeys(directories):
        pattern = literal_pattern_text(directory).rstrip("/") + "/"
        if directory == "/" or any(f"{home}/".startswith(directory + "/") for home in homes):
            raise ConfigError(
                f"--dev would allow all beneath {visible(directory)}, which is too much",
                hint="go to the directory of your project first",
            )
        grants += [Grant(action, pattern, SOURCE) for action in FILE_ACTIONS]
    return tuple(grants)


def hidden_denials(component: str, directories: tuple[str, ...]) -> tuple[AclEntry, ...]:
    """Return the entries that keep hidden names beneath these directories out of it."""
    return tuple(
        AclEntry(component, action, f"{literal_pattern_text(directory).rstrip('/')}/{name}", "deny", HIDDEN_SOURCE)
        for directory in dict.fromkeys(directories)
        for action in FILE_ACTIONS
        for name in _HIDDEN
    )
