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
from itertools import product
from typing import Final, TypeVar

from ipc.policy.capability import FILE_ACTIONS, Metadata, is_endpoint_action, path_segments
from ipc.policy.compiler import RuleCompiler
from ipc.policy.deciders import (
    CACHED_DECISIONS_MAX,
    CACHED_RESOURCE_MAX_CHARS,
    Decider,
    EndpointDecider,
    FileDecider,
    NameDecider,
    later,
    no_grant,
)
from ipc.policy.document import PolicyDocument
from ipc.policy.forbidden import NamedObjects, fold_segments, forbidden_paths, named_objects, write_named_objects
from ipc.policy.patterns import Malformed
from ipc.policy.rules import Allow, Decision, Deny

__all__ = [
    "Allow",
    "Decision",
    "Deny",
    "Policy",
    "PolicyDocument",
    "compile_policy",
    "forbidden_objects",
    "write_forbidden_objects",
]

Value = TypeVar("Value")

_RIGHTS: Final[dict[tuple[bool, ...], frozenset[str]]] = {
    held: frozenset(name for name, has in zip(("read", "write", "list"), held, strict=True) if has)
    for held in product((False, True), repeat=3)
}


def compile_policy(document: PolicyDocument) -> "Policy":
    """Compile the document; raises ConfigError if a pattern, permission, action or role in it is wrong."""
    return Policy(document)


def forbidden_objects(document: PolicyDocument) -> NamedObjects:
    """The forbidden objects with a name of their own, to be recognised by device and inode."""
    return named_objects(document.host_paths, document.home_directories)


def write_forbidden_objects(document: PolicyDocument) -> NamedObjects:
    """As `forbidden_objects`, for what is forbidden to write only."""
    return write_named_objects(document.path_directories, document.home_directories)


class Policy:
    """The compiled policy of one component instance. Immutable but for its caches, which live and die with it."""

    __slots__ = (
        "_deciders",
        "_directory_rights",
        "_files",
        "_forbidden",
        "_implied_list",
        "_list",
        "_reaching",
        "_read",
        "_rights",
        "_walked_list",
        "_write",
        "document",
    )

    def __init__(self, document: PolicyDocument) -> None:
        """Compile the document; raises ConfigError if a pattern, permission, action or role in it is wrong."""
        self.document = document
        self._forbidden = forbidden_paths(document.host_paths, document.path_directories, document.guarded_lifted)
        compiler = RuleCompiler(document)
        self._files = {action: compiler.path_rules(action) for action in FILE_ACTIONS}
        self._read, self._write, self._list = (self._files[action] for action in FILE_ACTIONS)
        self._implied_list = compiler.implied_list_rules(walked=False)
        self._walked_list = compiler.implied_list_rules(walked=True)
        self._deciders: dict[str, Decider] = {
            action: FileDecider(action, rules, self._forbidden, self._implied_list)
            for action, rules in self._files.items()
        }
        for action in sorted({grant.action for grant in document.grants} - set(FILE_ACTIONS)):
            if is_endpoint_action(action):
                self._deciders[action] = EndpointDecider(compiler.endpoint_rules(action))
            else:
                self._deciders[action] = NameDecider(action, compiler.path_rules(action))
        self._rights: dict[str, frozenset[str]] = {}
        self._directory_rights: dict[str, frozenset[str]] = {}
        self._reaching: dict[str, bool] = {}

    def decide(self, action: str, resource: str) -> Decision:
        """Whether the action may be done on the resource, by which rule, or why not."""
        decider = self._deciders.get(action)
        if decider is None:
            return no_grant(action)
        seen = decider.seen
        decision = seen.get(resource)
        if decision is None:
            decision = decider.decide(resource)
            # As _remember does: a call less.
            if len(resource) <= CACHED_RESOURCE_MAX_CHARS:
                if len(seen) >= CACHED_DECISIONS_MAX:
                    seen.clear()
                seen[resource] = decision
        return decision

    def granted(self, action: str) -> tuple[str, ...]:
        """The patterns of the component's grants of this action; what the host's rules take away is not left out."""
        return tuple(dict.fromkeys(grant.pattern_text for grant in self.document.grants if grant.action == action))

    def metadata(self, rule: str) -> Metadata:
        """What stands beside the grant that a decision names by its rule."""
        return next((grant.metadata for grant in self.document.grants if grant.rule == rule), ())

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
        _remember(known, resource, held)
        return held

    def decide_listing(self, directory: str) -> Decision:
        """As `decide("filesystem.list", …)`, for a known directory: patterns that lead through it count as well."""
        decision = self.decide("filesystem.list", directory)
        if isinstance(decision, Allow) or decision.code in ("A1101", "A1102", "A1207"):
            return decision
        segments = path_segments(directory)
        assert not isinstance(segments, Malformed)
        return later(decision, self._walked_list.decide(segments))

    def reaches(self, directory: str) -> bool:
        """Whether a file grant covers this directory, something beneath it, or leads through it.

        If so it may be opened as a mere handle, which confers no right on it; False for a malformed name.
        """
        seen = self._reaching.get(directory)
        if seen is None:
            seen = bool(self.rights(directory, True)) or self._reaches(directory, FILE_ACTIONS)
            _remember(self._reaching, directory, seen)
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

    def may_stand_for(self, name: str, target: str) -> bool:
        """Whether a symbolic link `name` to `target` gives nothing a name under which it would be forbidden.

        Rules judge real paths, so through a link `.vscode` to `v` the file `v/tasks.json` would be what nothing may
        write. False for a malformed name.
        """
        there, here = path_segments(target), path_segments(name)
        if isinstance(there, Malformed) or isinstance(here, Malformed):
            return False
        return self._forbidden.spares_nothing_more(
            there,
            fold_segments(there, "/" + "/".join(there)),
            here,
            fold_segments(here, "/" + "/".join(here)),
        )

    def _reaches(self, directory: str, actions: Sequence[str]) -> bool:
        segments = path_segments(directory)
        if isinstance(segments, Malformed):
            return False
        path = "/" + "/".join(segments)
        if self._forbidden.refuses_all_beneath(path, segments, fold_segments(segments, path)):
            return False
        # Implied listings too: a role that permits reading permits them, and need not permit listing itself.
        rules = (*(self._files[action] for action in actions), self._implied_list, self._walked_list)
        return any(rule.reaches(segments) for rule in rules)


def _remember(seen: dict[str, Value], resource: str, value: Value) -> None:
    """Bounded: when a cache is full it is emptied. It dies with its policy, so it can't outlive what filled it."""
    if len(resource) <= CACHED_RESOURCE_MAX_CHARS:
        if len(seen) >= CACHED_DECISIONS_MAX:
            seen.clear()
        seen[resource] = value
