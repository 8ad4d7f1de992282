"""The effective settings of this host, key by key, each with where it came from. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ipc.struct import Struct
from supervisor.config import places, units
from supervisor.config.dev_settings import INSTALLED
from supervisor.config.quota import Quota
from supervisor.config.settings import ComponentSettings, HostDirectories, Settings, format_quota
from supervisor.config.toml_source import KeyPath, key_name
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.fleet.shared_storage import SharedStorageSettings
from supervisor.trust.sources import format_time, written_keys

QUOTA_KEYS = ("memory", "storage", "message_rate", "network_bandwidth", "cpu_time")
_XDG = {"state": "XDG_STATE_HOME", "data": "XDG_DATA_HOME", "run": "XDG_RUNTIME_DIR", "log": "XDG_STATE_HOME"}


class Setting(Struct, frozen=True):
    """One key. `kind` of its origin: default, file, environment or flag; `place` is the file, variable or flag."""

    path: KeyPath
    value: object
    kind: str
    place: str = ""
    line: int = 0

    @property
    def key(self) -> str:
        """The key as TOML writes it."""
        return key_name(self.path)

    @property
    def origin(self) -> str:
        """Where it came from, for a person."""
        if self.kind == "file":
            return f"{self.place}:{self.line}" if self.line else self.place
        return f"{self.kind}, {self.place}" if self.place else self.kind


def effective_settings(
    settings: Settings, environment: Mapping[str, str], uid: int, state_dir: str | None
) -> tuple[Setting, ...]:
    """Return every setting in force, in the order of the reference page."""
    view = _View(settings)
    return (
        *view.directories(environment, uid, state_dir),
        view.setting(("confinement", "require"), list(settings.required_layers)),
        *view.quota("defaults", settings.quota_defaults),
        *view.quota("maxima", settings.quota_maxima),
        *view.control(),
        *view.rules(),
        *(each for component in settings.components for each in view.component(component)),
        *(view.setting(("dev", "components", each.identity), each.directory or INSTALLED) for each in settings.dev),
        *(each for provider in settings.providers for each in view.provider(provider)),
        *(each for shared in settings.shared_storage for each in view.shared_storage(shared)),
    )


class _View:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def setting(self, path: KeyPath, value: object) -> Setting:
        """Return a setting that a file or the default gives."""
        origin = self._settings.origins.get(path)
        if origin is None:
            return Setting(path, value, "default")
        return Setting(path, value, "file", origin.file, origin.line)

    def directories(self, environment: Mapping[str, str], uid: int, state_dir: str | None) -> Iterator[Setting]:
        settings = self._settings
        state = places.state_directory(state_dir, environment, settings)
        named = state != os.path.realpath(settings.directories.state)
        flag = ("flag", "--state-dir") if state_dir else ("environment", "$AIRSSYS_STATE")
        moved = HostDirectories(
            state=state,
            data=places.data_directory(state, settings),
            # Root's is one for the whole machine (`supervisor.cli.run_setup`).
            run=os.path.join(state, "run") if uid != 0 else settings.directories.run,
            log=os.path.dirname(places.audit_directory(state, settings)),
        )
        yield self.setting(("host", "name"), settings.host_name)
        for name in ("state", "data", "run", "log"):
            path, own = ("host", name), getattr(settings.directories, name)
            value = getattr(moved, name) if named else own
            if named and value != own:
                yield Setting(path, value, *flag)
            elif path not in settings.origins and uid != 0:
                variable = _XDG[name]
                used = variable if environment.get(variable, "").startswith("/") else "HOME"
                yield Setting(path, value, "environment", f"${used}")
            else:
                yield self.setting(path, value)

    def quota(self, table: str, quota: Quota) -> Iterator[Setting]:
        amounts = format_quota(quota)
        for key in QUOTA_KEYS:
            path: KeyPath = ("quota", table, key)
            maximum: KeyPath = ("quota", "maxima", key)
            lowered = table == "defaults" and amounts.get(key) == format_quota(self._settings.quota_maxima).get(key)
            # A maximum lowers the default, too: then that is where it came from.
            origin_path = maximum if lowered and path not in self._settings.origins else path
            found = self.setting(origin_path, amounts.get(key))
            yield Setting(path, found.value, found.kind, found.place, found.line)

    def control(self) -> Iterator[Setting]:
        control, audit = self._settings.control, self._settings.audit
        for name in ("viewers", "operators", "approvers", "admins"):
            yield self.setting(("control", name), list(getattr(control, name)))
        keep = None if audit.keep_ns is None else units.format_duration(audit.keep_ns)
        size = None if audit.max_size_bytes is None else units.format_size(audit.max_size_bytes)
        yield self.setting(("audit", "keep"), keep)
        yield self.setting(("audit", "max_size"), size)
        budget = self._settings.audit_budget
        yield self.setting(("audit", "budget", "refused"), budget.refused_at_once)
        yield self.setting(("audit", "budget", "refused_rate"), units.format_rate(budget.refused_per_s))
        yield self.setting(("audit", "budget", "tolerated"), units.format_duration(budget.refused_tolerated_ns))
        yield self.setting(("audit", "budget", "allowed"), budget.allowed_at_once)
        yield self.setting(("audit", "budget", "allowed_rate"), units.format_rate(budget.allowed_per_s))

    def rules(self) -> Iterator[Setting]:
        settings = self._settings
        for source in settings.trust_sources:
            for key, value in written_keys(source).items():
                yield self.setting(("trust", "sources", source.index, key), value)
        for index, rule in enumerate(settings.approval_rules):
            yield self.setting(("approvals", "rules", index, "when"), list(rule.when))
            yield self.setting(("approvals", "rules", index, "approvers"), rule.approvers)
            yield self.setting(("approvals", "rules", index, "broad"), rule.broad)
            for key, amount in format_quota(rule.over).items():
                yield self.setting(("approvals", "rules", index, "over", key), amount)
            yield self.setting(("approvals", "rules", index, "review"), units.format_duration(rule.review_ns))
            expires = None if rule.expires_ns is None else units.format_duration(rule.expires_ns)
            yield self.setting(("approvals", "rules", index, "expires"), expires)
        for signer in settings.approval_signers:
            at: KeyPath = ("approvals", "signers", signer.index)
            yield self.setting((*at, "key"), signer.key.text)
            yield self.setting((*at, "identity"), signer.identity)
            yield self.setting((*at, "uid"), signer.uid)
            yield self.setting((*at, "valid_after"), format_time(signer.valid_after_s))
            yield self.setting((*at, "valid_before"), format_time(signer.valid_before_s))
            yield self.setting((*at, "revoked"), signer.revoked)
        for index, automatic in enumerate(settings.approval_automatic):
            yield self.setting(("approvals", "automatic", index, "change"), automatic.change)
            yield self.setting(("approvals", "automatic", index, "signer"), automatic.signer)
        yield self.setting(("approvals", "notify"), settings.approval_notify)
        for index, entry in enumerate(settings.acl):
            written = {
                "effect": entry.effect,
                "who": entry.identity,
                "action": entry.action,
                "resource": entry.resource,
            }
            for key, value in written.items():
                yield self.setting(("acl", index, key), value)
        for role in settings.roles:
            yield self.setting(("roles", role.name, "permissions"), list(role.permissions))
            yield self.setting(("roles", role.name, "inherits"), list(role.inherits))

    def component(self, own: ComponentSettings) -> Iterator[Setting]:
        at: KeyPath = ("components", own.identity)
        for name in ("version", "enabled", "run_as"):
            yield self.setting((*at, name), getattr(own, name))
        for name in ("roles", "allow_broad", "lift_guarded"):
            yield self.setting((*at, name), list(getattr(own, name)))
        for key, value in own.parameters:
            yield self.setting((*at, "parameters", key), value)
        for secret in own.secrets:
            source = "file" if secret.file is not None else "credential"
            yield self.setting((*at, "secrets", secret.name, source), secret.file or secret.credential)
        for key, amount in format_quota(own.quota).items():
            yield self.setting((*at, "quota", key), amount)

    def provider(self, own: ProviderSettings) -> Iterator[Setting]:
        at: KeyPath = ("providers", own.name)
        yield self.setting((*at, "capabilities"), list(own.capabilities))
        if own.python:
            yield self.setting((*at, "python"), own.python)
            yield self.setting((*at, "path"), own.path or None)
        else:
            yield self.setting((*at, "command"), list(own.command))
        yield self.setting((*at, "timeout"), units.format_duration(own.timeout_ns))
        yield self.setting((*at, "max_payload"), units.format_size(own.max_payload_bytes))
        yield self.setting((*at, "memory"), units.format_size(own.memory_bytes))
        yield self.setting((*at, "parallel"), own.parallel)
        for key, text in own.environment:
            yield self.setting((*at, "env", key), text)
        for key, value in own.settings:
            yield from self._free((*at, "settings", key), value)

    def shared_storage(self, own: SharedStorageSettings) -> Iterator[Setting]:
        at: KeyPath = ("storage", "shared", own.name)
        yield self.setting((*at, "components"), list(own.components))
        yield self.setting((*at, "quota"), units.format_size(own.quota_bytes))

    def _free(self, path: KeyPath, value: object) -> Iterator[Setting]:
        """What a provider's own settings say: tables key by key."""
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from self._free((*path, key), inner)
        else:
            yield self.setting(path, value)
