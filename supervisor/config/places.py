"""Where this host keeps state, log and components' data: what was named, else the environment, else airssys.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ipc.struct import replace
from supervisor.config.settings import Settings


def state_directory(named: str | None, environment: Mapping[str, str], settings: Settings) -> str:
    """Return the real path of the state directory: `--state-dir`, else $AIRSSYS_STATE, else the settings'."""
    return os.path.realpath(named or environment.get("AIRSSYS_STATE") or settings.directories.state)


def audit_directory(state: str, settings: Settings) -> str:
    """Return where the log is: in a state directory that was named, else in the settings' log directory."""
    if state != os.path.realpath(settings.directories.state):
        return os.path.join(state, "audit")
    return os.path.join(settings.directories.log, "audit")


def data_directory(state: str, settings: Settings) -> str:
    """Return where components' own directories are: beside a state directory that was named, else the settings'."""
    if state != os.path.realpath(settings.directories.state):
        return os.path.join(os.path.dirname(state), os.path.basename(state) + "-data")
    return settings.directories.data


def packages_directory(state: str) -> str:
    """Return where installed packages are: beside the state directory, which no component may look into.

    A component may read its own package through `${component}`, and root's warden, who isn't root, has to get there.
    """
    return f"{state}-packages"


def with_data(settings: Settings, state: str) -> Settings:
    """Return the settings with `${data}` where a run with this state directory has it."""
    data = data_directory(state, settings)
    return replace(settings, directories=replace(settings.directories, data=data))
