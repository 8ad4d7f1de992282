"""`decide`: may this component do this action on this resource, by which rule, and if not, why not.

The order, in which the first refusal wins: forbidden and guarded paths, the component's grants (required and optional
ones alike), the host's access control list, the component's roles. Quotas and the operating system come after that,
where the action is performed.

What the steps mean when they are silent:

- The ACL refuses where a deny entry for this component covers the resource. If the host wrote any allow entry for this
  component and action, one must cover the resource; if it wrote none, this step passes.
- Roles refuse where the component has roles and none of them permits the action; a component to which the host
  assigned no role is not subject to roles.

Files: `list` is implied where a read grant covers names by wildcard (see `implied_listing`); `write` implies neither.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Final, TypeVar

from ipc.errors import ConfigError
from ipc.policy.access import (
    AclEntry,
    action_covers,
    is_action_family,
    resolve_permissions,
)
from ipc.policy.capability import (
    FILE_ACTIONS,
    Grant,
    implied_listing,
    is_endpoint_action,
    normalise_name,
    path_segments,
    separator_of,
)
from ipc.policy.document import PolicyDocument
from ipc.policy.endpoints import Endpoint, parse_endpoint
from ipc.policy.forbidden import ForbiddenPaths, Refusal, concrete_paths, fold_segments, write_concrete_paths
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import Malformed, PatternError, parse_pattern, split_resource
from ipc.policy.rules import (
    DEFAULT_RULE,
    EVERY_RESOURCE,
    ActionRules,
    Allow,
    Decision,
    Deny,
    PathRules,
    endpoint_index,
    host_pattern,
    path_index,
)

__all__ = [
    "Allow",
    "Decision",
    "Deny",
    "Policy",
    "PolicyDocument",
    "compile_policy",
    "forbidden_concrete_paths",
    "write_forbidden_concrete_paths",
]

CACHED_DECISIONS_MAX: Final = 4096
"""Decisions kept of each kind and policy; twice this many for a moment."""
CACHED_RESOURCE_MAX_CHARS: Final = 512
"""Longer resources are decided anew each time, so that a component can't fill memory with names."""

Value = TypeVar("Value")

_RIGHTS: Final[dict[tuple[bool, ...], frozenset[str]]] = {
    held: frozenset(name for name, has in zip(("read", "write", "list"), held, strict=True) if has)
    for held in product((False, True), repeat=3)
}


def compile_policy(document: PolicyDocument) -> "Policy":
    """Compile the document; raises ConfigError if a pattern, permission, action or role in it is wrong."""
    return Policy(document)


def forbidden_concrete_paths(document: PolicyDocument) -> tuple[str, ...]:
    """The forbidden objects with a name of their own, to be recognised by device and inode; sorted."""
    return concrete_paths(document.host_paths, document.home_directories)


def write_forbidden_concrete_paths(document: PolicyDocument) -> tuple[str, ...]:
    """As `forbidden_concrete_paths`, for what is forbidden to write only."""
    return write_concrete_paths(document.path_directories, document.home_directories)


class Policy:
    """The compiled policy of one component instance. Immutable but for its caches, which live and die with it."""

    __slots__ = (
        "_directory_rights",
        "_endpoints",
        "_files",
        "_forbidden",
        "_implied_list",
        "_list",
        "_names",
        "_reaching",
        "_read",
        "_rights",
        "_seen",
        "_walked_list",
        "_write",
        "digest",
        "document",
    )

    def __init__(self, document: PolicyDocument) -> None:
        """Compile the document; raises ConfigError if a pattern, permission, action or role in it is wrong."""
        self.document = document
        self.digest = document.digest()
        self._forbidden = ForbiddenPaths(document.host_paths, document.path_directories, document.guarded_lifted)
        compiler = _Compiler(document)
        self._files = {action: compiler.path_rules(action) for action in FILE_ACTIONS}
        self._read, self._write, self._list = (self._files[action] for action in FILE_ACTIONS)
        self._implied_list = compiler.implied_list_rules(walked=False)
        self._walked_list = compiler.implied_list_rules(walked=True)
        self._names: dict[str, PathRules] = {}
        self._endpoints: dict[str, ActionRules[Endpoint]] = {}
        for action in sorted({grant.action for grant in document.grants} - set(FILE_ACTIONS)):
            if is_endpoint_action(action):
                self._endpoints[action] = compiler.endpoint_rules(action)
            else:
                self._names[action] = compiler.path_rules(action)
        self._seen: _Cache[tuple[str, str], Decision] = _Cache()
        self._rights: _Cache[str, frozenset[str]] = _Cache()
        self._directory_rights: _Cache[str, frozenset[str]] = _Cache()
        self._reaching: _Cache[str, bool] = _Cache()

    def decide(self, action: str, resource: str) -> Decision:
        """Whether the action may be done on the resource, by which rule, or why not."""
        seen = self._seen.get((action, resource))
        if seen is not None:
            return seen
        if action in self._files:
            decision = self._decide_file(action, resource)
        elif action in self._names:
            decision = self._decide_name(action, resource)
        elif action in self._endpoints:
            decision = self._decide_endpoint(action, resource)
        else:
            decision = Deny("A1201", f"the component has no grant for {action}", DEFAULT_RULE)
        if len(resource) <= CACHED_RESOURCE_MAX_CHARS:
            self._seen.remember((action, resource), decision)
        return decision

    def rights(self, resource: str, is_directory: bool = False) -> frozenset[str]:
        """Which of "read", "write" and "list" the component has on a file or directory.

        What a pattern implies about the directories that it leads through (`/in/**/*.log` about `/in/sub`) is only
        included if the object is known to be a directory: a file there would show its name and metadata.
        So does `decide_listing`, and `decide("filesystem.list", …)` does not.
        """
        known = self._directory_rights if is_directory else self._rights
        seen = known.get(resource)
        if seen is not None:
            return seen
        segments = path_segments(resource)
        if isinstance(segments, Malformed):
            return _RIGHTS[False, False, False]
        path = resource if resource[-1] != "/" or resource == "/" else resource[:-1]
        folded = fold_segments(segments, path)
        if self._forbidden.find(path, segments, folded, False) is not None:
            held = _RIGHTS[False, False, False]
        else:
            held = _RIGHTS[
                self._read.permits(segments),
                self._write.permits(segments) and self._forbidden.find(path, segments, folded, True) is None,
                self._list.permits(segments)
                or self._implied_list.permits(segments)
                or (is_directory and self._walked_list.permits(segments)),
            ]
        if len(resource) <= CACHED_RESOURCE_MAX_CHARS:
            known.remember(resource, held)
        return held

    def decide_listing(self, directory: str) -> Decision:
        """As `decide("filesystem.list", …)`, for a known directory: patterns that lead through it count as well."""
        decision = self.decide("filesystem.list", directory)
        if isinstance(decision, Allow) or decision.code in ("A1101", "A1102", "A1207"):
            return decision
        segments = path_segments(directory)
        assert not isinstance(segments, Malformed)
        return _later(decision, self._walked_list.decide(segments))

    def reaches(self, directory: str) -> bool:
        """Whether a file grant covers this directory, something beneath it, or leads through it.

        If so it may be opened as a mere handle, which confers no right on it; False for a malformed name.
        """
        seen = self._reaching.get(directory)
        if seen is None:
            seen = bool(self.rights(directory, True)) or self._reaches(directory, FILE_ACTIONS)
            if len(directory) <= CACHED_RESOURCE_MAX_CHARS:
                self._reaching.remember(directory, seen)
        return seen

    def shows(self, path: str, is_directory: bool) -> bool:
        """Whether a listing may show this name: it may be read or listed, or it leads to what may be."""
        held = self.rights(path, is_directory)
        if "read" in held or "list" in held:
            return True
        return is_directory and self._reaches(path, ("filesystem.read", "filesystem.list"))

    def subtrees_alike(self, a: str, b: str) -> bool:
        """Whether it is proven that no rule tells what lies beneath `a` from what lies beneath `b`.

        Then renaming directory `a` to `b` changes nobody's rights. False when in doubt.
        """
        signatures = []
        for raw in (a, b):
            segments = path_segments(raw)
            if isinstance(segments, Malformed):
                return False
            folded = fold_segments(segments, "/" + "/".join(segments))
            rules = (*self._files.values(), self._implied_list, self._walked_list)
            signatures.append(
                (self._forbidden.signature(segments, folded), [rule.signature(segments) for rule in rules])
            )
        return signatures[0] == signatures[1]

    def _reaches(self, directory: str, actions: Sequence[str]) -> bool:
        segments = path_segments(directory)
        if isinstance(segments, Malformed):
            return False
        path = "/" + "/".join(segments)
        if self._forbidden.refuses_all_beneath(path, segments, fold_segments(segments, path)):
            return False
        return any(self._files[action].reaches(segments) for action in actions)

    def _decide_file(self, action: str, resource: str) -> Decision:
        segments = path_segments(resource)
        if isinstance(segments, Malformed):
            return _malformed(segments)
        path = resource if resource[-1] != "/" or resource == "/" else resource[:-1]
        return self._decide_segments(action, path, segments, fold_segments(segments, path))

    def _decide_segments(self, action: str, path: str, segments: Sequence[str], folded: Sequence[str]) -> Decision:
        refusal = self._forbidden.find(path, segments, folded, action == "filesystem.write")
        if refusal is not None:
            return _forbidden(refusal)
        decision = self._files[action].decide(segments)
        if action != "filesystem.list" or isinstance(decision, Allow):
            return decision
        return _later(decision, self._implied_list.decide(segments))

    def _decide_name(self, action: str, resource: str) -> Decision:
        separator = separator_of(action)
        name = normalise_name(resource, separator)
        if isinstance(name, Malformed):
            return _malformed(name)
        return self._names[action].decide(split_resource(name, separator))

    def _decide_endpoint(self, action: str, resource: str) -> Decision:
        endpoint = parse_endpoint(resource)
        if isinstance(endpoint, Malformed):
            return _malformed(endpoint)
        return self._endpoints[action].decide(endpoint)


def _later(one: Deny, other: Decision) -> Decision:
    """The allowance, or the denial that came furthest: no grant, not covered, refused by the host."""
    return other if isinstance(other, Allow) or other.code > one.code else one


def _malformed(problem: Malformed) -> Deny:
    return Deny("A1207", f"the name is malformed: {problem.reason}", "names are in their one normal form")


def _forbidden(refusal: Refusal) -> Deny:
    return Deny("A1102" if refusal.guarded else "A1101", refusal.reason, refusal.rule)


Seen = TypeVar("Seen")


class _Cache(dict[Seen, Value]):
    """Bounded: when it is full it is emptied. Dies with its policy, so it can't outlive what filled it."""

    def remember(self, key: Seen, value: Value) -> None:
        if len(self) >= CACHED_DECISIONS_MAX:
            self.clear()
        self[key] = value


class _Compiler:
    """Sorts the rules of a document by action, so that their order in the document changes no answer."""

    def __init__(self, document: PolicyDocument) -> None:
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
