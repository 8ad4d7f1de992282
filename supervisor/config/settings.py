"""`airssys.toml` and `airssys.d/*.toml`, the host's side: values, their defaults, and where each was written.

Later files win key by key; `[[acl]]`, `[[trust.sources]]` and `[[approvals.rules]]` of all files count together, so
that a drop-in file can't make a deny entry vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ipc.messages import AuditBudget
from ipc.naming import identity_text
from ipc.policy import quotas
from ipc.policy.access import AclEntry, Role
from ipc.struct import Struct, field
from supervisor.audit.retention import AuditRetention
from supervisor.config import units
from supervisor.config.quota import NO_QUOTA, Quota
from supervisor.config.toml_source import ConfigFileError, KeyPath, Origin

if TYPE_CHECKING:
    from supervisor.config.approval_settings import ApprovalRule, AutomaticApproval, Signer
    from supervisor.config.dev_settings import DevComponent
    from supervisor.fleet.provider_settings import ProviderSettings
    from supervisor.fleet.shared_storage import SharedStorageSettings
    from supervisor.manifest.values import ParameterValue
    from supervisor.trust.sources import TrustSource

LAYERS: Final = (
    "environment",
    "namespaces",
    "pid_namespace",
    "rlimits",
    "identity",
    "capabilities",
    "non_dumpable",
    "no_new_privs",
    "landlock",
    "seccomp",
    "sealed",
)
"""The layers of confinement that can be required, in the order in which a worker puts them on."""
REQUIRED_LAYERS: Final = ("rlimits", "no_new_privs", "landlock", "seccomp")
ENFORCED_QUOTAS: Final = ("memory", "storage", "message_rate", "cpu_time")
DEFAULT_QUOTA: Final = Quota(
    storage_bytes=quotas.STORAGE.default,
    message_rate_per_s=quotas.MESSAGE_RATE.default,
    network_bandwidth_bytes_per_s=quotas.NETWORK_BANDWIDTH.default,
    cpu_time_ns_per_s=quotas.CPU_TIME.default,
    memory_bytes=quotas.MEMORY.default,
)
"""What a component has that says nothing, on a host that says nothing."""
DEFAULT_MAXIMA: Final = Quota(
    storage_bytes=10 * 10**9,
    message_rate_per_s=100_000,
    network_bandwidth_bytes_per_s=10**9,
    cpu_time_ns_per_s=16 * 10**9,
    memory_bytes=4 * 2**30,
)
"""How far a manifest may go on a host that says nothing; `"unlimited"` takes a host that writes it."""


class SettingsError(ConfigFileError):
    """The host's configuration can't be used; carries every `Problem` that was found in it."""


class HostDirectories(Struct, frozen=True):
    """Where the host keeps its things; absolute. Only `data` is for components: it holds their own directories."""

    state: str
    data: str
    run: str
    log: str


class Control(Struct, frozen=True):
    """Who may do what on the control socket: user names, and group names behind an `@`."""

    viewers: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()


class SecretSource(Struct, frozen=True):
    """Where the value of a secret comes from: one of a systemd credential's name and a file's absolute path."""

    name: str
    credential: str | None
    file: str | None


class ComponentSettings(Struct, frozen=True):
    """What the host says of one component, or of one instance of it (`NAME@INSTANCE`)."""

    name: str
    instance: str
    version: str | None = None
    enabled: bool = True
    run_as: str | None = None
    roles: tuple[str, ...] = ()
    parameters: tuple[tuple[str, ParameterValue], ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    quota: Quota = NO_QUOTA
    allow_broad: tuple[str, ...] = ()
    lift_guarded: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Return what it is written for: `NAME`, or `NAME@INSTANCE`."""
        return identity_text(self.name, self.instance)


class Settings(Struct, frozen=True):
    """All of it. `files` are those that were read; `origins` tells where each key was written."""

    directories: HostDirectories
    required_layers: tuple[str, ...] = REQUIRED_LAYERS
    quota_defaults: Quota = DEFAULT_QUOTA
    quota_maxima: Quota = DEFAULT_MAXIMA
    control: Control = Control()
    audit: AuditRetention = AuditRetention()
    audit_budget: AuditBudget = AuditBudget()
    trust_sources: tuple[TrustSource, ...] = ()
    approval_rules: tuple[ApprovalRule, ...] = ()
    approval_signers: tuple[Signer, ...] = ()
    approval_automatic: tuple[AutomaticApproval, ...] = ()
    host_name: str | None = None
    """What this host is called in approvals that are signed elsewhere; None for what the kernel calls it."""
    approval_notify: str | None = None
    """The operator's own program that tells the reviewers of a request; an absolute path."""
    acl: tuple[AclEntry, ...] = ()
    trust_denials: tuple[AclEntry, ...] = ()
    """What follows from `trust_sources`: no component writes where trusted ones come from."""
    roles: tuple[Role, ...] = ()
    components: tuple[ComponentSettings, ...] = ()
    dev: tuple[DevComponent, ...] = ()
    """What runs in dev mode, whoever starts it."""
    providers: tuple[ProviderSettings, ...] = ()
    shared_storage: tuple[SharedStorageSettings, ...] = ()
    files: tuple[str, ...] = ()
    config_places: tuple[str, ...] = ()
    """Where configuration is read from, whether it is there yet or not, and the operator's own program: who could write
    there could grant.
    """
    origins: Mapping[KeyPath, Origin] = field(default_factory=dict)

    @property
    def acl_in_force(self) -> tuple[AclEntry, ...]:
        """Return what is written and what follows from the rest."""
        return (*self.acl, *self.trust_denials)

    def component(self, name: str, instance: str = "") -> ComponentSettings:
        """Return what is said of `NAME@INSTANCE`, else of `NAME`, else the defaults."""
        exact = [each for each in self.components if each.name == name and each.instance == instance]
        general = [each for each in self.components if each.name == name and not each.instance]
        return (*exact, *general, ComponentSettings(name, instance))[0]


def settings_not_enforced(settings: Settings) -> tuple[str, ...]:
    """Return each section or key that is written and that nothing in this version enforces."""
    keys: list[str] = []
    for table in ("defaults", "maxima"):
        if ("quota", table, "network_bandwidth") in settings.origins:
            keys.append(f"quota.{table}.network_bandwidth")
    for path in settings.origins:
        if len(path) == 4 and path[0] == "components" and path[2] == "quota" and path[3] not in ENFORCED_QUOTAS:
            keys.append(f'components."{path[1]}".quota.{path[3]}')
    return tuple(keys)


def format_quota(quota: Quota) -> dict[str, str]:
    """Return the amounts of a quota as they are written in the files, those that are stated."""
    forms = {
        "storage": (quota.storage_bytes, units.format_size),
        "message_rate": (quota.message_rate_per_s, units.format_rate),
        "network_bandwidth": (quota.network_bandwidth_bytes_per_s, units.format_bandwidth),
        "cpu_time": (quota.cpu_time_ns_per_s, units.format_cpu),
        "memory": (quota.memory_bytes, units.format_size),
    }
    return {key: form(amount) for key, (amount, form) in forms.items() if amount is not None}
