"""The host's own rules: access control entries, and roles with inheritance."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from ipc.errors import ConfigError, LocalProtocolError
from ipc.policy.capability import Grant, is_action
from ipc.policy.patterns import parse_pattern
from ipc.policy.wire import require_map, require_text, require_texts, wire_text, wire_texts
from ipc.struct import Struct

Effect = Literal["allow", "deny"]
_ACTION_FAMILY: Final = re.compile(
    r"\*|(?:filesystem|network|storage|messaging|secrets)\.\*|custom\.(?:[a-z][a-z0-9-]*\.)?\*"
)


class AclEntry(Struct, frozen=True):
    """One entry of the host's access control list.

    `identity` is a component's name (any instance of it), `NAME@INSTANCE`, or either with wildcards; `*` is everyone.
    `action` is an action, `TYPE.*`, or `*`; `resource` is a pattern in the grammar of the action, and `**` or `*`
    alone is every resource.
    """

    identity: str
    action: str
    resource: str
    effect: Effect
    source: str = "airssys.toml"

    @property
    def rule(self) -> str:
        """The entry as decisions name it."""
        return f'acl {self.effect} {self.identity} {self.action} "{self.resource}" ({self.source})'

    def concerns(self, component: str, instance: str) -> bool:
        """Whether the entry speaks of this component instance."""
        identity = f"{component}@{instance}" if "@" in self.identity else component
        if self.identity == identity or self.identity == "*":
            return True
        # A name holds no dot, so with that separator a wildcard spans the whole of it.
        return parse_pattern(self.identity, ".").matches(identity)

    def to_wire(self) -> dict[str, object]:
        """A map of plain values that msgpack can pack."""
        return {
            "identity": wire_text(self.identity),
            "action": self.action,
            "resource": wire_text(self.resource),
            "effect": self.effect,
            "source": wire_text(self.source),
        }

    @classmethod
    def from_wire(cls, value: object) -> "AclEntry":
        """The entry of such a map; raises LocalProtocolError on any other shape."""
        fields = require_map(value, "acl entry", ("identity", "action", "resource", "effect", "source"))
        effect = require_text(fields, "effect")
        if effect not in ("allow", "deny"):
            raise LocalProtocolError(f"acl entry: effect is allow or deny, got {effect!r}")
        return cls(
            require_text(fields, "identity"),
            require_text(fields, "action"),
            require_text(fields, "resource"),
            "allow" if effect == "allow" else "deny",
            require_text(fields, "source"),
        )


class Role(Struct, frozen=True):
    """A named set of permissions, such as `filesystem.read:/var/log/**`, and the roles whose permissions it has too."""

    name: str
    permissions: tuple[str, ...]
    inherits: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """A map of plain values that msgpack can pack."""
        return {
            "name": self.name,
            "permissions": wire_texts(self.permissions),
            "inherits": list(self.inherits),
        }

    @classmethod
    def from_wire(cls, value: object) -> "Role":
        """The role of such a map; raises LocalProtocolError on any other shape."""
        fields = require_map(value, "role", ("name", "permissions", "inherits"))
        return cls(
            require_text(fields, "name"), require_texts(fields, "permissions"), require_texts(fields, "inherits")
        )


class Permission(Struct, frozen=True):
    """What a role permits: the actions of a name or family, on what a pattern covers."""

    action: str
    resource: str
    role: str

    def __str__(self) -> str:
        """The form in which it is written."""
        return f"{self.action}:{self.resource}"


def is_action_family(action: str) -> bool:
    """Whether this names one action, or several as `TYPE.*` or `*`."""
    return is_action(action) or _ACTION_FAMILY.fullmatch(action) is not None


def action_covers(family: str, action: str) -> bool:
    """Whether an action, `TYPE.*` or `*` includes this action."""
    return family in (action, "*") or (family.endswith(".*") and action.startswith(family[:-1]))


def permission_of(grant: Grant) -> str:
    """The RBAC permission that a grant compiles to."""
    return f"{grant.action}:{grant.pattern_text}"


def entry_of(grant: Grant, identity: str) -> AclEntry:
    """The access control entry that a grant compiles to."""
    return AclEntry(identity, grant.action, grant.pattern_text, "allow", grant.source)


def parse_permission(text: str, role: str) -> Permission:
    """Parse `ACTION:PATTERN`; raises ConfigError."""
    action, colon, resource = text.partition(":")
    if not colon or not resource or not is_action_family(action):
        raise ConfigError(
            f"role {role}: {text!r} is not a permission",
            hint="a permission is ACTION:PATTERN, such as filesystem.read:/var/log/**",
        )
    return Permission(action, resource, role)


def find_role_cycle(roles: Iterable[Role]) -> tuple[str, ...] | None:
    """The first cycle of inheritance in the order of names, such as (a, b, a); None if there is none."""
    graph: Mapping[str, tuple[str, ...]] = {role.name: tuple(sorted(role.inherits)) for role in roles}
    finished: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        pending: list[tuple[str, bool]] = [(start, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                finished.add(path.pop())
            elif name in path:
                return (*path[path.index(name) :], name)
            elif name not in finished:
                path.append(name)
                pending.append((name, True))
                pending.extend((parent, False) for parent in reversed(graph.get(name, ())))
    return None


def check_roles(roles: Iterable[Role], assigned: Iterable[str] = ()) -> None:
    """Raise ConfigError if a role is defined twice, inherits or is assigned without existing, or inherits itself."""
    known: dict[str, Role] = {}
    for role in roles:
        if role.name in known:
            raise ConfigError(f"role {role.name} is defined twice")
        known[role.name] = role
        for text in role.permissions:
            parse_permission(text, role.name)
    for role in known.values():
        for parent in role.inherits:
            if parent not in known:
                raise ConfigError(f"role {role.name} inherits {parent}, which is not defined")
    for name in assigned:
        if name not in known:
            raise ConfigError(f"role {name} is assigned, but not defined")
    if (cycle := find_role_cycle(known.values())) is not None:
        raise ConfigError(f"roles inherit each other: {' → '.join(cycle)}")


def resolve_permissions(roles: Iterable[Role], assigned: Iterable[str]) -> tuple[Permission, ...]:
    """All permissions of the assigned roles and of those they inherit, each once; raises ConfigError."""
    roles = tuple(roles)
    assigned = tuple(assigned)
    check_roles(roles, assigned)
    known = {role.name: role for role in roles}
    reached: set[str] = set()
    pending = list(assigned)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(known[name].inherits)
    return tuple(parse_permission(text, name) for name in sorted(reached) for text in sorted(known[name].permissions))
