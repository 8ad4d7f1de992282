"""What the host makes of a bound manifest: its quota, its parameters, and the policy document that decides. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipc.naming import identity_text
from ipc.policy.access import AclEntry
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from ipc.policy.patterns import literal_pattern_text
from ipc.policy.quotas import QuotaLimits
from ipc.struct import Struct
from supervisor.config import units
from supervisor.config.settings import Settings
from supervisor.config.toml_source import KeyPath, Origin, Problem, key_name
from supervisor.run.governor import LEAST_NS

if TYPE_CHECKING:
    from supervisor.manifest.bind import BoundManifest
    from supervisor.manifest.values import Manifest, ParameterValue


class ResolvedQuota(Struct, frozen=True):
    """What a component may use, every amount decided; `units.UNLIMITED` where the host grants it."""

    storage_bytes: int
    message_rate_per_s: int
    network_bandwidth_bytes_per_s: int
    cpu_time_ns_per_s: int
    memory_bytes: int

    def limits(self) -> QuotaLimits:
        """Return what enforces them takes: there, what is unlimited is None."""
        amounts = (
            self.storage_bytes,
            self.message_rate_per_s,
            self.network_bandwidth_bytes_per_s,
            self.cpu_time_ns_per_s,
            self.memory_bytes,
        )
        return QuotaLimits(*(None if amount == units.UNLIMITED else amount for amount in amounts))


class QuotaResolution(Struct, frozen=True):
    """A quota, and what was refused on the way: where `refusals` isn't empty the component must not start."""

    quota: ResolvedQuota
    refusals: tuple[Problem, ...]


def resolve_quota(manifest: Manifest, settings: Settings, instance: str = "") -> QuotaResolution:
    """Decide each quota: what the host says of this component, else what the manifest asks, else the host's default.

    What exceeds the host's maximum is refused, not cut down: a component that says it needs more would fail later. So
    is less CPU time than any component needs.
    """
    component = settings.component(manifest.component.name, instance)
    own = component.quota
    identity = component.identity
    asked, defaults, maxima = manifest.quota, settings.quota_defaults, settings.quota_maxima
    refusals: list[Problem] = []

    def decide(
        key: str,
        host: int | None,
        manifest_asks: int | None,
        default: int | None,
        maximum: int | None,
        form: Callable[[int], str],
        minimum: int = 0,
    ) -> int:
        amount = next(value for value in (host, manifest_asks, default, 0) if value is not None)
        too_much = maximum is not None and amount > maximum
        if too_much or amount < minimum:
            path: KeyPath = ("components", identity, "quota", key) if host is not None else ("quota", key)
            origin = (
                settings.origins.get(path, Origin("airssys.toml", 0)) if host is not None else Origin(manifest.file, 0)
            )
            if too_much and maximum is not None:
                expected, hint = f"at most {form(maximum)}", f"the host's limit is [quota.maxima] {key} in airssys.toml"
            else:
                expected, hint = f"at least {form(minimum)}", "with less it could neither start nor answer"
            problem = Problem(origin.file, origin.line, key_name(path), expected, form(amount), hint)
            refusals.append(problem)
        return amount

    quota = ResolvedQuota(
        storage_bytes=decide(
            "storage",
            own.storage_bytes,
            asked.storage_bytes,
            defaults.storage_bytes,
            maxima.storage_bytes,
            units.format_size,
        ),
        message_rate_per_s=decide(
            "message_rate",
            own.message_rate_per_s,
            asked.message_rate_per_s,
            defaults.message_rate_per_s,
            maxima.message_rate_per_s,
            units.format_rate,
        ),
        network_bandwidth_bytes_per_s=decide(
            "network_bandwidth",
            own.network_bandwidth_bytes_per_s,
            asked.network_bandwidth_bytes_per_s,
            defaults.network_bandwidth_bytes_per_s,
            maxima.network_bandwidth_bytes_per_s,
            units.format_bandwidth,
        ),
        cpu_time_ns_per_s=decide(
            "cpu_time",
            own.cpu_time_ns_per_s,
            asked.cpu_time_ns_per_s,
            defaults.cpu_time_ns_per_s,
            maxima.cpu_time_ns_per_s,
            units.format_cpu,
            LEAST_NS,
        ),
        memory_bytes=decide(
            "memory",
            own.memory_bytes,
            asked.memory_bytes,
            defaults.memory_bytes,
            maxima.memory_bytes,
            units.format_size,
        ),
    )
    return QuotaResolution(quota, tuple(refusals))


def component_parameters(
    manifest: Manifest, settings: Settings, given: Mapping[str, ParameterValue], instance: str = ""
) -> dict[str, ParameterValue]:
    """Return the values to bind: those from `airssys.toml`, and over them those given on the command line."""
    own = settings.component(manifest.component.name, instance)
    return {**dict(own.parameters), **given}


def data_directory(settings: Settings, name: str, instance: str = "") -> str:
    """Return what `${data}` is: the durable directory of one component instance."""
    return f"{settings.directories.data}/{identity_text(name, instance)}"


def host_paths(settings: Settings) -> tuple[str, ...]:
    """Return what belongs to the host itself and is forbidden to every component."""
    own = settings.directories
    return tuple(dict.fromkeys((own.state, own.run, own.log, *settings.files, *settings.config_places)))


def policy_document(
    bound: BoundManifest,
    settings: Settings,
    *,
    instance: str = "",
    granted: tuple[Grant, ...] | None = None,
    more_host_paths: tuple[str, ...] = (),
    path_directories: tuple[str, ...] = (),
    home_directories: tuple[str, ...] = (),
) -> PolicyDocument:
    """Return all that decisions about one instance depend on.

    `granted` is what a person or a rule granted, by default everything that is asked. `path_directories` are those of
    the supervisor's `PATH`, `home_directories` those whose key stores are recognised by device and inode too.
    """
    name = bound.manifest.component.name
    own = settings.component(name, instance)
    return PolicyDocument(
        component=name,
        instance=instance,
        grants=bound.grants if granted is None else granted,
        acl=(*settings.acl_in_force, *left_out_denials(name, bound.variables.component)),
        roles=settings.roles,
        assigned_roles=own.roles,
        host_paths=tuple(dict.fromkeys((*host_paths(settings), *more_host_paths))),
        guarded_lifted=own.lift_guarded,
        path_directories=path_directories,
        home_directories=home_directories,
    )


def left_out_denials(component: str, directory: str) -> tuple[AclEntry, ...]:
    """Return the entries that keep a component from what lies in its directory and is no part of its package.

    No approval and no signature covers these bytes: what it read there could be exchanged afterwards.
    """
    # Only here: of a bare program nothing is a package.
    from supervisor.packages.contents import LEFT_OUT

    top = literal_pattern_text(directory).rstrip("/")
    return tuple(
        AclEntry(component, "filesystem.*", f"{top}/{name}/", "deny", "no part of its package")
        for name in sorted(LEFT_OUT)
    )
