"""A component directory as `check`, `explain` and `run` see it: manifest, settings, and both bound together."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ipc.policy.document import PolicyDocument
from ipc.policy.forbidden import ForbiddenPaths
from ipc.struct import Struct
from supervisor.config import places
from supervisor.config.host_policy import component_parameters, data_directory, host_paths, policy_document
from supervisor.config.settings import ComponentSettings, Settings
from supervisor.config.settings_files import load_settings
from supervisor.host.mounts import read_mounts, under_all_names
from supervisor.host.surroundings import home_directories, program_directories
from supervisor.manifest import BoundManifest, Manifest, Variables, bind, load_manifest, stand_ins
from supervisor.usage_error import UsageError as UsageError

TMP_STAND_IN: Final = "/<tmp>"
"""Where nothing runs there is no `${tmp}` yet; no real directory has this name."""
_ASSIGNMENT: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,62})=(.*)", re.DOTALL)


class ComponentView(Struct, frozen=True):
    """A manifest bound to this host; `unset` are the parameters whose values only stand in for real ones."""

    manifest: Manifest
    bound: BoundManifest
    settings: Settings
    host: ComponentSettings
    unset: tuple[str, ...]
    instance: str = ""
    """Of what is installed, under which it is."""

    def document(self) -> PolicyDocument:
        """Return the policy as it would be with everything granted that is asked."""
        document = policy_document(
            self.bound,
            self.settings,
            instance=self.instance,
            path_directories=self._program_directories(),
            home_directories=home_directories(),
        )
        return under_all_names(document, read_mounts())

    def forbidden(self) -> ForbiddenPaths:
        """Return what no grant reaches on this host."""
        return ForbiddenPaths(host_paths(self.settings), self._program_directories(), self.host.lift_guarded)

    def _program_directories(self) -> tuple[str, ...]:
        return program_directories(self.settings, places.state_directory(None, os.environ, self.settings))


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """Read `--set NAME=VALUE`, each name once; raise `UsageError`."""
    found: dict[str, str] = {}
    for text in texts:
        match = _ASSIGNMENT.fullmatch(text)
        if match is None:
            raise UsageError(f"--set {text!r}: expected NAME=VALUE")
        if match[1] in found:
            raise UsageError(f"--set {match[1]}: given twice")
        found[match[1]] = match[2]
    return found


def view_component(
    directory: str, assignments: Mapping[str, str], config: str | None, instance: str = ""
) -> ComponentView:
    """Read a component directory and the host's settings; raise `ManifestErrors`, `SettingsError`, `UsageError`."""
    if not os.path.isdir(directory):
        hint = "name the directory that holds Component.toml"
        if directory.endswith(".wasm") and os.path.isfile(directory):
            hint += f"; what a bare program imports: airssys show {directory}"
        what = "is not a directory" if os.path.lexists(directory) else "is not there"
        raise UsageError(f"{directory!r} {what}", hint=hint)
    settings = load_settings(config, os.environ, os.geteuid())
    state = places.state_directory(None, os.environ, settings)
    return view_manifest(load_manifest(directory), assignments, places.with_data(settings, state), instance)


def view_manifest(
    manifest: Manifest, assignments: Mapping[str, str], settings: Settings, instance: str = ""
) -> ComponentView:
    """Bind a manifest that was read already; raise `ManifestErrors`."""
    name = manifest.component.name
    values = component_parameters(manifest, settings, assignments, instance)
    missing = stand_ins(manifest, values)
    variables = Variables(
        component=manifest.directory,
        data=os.path.realpath(data_directory(settings, name, instance)),
        tmp=TMP_STAND_IN,
    )
    bound = bind(manifest, {**missing, **values}, variables, cwd=os.getcwd(), real_path=os.path.realpath)
    own = settings.component(name, instance)
    return ComponentView(manifest, bound, settings, own, tuple(missing), instance)
