"""The policy of one component instance as plain data: what is resolved by the supervisor, and sent to who decides."""

from ipc.naming import identity_text
from ipc.policy.access import AclEntry, Role
from ipc.policy.capability import Grant
from ipc.policy.wire import require_list, require_map, require_text, require_texts, wire_texts
from ipc.struct import Struct

_KEYS = (
    "component",
    "instance",
    "grants",
    "acl",
    "roles",
    "assigned_roles",
    "host_paths",
    "guarded_lifted",
    "path_directories",
    "home_directories",
)


class PolicyDocument(Struct, frozen=True):
    """All that decisions about one component instance depend on."""

    component: str
    instance: str
    """What stands behind the `@` of `NAME@INSTANCE`; may be empty."""
    grants: tuple[Grant, ...] = ()
    acl: tuple[AclEntry, ...] = ()
    roles: tuple[Role, ...] = ()
    assigned_roles: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()
    """The host's own state, audit log, configuration and sockets: forbidden with all beneath them."""
    guarded_lifted: tuple[str, ...] = ()
    """Paths below /proc, /sys, /dev or /boot that the host lifts from being guarded, each exactly."""
    path_directories: tuple[str, ...] = ()
    """Where programs are started from, the supervisor itself included: writing there is forbidden."""
    home_directories: tuple[str, ...] = ()
    """Where people's key stores are: their forbidden files are recognised by device and inode too."""

    @property
    def identity(self) -> str:
        """`NAME@INSTANCE`, or the name alone."""
        return identity_text(self.component, self.instance)

    def to_wire(self) -> dict[str, object]:
        """A map of plain values that msgpack can pack."""
        return {
            "component": self.component,
            "instance": self.instance,
            "grants": [grant.to_wire() for grant in self.grants],
            "acl": [entry.to_wire() for entry in self.acl],
            "roles": [role.to_wire() for role in self.roles],
            "assigned_roles": list(self.assigned_roles),
            "host_paths": wire_texts(self.host_paths),
            "guarded_lifted": wire_texts(self.guarded_lifted),
            "path_directories": wire_texts(self.path_directories),
            "home_directories": wire_texts(self.home_directories),
        }

    @classmethod
    def from_wire(cls, value: object) -> "PolicyDocument":
        """The document of such a map; raises LocalProtocolError on any other shape (only our supervisor sends it)."""
        fields = require_map(value, "policy document", _KEYS)
        return cls(
            component=require_text(fields, "component"),
            instance=require_text(fields, "instance"),
            grants=tuple(Grant.from_wire(item) for item in require_list(fields, "grants")),
            acl=tuple(AclEntry.from_wire(item) for item in require_list(fields, "acl")),
            roles=tuple(Role.from_wire(item) for item in require_list(fields, "roles")),
            assigned_roles=require_texts(fields, "assigned_roles"),
            host_paths=require_texts(fields, "host_paths"),
            guarded_lifted=require_texts(fields, "guarded_lifted"),
            path_directories=require_texts(fields, "path_directories"),
            home_directories=require_texts(fields, "home_directories"),
        )

    def digest(self) -> str:
        """The SHA-256, in hex, of the canonical document: the order in which rules are written does not change it."""
        import hashlib  # only for those who ask
        import json

        def canonical(items: object) -> list[str]:
            assert isinstance(items, list)
            return sorted(json.dumps(item, sort_keys=True, default=_bytes_as_text) for item in items)

        document = self.to_wire()
        for key, item in document.items():
            if isinstance(item, list):
                document[key] = canonical(item)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _bytes_as_text(value: object) -> str:
    """Undecodable names, distinguishable from any text."""
    assert isinstance(value, bytes)
    return f"\0bytes:{value.hex()}"
