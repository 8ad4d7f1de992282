"""Who one component instance is to this host: made once before its start, and the same for each process it meets.

The supervisor makes it when it decides what is granted, and keeps it for as long as the component is kept up: another
worker, another warden and another broker are told the very same. What decides (`ipc.policy`) has the rules of the
document that `policy_digest` names; what is put on record has the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipc.naming import identity_text
from ipc.struct import Struct, replace

if TYPE_CHECKING:
    from ipc.policy.document import PolicyDocument


class SecurityContext(Struct, frozen=True, forbid_unknown_fields=True):
    """Identity, bytes, trust, and what was granted by whom. Digests are SHA-256 in hex; "" is what there isn't."""

    component: str
    policy_digest: str
    """Of the document that holds what is granted, what the host denies, and what each role may."""
    instance: str = ""
    """What stands behind the `@` of `NAME@INSTANCE`; one that runs has a name of its own besides."""
    version: str = ""
    package_digest: str = ""
    """What its package is called, by all its bytes; of a directory that nobody judged there is none."""
    component_digest: str = ""
    """The program's; while that isn't read, the one that it must have, and "" where nobody said so."""
    trust: str = "unknown"
    trust_rule: str = ""
    """Of what is trusted: the entry of the host's settings that says so, with file and line."""
    approval: str = ""
    """Who said yes to what is granted: an approval, a rule, a person, the flags of a command."""
    roles: tuple[str, ...] = ()
    """The host's roles that it has; what each permits is in the document."""

    @property
    def identity(self) -> str:
        """Return `NAME@INSTANCE`, or the name alone."""
        return identity_text(self.component, self.instance)

    def of_program(self, sha256: str) -> SecurityContext:
        """Return it for a program that has been read; raises ValueError where that isn't the one it must be."""
        if self.component_digest not in ("", sha256):
            raise ValueError(f"{self.identity}: the program is {sha256}, and not {self.component_digest}")
        return replace(self, component_digest=sha256)

    def told_at_start(self) -> dict[str, object]:
        """Return what the record of a start says besides, where there is something to be said."""
        told = {
            "name": self.identity if self.instance else "",
            "version": self.version,
            "package": self.package_digest,
            "trusted_by": self.trust_rule,
            "roles": list(self.roles),
        }
        return {key: value for key, value in told.items() if value}


def context_of(
    document: PolicyDocument,
    approval: str,
    trust: str = "unknown",
    *,
    version: str = "",
    trust_rule: str = "",
    package_digest: str = "",
    component_digest: str = "",
) -> SecurityContext:
    """Return the context of what starts with a policy; identity, roles and grants are the document's."""
    return SecurityContext(
        component=document.component,
        instance=document.instance,
        policy_digest=document.digest(),
        version=version,
        package_digest=package_digest,
        component_digest=component_digest,
        trust=trust,
        trust_rule=trust_rule,
        approval=approval,
        roles=document.assigned_roles,
    )
