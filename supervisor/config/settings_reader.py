"""Merged TOML sources → `Settings`. Pure; the files were read by `supervisor.config.settings_files`."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ipc.errors import ConfigError
from ipc.messages import AuditBudget
from ipc.policy.access import AclEntry, Role, find_role_cycle, is_action_family, parse_permission
from ipc.policy.capability import is_action, pattern_problem, separator_of
from ipc.policy.forbidden import GUARDED_TREES
from ipc.policy.patterns import PatternError, parse_pattern
from supervisor.approvals.host_names import check_host_name
from supervisor.approvals.read import read_approvals
from supervisor.audit.retention import DEFAULT_MAX_SIZE_BYTES, MIN_KEEP_NS, MIN_MAX_SIZE_BYTES, AuditRetention
from supervisor.config import units
from supervisor.config.dev_settings import read_dev
from supervisor.config.quota_reader import read_quota
from supervisor.config.settings import (
    DEFAULT_MAXIMA,
    DEFAULT_QUOTA,
    LAYERS,
    REQUIRED_LAYERS,
    ComponentSettings,
    Control,
    HostDirectories,
    SecretSource,
    Settings,
    SettingsError,
)
from supervisor.config.toml_merge import merge_sources
from supervisor.config.toml_reader import Document, Section, describe, one_of
from supervisor.config.toml_source import TomlSource
from supervisor.fleet.provider_settings import read_providers
from supervisor.fleet.shared_storage import read_shared_storage
from supervisor.manifest import checks
from supervisor.manifest.values import ParameterValue, Quota

if TYPE_CHECKING:
    from supervisor.trust.sources import TrustSource

SCHEMA: Final = 1
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9-]{0,62}(?:@[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?")
_PRINCIPAL: Final = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


def read_settings(sources: Sequence[TomlSource], directories: HostDirectories) -> Settings:
    """Merge the sources, later over earlier, and check the result; raise `SettingsError`."""
    merged = merge_sources(sources)
    document = Document(merged)
    for source in sources:
        if "schema" not in source.values:
            alone = Document(source)
            alone.root.fixed("schema", SCHEMA, missing=f"schema = {SCHEMA} as the first line")
            document.problems.extend(alone.problems)
    settings = read_document(document, directories, tuple(source.file for source in sources))
    if document.problems:
        raise SettingsError(tuple(document.problems))
    return settings


def read_document(document: Document, directories: HostDirectories, files: tuple[str, ...]) -> Settings:
    """Read every key of the settings; what is wrong is noted in the document, and `config.schema` reads along."""
    return _SettingsReader(document).read(directories, files)


class _SettingsReader:
    def __init__(self, document: Document) -> None:
        self._document = document

    def read(self, directories: HostDirectories, files: tuple[str, ...]) -> Settings:
        root = self._document.root
        root.fixed("schema", SCHEMA)
        quota = root.section("quota")
        maxima = _over(DEFAULT_MAXIMA, read_quota(quota.section("maxima")))
        # A host that lowers only the maxima means it for those who ask for nothing, too.
        defaults = _under(_over(DEFAULT_QUOTA, read_quota(quota.section("defaults"))), maxima)
        quota.finish()
        roles = self._roles(root.section("roles"))
        audit = root.section("audit")
        approvals = read_approvals(root.section("approvals"), _check_family)
        trusted, denials = self._trust(root.section("trust"))
        host = root.section("host")
        name = host.text("name", check_host_name)
        settings = Settings(
            directories=self._host(host, directories),
            required_layers=self._confinement(root.section("confinement")),
            quota_defaults=defaults,
            quota_maxima=maxima,
            control=self._control(root.section("control")),
            audit=self._audit(audit),
            audit_budget=self._audit_budget(audit),
            trust_sources=trusted,
            approval_rules=approvals.rules,
            approval_signers=approvals.signers,
            approval_automatic=approvals.automatic,
            host_name=name or None,
            approval_notify=approvals.notify,
            acl=self._acl(root),
            trust_denials=denials,
            roles=roles,
            components=self._components(root.section("components"), roles),
            dev=read_dev(root.section("dev")),
            providers=read_providers(root.section("providers")),
            shared_storage=read_shared_storage(root.section("storage")),
            files=files,
            origins=self._document.source.origins,
        )
        root.finish()
        return settings

    def _host(self, section: Section, directories: HostDirectories) -> HostDirectories:
        found = {
            name: section.text(name, checks.check_absolute_path, default=default).rstrip("/") or "/"
            for name, default in (
                ("state", directories.state),
                ("data", directories.data),
                ("run", directories.run),
                ("log", directories.log),
            )
        }
        section.finish()
        host = HostDirectories(**found)
        for name, own in (("state", host.state), ("run", host.run), ("log", host.log)):
            if own == "/" or _is_beneath(host.data, own):
                expected = "a directory that doesn't hold the components' data, because components may not touch it"
                section.problem(name if name in section else "data", expected, f'"{own}", with data in "{host.data}"')
        return host

    def _confinement(self, section: Section) -> tuple[str, ...]:
        if "require" not in section:
            section.finish()
            return REQUIRED_LAYERS
        required = section.texts("require", lambda text: None if text in LAYERS else one_of(LAYERS))
        section.raw("require")
        section.finish()
        return required

    def _control(self, section: Section) -> Control:
        def check(text: str) -> str | None:
            return None if _PRINCIPAL.fullmatch(text) else "a user's name, or a group's behind an @ (\"@operators\")"

        control = Control(*(section.texts(name, check) for name in ("viewers", "operators", "approvers", "admins")))
        section.finish()
        return control

    def _audit(self, section: Section) -> AuditRetention:
        keep_ns = section.quantity("keep", units.parse_duration_ns)
        size_bytes = section.quantity("max_size", units.parse_size_bytes)
        if keep_ns is not None and keep_ns < MIN_KEEP_NS:
            section.problem("keep", f'at least "{units.format_duration(MIN_KEEP_NS)}"', units.format_duration(keep_ns))
        if size_bytes is not None and size_bytes < MIN_MAX_SIZE_BYTES:
            least = units.format_size(MIN_MAX_SIZE_BYTES)
            section.problem("max_size", f'at least "{least}", or "unlimited"', units.format_size(size_bytes))
        if size_bytes is None:
            size_bytes = DEFAULT_MAX_SIZE_BYTES
        return AuditRetention(keep_ns, None if size_bytes == units.UNLIMITED else size_bytes)

    def _audit_budget(self, audit: Section) -> AuditBudget:
        section, default = audit.section("budget"), AuditBudget()
        most = 10**9
        budget = AuditBudget(
            refused_at_once=section.integer("refused", minimum=1, maximum=most) or default.refused_at_once,
            refused_per_s=self._rate(section, "refused_rate") or default.refused_per_s,
            refused_tolerated_ns=section.quantity("tolerated", units.parse_duration_ns) or default.refused_tolerated_ns,
            allowed_at_once=section.integer("allowed", minimum=1, maximum=most) or default.allowed_at_once,
            allowed_per_s=self._rate(section, "allowed_rate") or default.allowed_per_s,
        )
        section.finish()
        audit.finish()
        return budget

    def _rate(self, section: Section, key: str) -> int | None:
        rate = section.quantity(key, units.parse_rate_per_s)
        if rate is not None and not 0 < rate <= 10**6:
            section.problem(key, 'a rate between "1/s" and "1000000/s"', units.format_rate(rate))
        return rate

    def _trust(self, section: Section) -> "tuple[tuple[TrustSource, ...], tuple[AclEntry, ...]]":
        sources: tuple[TrustSource, ...] = ()
        denials: tuple[AclEntry, ...] = ()
        if section.values:
            # Only here: most hosts trust nothing unasked, and then nothing of it is imported.
            from supervisor.trust.read import read_trust, trust_denials

            sources = read_trust(section)
            denials = trust_denials(sources)
        section.finish()
        return sources, denials

    def _acl(self, root: Section) -> tuple[AclEntry, ...]:
        entries: list[AclEntry] = []
        for section in root.array_of_sections("acl"):
            effect = section.choice("effect", ("allow", "deny"), default="deny", required=True)
            who = section.text("who", _check_who, required=True)
            action = section.text("action", _check_family, required=True)
            resource = section.text("resource", required=True)
            if action and resource:
                problem = _resource_problem(action, resource)
                if problem is not None:
                    section.problem("resource", problem, describe(resource))
            section.finish()
            source = self._document.source.origin((*section.path, "resource"))
            entries.append(AclEntry(who, action, resource, "allow" if effect == "allow" else "deny", str(source)))
        return tuple(entries)

    def _roles(self, section: Section) -> tuple[Role, ...]:
        roles: list[Role] = []
        for name, inner in section.sections():
            expected = checks.check_name(name)
            if expected is not None:
                section.problem(name, expected, f'the key "{name}"')
            roles.append(Role(name, inner.texts("permissions", _check_permission), inner.texts("inherits")))
            inner.finish()
        known = {role.name for role in roles}
        for role in roles:
            for parent in role.inherits:
                if parent not in known:
                    self._document.add((*section.path, role.name, "inherits"), _names(known, "role"), describe(parent))
        cycle = find_role_cycle(roles)
        if cycle is not None:
            path = (*section.path, cycle[0], "inherits")
            self._document.add(path, "inheritance without a cycle", " → ".join(cycle))
        return tuple(roles)

    def _components(self, section: Section, roles: tuple[Role, ...]) -> tuple[ComponentSettings, ...]:
        known = {role.name for role in roles}
        found: list[ComponentSettings] = []
        for identity, inner in section.sections():
            if not _IDENTITY.fullmatch(identity):
                section.problem(identity, 'a component\'s name or "NAME@INSTANCE"', f'the key "{identity}"')
            name, _, instance = identity.partition("@")
            found.append(
                ComponentSettings(
                    name=name,
                    instance=instance,
                    version=inner.optional_text("version", checks.check_version),
                    enabled=inner.boolean("enabled", default=True),
                    run_as=inner.optional_text("run_as", _check_user),
                    roles=inner.texts("roles", lambda text: None if text in known else _names(known, "role")),
                    parameters=self._parameters(inner.section("parameters")),
                    secrets=self._secrets(inner.section("secrets")),
                    quota=read_quota(inner.section("quota")),
                    allow_broad=inner.texts("allow_broad", _check_permission),
                    lift_guarded=inner.texts("lift_guarded", _check_guarded),
                )
            )
            inner.finish()
        return tuple(found)

    def _parameters(self, section: Section) -> tuple[tuple[str, ParameterValue], ...]:
        found: list[tuple[str, ParameterValue]] = []
        for name in section.values:
            value = section.scalar(name)
            if value is not None:
                found.append((name, value))
        return tuple(found)

    def _secrets(self, section: Section) -> tuple[SecretSource, ...]:
        found: list[SecretSource] = []
        for name, value in section.values.items():
            if not isinstance(value, dict):
                # Somebody may have written the secret itself here: it is not repeated in a message.
                section.raw(name)
                section.problem(name, "a table { credential = … } or { file = … }", "something else")
                continue
            inner = section.section(name)
            expected = checks.check_environment_name(name)
            if expected is not None:
                section.problem(name, expected, f'the key "{name}"')
            credential = inner.optional_text("credential", _check_credential)
            file = inner.optional_text("file", checks.check_absolute_path)
            if ("credential" in inner) == ("file" in inner):
                inner.problem(None, "one of credential and file", "both" if "file" in inner else "neither")
            inner.finish()
            found.append(SecretSource(name, credential or None, file or None))
        return tuple(found)


def _over(base: Quota, stated: Quota) -> Quota:
    return _combine(base, stated, lambda low, high: low if high is None else high)


def _under(quota: Quota, maxima: Quota) -> Quota:
    return _combine(quota, maxima, lambda amount, most: amount if most is None or amount is None else min(amount, most))


def _combine(left: Quota, right: Quota, choose: Callable[[int | None, int | None], int | None]) -> Quota:
    return Quota(
        storage_bytes=choose(left.storage_bytes, right.storage_bytes),
        message_rate_per_s=choose(left.message_rate_per_s, right.message_rate_per_s),
        network_bandwidth_bytes_per_s=choose(left.network_bandwidth_bytes_per_s, right.network_bandwidth_bytes_per_s),
        cpu_time_ns_per_s=choose(left.cpu_time_ns_per_s, right.cpu_time_ns_per_s),
        memory_bytes=choose(left.memory_bytes, right.memory_bytes),
    )


def _is_beneath(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _check_family(text: str) -> str | None:
    return None if is_action_family(text) else 'an action such as "filesystem.read", "filesystem.*" or "*"'


def _check_who(text: str) -> str | None:
    try:
        parse_pattern(text, ".")
    except PatternError as error:
        return f'a component\'s name, "NAME@INSTANCE" or a pattern ({error.reason})'
    return None


def _check_user(text: str) -> str | None:
    return None if text.isdecimal() or (_PRINCIPAL.fullmatch(text) and text[0] != "@") else "a user's name or uid"


def _check_credential(text: str) -> str | None:
    return None if _CREDENTIAL.fullmatch(text) else "the name of a systemd credential"


def _check_guarded(text: str) -> str | None:
    """Guarded paths are lifted one by one: a pattern could lift more than was looked at."""
    wrong = checks.check_absolute_path(text)
    beneath = any(text.startswith(tree + "/") and text != tree + "/" for tree in GUARDED_TREES)
    exact = not any(character in "*?[" for character in text) and not text.endswith("/")
    return None if wrong is None and beneath and exact else f"one exact path beneath {', '.join(GUARDED_TREES)}"


def _check_permission(text: str) -> str | None:
    try:
        permission = parse_permission(text, "")
    except ConfigError:
        return "ACTION:PATTERN, such as filesystem.read:/var/log/**"
    return _resource_problem(permission.action, permission.resource)


def _resource_problem(action: str, resource: str) -> str | None:
    """What was expected of a rule's resource; `*` and `**` alone are every resource of any action."""
    if resource in ("*", "**"):
        return None
    if is_action(action):
        reason = pattern_problem(action, resource)
    elif action == "network.*":
        reason = pattern_problem("network.connect", resource)
    elif action == "*":
        return f'"**", or one action: the resources of {action} have no pattern language in common'
    else:
        reason = _family_problem(action, resource)
    return None if reason is None else f"a pattern of resources of {action} ({reason})"


def _family_problem(action: str, resource: str) -> str | None:
    try:
        parse_pattern(resource, separator_of(action))
    except PatternError as error:
        return error.reason
    return None


def _names(known: "set[str]", kind: str) -> str:
    return f"a {kind} that is defined ({', '.join(sorted(known)) or 'there is none'})"
