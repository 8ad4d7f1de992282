"""The last step of an installation, of which each part counts only with the next: kept, on record, entered.

An installation that ends before its end leaves nothing that counts: a package that no name means, which the next one
removes. What is entered was put on record before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.packages.installed import Installed, is_same_source, source_words
from supervisor.packages.naming import InstallRefusal, Permitted, decide_install
from supervisor.packages.provenance import Fetched
from supervisor.packages.registry import Registry
from supervisor.packages.store import PackageStore
from supervisor.signing.keys import read_public_key

Record = Callable[[AuditEvent], object]
"""Makes an event durable, or raises AuditError."""


class InstallRefusedError(ConfigError):
    """A package may not have the name that it asks for."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM

    def __init__(self, refusal: InstallRefusal) -> None:
        """Say it with its code."""
        super().__init__(f"{refusal.reason} [{refusal.code}]", hint=refusal.hint)
        self.refusal = refusal


def find_refusal(registry: Registry, new: Installed, permitted: Permitted) -> InstallRefusal | None:
    """Return why `new` may not have its name, as things are now; None where it may."""
    names = dict.fromkeys(each.called for each in registry.named(new.name))
    under_its_name = [each for each in map(registry.active, names) if each is not None]
    return decide_install(new, registry.active(new.called), under_its_name, permitted)


def require_allowed(registry: Registry, new: Installed, permitted: Permitted, record: Record) -> Installed | None:
    """Return what its name means now; raises InstallRefusedError, put on record, where `new` may not have it."""
    active = registry.active(new.called)
    refusal = find_refusal(registry, new, permitted)
    if refusal is not None:
        event = installed_event("component_install_refused", new, active)
        record(replace(event, decision="denied", code=refusal.code, reason=refusal.reason))
        raise InstallRefusedError(refusal)
    return active


def enter(
    store: PackageStore,
    registry: Registry,
    incoming: str,
    fetched: Fetched,
    new: Installed,
    permitted: Permitted,
    expected: Installed | None,
    record: Record,
) -> None:
    """Keep what was fetched into `incoming`, put that on record, and let its name mean it from now on.

    `expected` is what its name meant when a person looked at the difference; raises ConfigError where that has changed.
    """
    with store.locked():
        store.clear(frozenset(each.digest for each in registry.all()))
        active = require_allowed(registry, new, permitted, record)
        if (active and active.digest) != (expected and expected.digest):
            raise ConfigError(
                f"{new.called.text}: another version of it was installed meanwhile", hint="look at it and try again"
            )
        store.keep(incoming, fetched.contents)
        record(installed_event("component_installed", new, active))
        registry.add(new, fetched.signatures)


def installed_event(name: str, new: Installed, active: Installed | None) -> AuditEvent:
    """Return the record of what is done with an installed package; `active` is what its name means until then."""
    detail: dict[str, object] = {
        "name": new.called.text,
        "version": new.version,
        "package": new.digest,
        "source": source_words(new.provenance),
    }
    if new.provenance.revision:
        detail["revision"] = new.provenance.revision
    if new.signers:
        detail["signers"] = [read_public_key(each).fingerprint for each in new.signers]
    if active is not None:
        before = detail["before"] = {"version": active.version, "package": active.digest}
        if not is_same_source(active.provenance, new.provenance):
            before["source"] = source_words(active.provenance)
    return AuditEvent(name, component=new.name, actor=new.installed_by, detail=detail)
