"""`--grant FILE`: a copy of Component.toml with capabilities taken out or narrowed; what is left is granted.

The same form as the manifest, so that a reviewer edits what the author wrote, and `diff` shows what was taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.config.toml_source import read_toml_bytes
from supervisor.manifest import Manifest, ParameterValue, Variables, bind, parse_manifest
from supervisor.terminal import visible


def read_grant_file(
    path: str,
    manifest: Manifest,
    parameters: Mapping[str, ParameterValue],
    variables: Variables,
    cwd: str,
    real_path: Callable[[str], str],
) -> tuple[Grant, ...]:
    """Return what the file grants; raises ConfigError for another component's, or an action not asked for."""
    return grants_in(read_toml_bytes(path, path), path, manifest, parameters, variables, cwd, real_path)


def grants_in(
    data: bytes,
    path: str,
    manifest: Manifest,
    parameters: Mapping[str, ParameterValue],
    variables: Variables,
    cwd: str,
    real_path: Callable[[str], str],
) -> tuple[Grant, ...]:
    """Return what the bytes of such a file grant, as above; `path` is what it is called in messages."""
    reviewed = parse_manifest(data, file=path, directory=manifest.directory)
    name = manifest.component.name
    if reviewed.component.name != name:
        raise ConfigError(f"{visible(path)}: is for {reviewed.component.name}, not for {name}")
    asked = {request.action for request in manifest.requests()}
    for request in reviewed.requests():
        if request.action not in asked:
            raise ConfigError(
                f"{visible(path)}:{request.line}: {name} doesn't ask for {request.action}",
                hint="a grant can only take away from what Component.toml asks for",
            )
    bound = bind(reviewed, parameters, variables, cwd=cwd, real_path=real_path)
    return tuple(replace(grant, source=f"{path} ({grant.source})") for grant in bound.grants)
