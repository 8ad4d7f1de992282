"""From a policy document to the rules for each action."""

from functools import partial

from ipc.errors import ConfigError
from ipc.policy.access import AclEntry, action_covers, is_action_family, resolve_permissions
from ipc.policy.capability import Grant, implied_listing
from ipc.policy.document import PolicyDocument
from ipc.policy.endpoints import Endpoint
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import PatternError, parse_pattern
from ipc.policy.rules import EVERY_RESOURCE, ActionRules, PathRules, endpoint_index, host_pattern, path_index


class RuleCompiler:
    """Sorts the rules of a document by action, so that their order in the document changes no answer."""

    def __init__(self, document: PolicyDocument) -> None:
        """Check every rule of the document; raises ConfigError if one is wrong."""
        self._grants = sorted(set(document.grants), key=lambda grant: (grant.pattern_text, grant.rule, grant.required))
        self._acl = sorted(
            {entry for entry in document.acl if self._valid(entry).concerns(document.component, document.instance)},
            key=lambda entry: (entry.resource, entry.rule),
        )
        self._roles = document.assigned_roles
        self._permissions = resolve_permissions(document.roles, document.assigned_roles)
        for permission in self._permissions:
            _check_resource(permission.action, permission.resource, f"role {permission.role}")
        for grant in self._grants:
            self._check_grant(grant)

    @staticmethod
    def _check_grant(grant: Grant) -> None:
        if "*" in grant.action or not is_action_family(grant.action):
            raise ConfigError(f"{grant.rule}: unknown action")

    @staticmethod
    def _valid(entry: AclEntry) -> AclEntry:
        if entry.effect not in ("allow", "deny"):
            raise ConfigError(f"{entry.rule}: effect is allow or deny")
        if not is_action_family(entry.action):
            raise ConfigError(f"{entry.rule}: unknown action")
        try:
            parse_pattern(entry.identity, ".")
        except PatternError as error:
            raise ConfigError(f"{entry.rule}: identity: {error}") from None
        _check_resource(entry.action, entry.resource, entry.rule)
        return entry

    def path_rules(self, action: str) -> PathRules:
        """The rules for one action on paths, topics, names or keys."""
        grants = [grant for grant in self._grants if grant.action == action]
        deny = self._entries(action, "deny")
        allow = [(entry.resource, entry.rule) for entry in self._entries(action, "allow")]
        return PathRules(
            action,
            (path_index(action, [(grant.pattern_text, grant.rule) for grant in grants]), grants),
            (path_index(action, [(entry.resource, entry.rule) for entry in deny]), deny),
            path_index(action, allow) if allow else None,
            path_index(action, self._permitted(action)) if self._roles else None,
            self._roles,
        )

    def implied_list_rules(self, walked: bool) -> PathRules:
        """The rules for the listings that read and list patterns imply: whoever denies reading denies these too.

        `walked` selects the patterns that go on after a `**`: they imply the listing of directories whose other
        contents they don't cover.
        """
        action = "filesystem.list"
        grants = [grant for grant in self._grants if grant.action in ("filesystem.read", action)]
        listings: list[tuple[Grant, int]] = []
        patterns = []
        for grant in grants:
            granted = parse_pattern(grant.pattern_text)
            pattern = implied_listing(granted)
            if pattern is not None and (None in granted.tokens) is walked:
                patterns.append((pattern, len(listings)))
                listings.append((grant, len(listings)))
        deny = [*self._entries(action, "deny"), *self._entries("filesystem.read", "deny")]
        listings_of = partial(path_index, action, walked=walked)
        list_allow = [(entry.resource, entry.rule) for entry in self._entries(action, "allow")]
        read_allow = [(entry.resource, entry.rule) for entry in self._entries("filesystem.read", "allow")]
        return PathRules(
            action,
            (PatternIndex(patterns), [grant for grant, _ in listings]),
            (path_index(action, [(entry.resource, entry.rule) for entry in deny]), deny),
            listings_of(list_allow, list_allow + read_allow) if list_allow or read_allow else None,
            listings_of(self._permitted(action), self._permitted("filesystem.read")) if self._roles else None,
            self._roles,
            ", which implies listing",
        )

    def endpoint_rules(self, action: str) -> ActionRules[Endpoint]:
        """The rules for one action on network endpoints."""
        grants = [grant for grant in self._grants if grant.action == action]
        deny = self._entries(action, "deny")
        allow = [(entry.resource, entry.rule) for entry in self._entries(action, "allow")]
        methods = [grant.methods for grant in grants]
        return ActionRules(
            action,
            (endpoint_index(action, [(grant.pattern_text, grant.rule) for grant in grants], methods), grants),
            (endpoint_index(action, [(entry.resource, entry.rule) for entry in deny]), deny),
            endpoint_index(action, allow) if allow else None,
            endpoint_index(action, self._permitted(action)) if self._roles else None,
            self._roles,
        )

    def _entries(self, action: str, effect: str) -> list[AclEntry]:
        return [entry for entry in self._acl if entry.effect == effect and action_covers(entry.action, action)]

    def _permitted(self, action: str) -> list[tuple[str, str]]:
        return [
            (permission.resource, f"role {permission.role}: {permission}")
            for permission in self._permissions
            if action_covers(permission.action, action)
        ]


def _check_resource(action: str, resource: str, rule: str) -> None:
    """Raise ConfigError unless the pattern is right in the grammar that all the actions of the name or family share."""
    if action == "*":
        if resource not in EVERY_RESOURCE:
            raise ConfigError(f"{rule}: with the action * the resource can only be **")
        return
    host_pattern(action, resource, rule)
