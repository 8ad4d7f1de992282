"""Where the host's configuration is looked for, and the settings that its files make: those that were read as one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from ipc.struct import replace
from supervisor.config.settings import HostDirectories, Settings, SettingsError
from supervisor.config.toml_source import ConfigFileError, Problem, TomlSource, read_toml

CONFIG_VARIABLE: Final = "AIRSSYS_CONFIG"
DROP_IN_DIRECTORY: Final = "airssys.d"


def default_directories(environment: Mapping[str, str], uid: int) -> HostDirectories:
    """Return where things are kept unless `[host]` says otherwise (file-hierarchy(7), XDG Base Directories)."""
    if uid == 0:
        return HostDirectories("/var/lib/airssys", "/var/lib/airssys-data", "/run/airssys", "/var/log/airssys")
    home = environment.get("HOME", "/")
    state = _xdg(environment, "XDG_STATE_HOME", f"{home}/.local/state")
    data = _xdg(environment, "XDG_DATA_HOME", f"{home}/.local/share")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    run = f"{runtime}/airssys" if runtime.startswith("/") else f"{state}/run"
    return HostDirectories(state, data, run, f"{state}/log")


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> str:
    # The specification has relative values ignored.
    value = environment.get(variable, "")
    return f"{value if value.startswith('/') else fallback}/airssys"


def default_config_path(environment: Mapping[str, str], uid: int) -> str:
    """Return the path of the configuration file that is read where none is named."""
    if uid == 0:
        return "/etc/airssys/airssys.toml"
    return _xdg(environment, "XDG_CONFIG_HOME", f"{environment.get('HOME', '/')}/.config") + "/airssys.toml"


def load_settings(config: str | None, environment: Mapping[str, str], uid: int) -> Settings:
    """Read the host's configuration; raise `SettingsError`.

    `config` is what `--config` named; else `$AIRSSYS_CONFIG`, else the default path, the only one that may be absent.
    """
    named = config or environment.get(CONFIG_VARIABLE)
    path = os.path.abspath(named or default_config_path(environment, uid))
    directories = default_directories(environment, uid)
    drop_ins = os.path.join(os.path.dirname(path), DROP_IN_DIRECTORY)
    files = [path] if named or os.path.lexists(path) else []
    files += drop_in_files(drop_ins)
    written = (path, drop_ins, os.path.dirname(default_config_path(environment, uid)))
    sources: list[TomlSource] = []
    problems: list[Problem] = []
    for file in files:
        try:
            sources.append(read_toml(file, private=True))
        except ConfigFileError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(tuple(problems))
    if not sources:
        return Settings(directories, config_places=_by_all_names(written))
    # Only here: most hosts say nothing, and then nothing that reads TOML is imported.
    from supervisor.config.settings_reader import read_settings

    settings = read_settings(sources, directories)
    program = () if settings.approval_notify is None else (settings.approval_notify,)
    return replace(settings, config_places=_by_all_names((*written, *program)))


def _by_all_names(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*paths, *map(os.path.realpath, paths))))


def drop_in_files(directory: str) -> list[str]:
    """Return the `*.toml` files of a directory in the order of their names; none where it doesn't exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(
            (Problem(directory, 0, "", "a readable directory", os.strerror(error.errno or 0).lower()),)
        ) from None
    return [
        os.path.join(directory, name) for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")
    ]
