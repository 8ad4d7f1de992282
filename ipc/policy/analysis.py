"""What can be said of grants before anything runs: for `airssys check`, and for whoever is asked to approve."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

from ipc.policy import forbidden_paths as lists
from ipc.policy.access import entry_of, permission_of, resolve_permissions
from ipc.policy.capability import Grant, is_action, is_endpoint_action, parse_grant_pattern, separator_of
from ipc.policy.document import PolicyDocument
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.forbidden import GUARDED_TREES
from ipc.policy.patterns import Form, Pattern, PatternError, is_too_broad, parse_pattern
from ipc.policy.relations import covers, may_intersect

Severity = Literal["error", "warning", "note"]

COMPARED_GRANTS_MAX: Final = 300
"""Above so many grants of one action only equal ones are looked for: every pair would be too many."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know about a grant.

    An error makes the grant useless or inadmissible, a warning wants a second look, a note is for information.
    """

    severity: Severity
    code: Literal["malformed", "unknown-action", "too-broad", "forbidden", "guarded", "partly-forbidden", "redundant"]
    message: str
    grant: Grant


@dataclass(frozen=True, slots=True)
class Explanation:
    """One compiled rule: as an access control entry, and as an RBAC permission."""

    origin: str
    """The grant, the host's ACL, or the role that it stems from."""
    identity: str
    action: str
    resource: str
    effect: Literal["allow", "deny"]
    permission: str
    """`ACTION:PATTERN`; empty for a denial, which roles can't express."""


def analyse(grants: Sequence[Grant], document: PolicyDocument | None = None) -> list[Finding]:
    """The findings about these grants, in their order; with a document, the host's own paths are known as well."""
    findings: list[Finding] = []
    parsed: list[tuple[Grant, Pattern | EndpointPattern]] = []
    for grant in grants:
        if not is_action(grant.action):
            findings.append(Finding("error", "unknown-action", f"{grant.action} is no action", grant))
            continue
        try:
            pattern = parse_grant_pattern(grant.action, grant.pattern_text)
        except PatternError as error:
            findings.append(Finding("error", "malformed", str(error), grant))
            continue
        parsed.append((grant, pattern))
        if grant_is_too_broad(grant.action, grant.pattern_text):
            findings.append(Finding("error", "too-broad", "it names nothing, so it grants everything", grant))
        if isinstance(pattern, Pattern) and grant.action.startswith("filesystem."):
            findings += _forbidden_findings(grant, pattern, document)
    return findings + _redundant(parsed)


def grant_is_too_broad(action: str, pattern_text: str) -> bool:
    """Whether the pattern names nothing (`/**`, `*`, `*:*`, `https://*`), in the grammar of the action; pure."""
    if not is_endpoint_action(action):
        return is_too_broad(pattern_text, separator_of(action))
    try:
        pattern = parse_grant_pattern(action, pattern_text)
    except PatternError:
        return False
    return isinstance(pattern, EndpointPattern) and pattern.too_broad


def explain(document: PolicyDocument) -> list[Explanation]:
    """All rules about this component instance: its grants, the host's entries, its roles; in that order."""
    found = [
        Explanation(
            f"grant ({grant.source})" if grant.required else f"optional grant ({grant.source})",
            entry.identity,
            entry.action,
            entry.resource,
            entry.effect,
            permission_of(grant),
        )
        for grant in document.grants
        for entry in (entry_of(grant, document.identity),)
    ]
    found += [
        Explanation(
            f"acl ({entry.source})",
            entry.identity,
            entry.action,
            entry.resource,
            entry.effect,
            f"{entry.action}:{entry.resource}" if entry.effect == "allow" else "",
        )
        for entry in document.acl
        if entry.concerns(document.component, document.instance)
    ]
    found += [
        Explanation(
            f"role {permission.role}",
            document.identity,
            permission.action,
            permission.resource,
            "allow",
            str(permission),
        )
        for permission in resolve_permissions(document.roles, document.assigned_roles)
    ]
    return found


def _rules(writing: bool, document: PolicyDocument | None) -> list[tuple[Pattern, str]]:
    fixed = [*lists.FORBIDDEN_AT, *(lists.WRITE_FORBIDDEN_AT if writing else ())]
    anywhere = [*lists.FORBIDDEN_ANYWHERE, *(lists.WRITE_FORBIDDEN_ANYWHERE if writing else ())]
    rules = [(parse_pattern(text), reason) for text, reason in fixed]
    rules += [(parse_pattern(f"/**/{text}"), reason) for text, reason in anywhere]
    if document is not None:
        own = [(path, "it belongs to the host itself") for path in document.host_paths]
        if writing:
            own += [(path, "programs are started from this directory") for path in document.path_directories]
        rules += [(_tree(path), reason) for path, reason in own if path.startswith("/") and path.strip("/")]
    return rules


def _tree(path: str) -> Pattern:
    return Pattern(path.rstrip("/") + "/", "/", tuple(path.strip("/").split("/")), Form.TREE)


def _forbidden_findings(grant: Grant, pattern: Pattern, document: PolicyDocument | None) -> list[Finding]:
    partly: list[str] = []
    for rule, reason in _rules(grant.action == "filesystem.write", document):
        if covers(rule, pattern):
            message = f"all of it is forbidden by {rule.text}: {reason}"
            return [Finding("error", "forbidden", message, grant)]
        # A rule for every directory meets every wide pattern; only what is named in a fixed place is worth a line.
        if rule.tokens[:1] != (None,) and may_intersect(rule, pattern):
            partly.append(rule.text)
    lifted = document.guarded_lifted if document is not None else ()
    for tree in GUARDED_TREES:
        if covers(_tree(tree), pattern) and grant.pattern_text not in lifted:
            message = f"{tree} is guarded: only paths that the host lifts by name are reached"
            return [Finding("warning", "guarded", message, grant)]
        if may_intersect(_tree(tree), pattern):
            partly.append(f"{tree}/")
    if not partly:
        return []
    named = ", ".join(partly[:3]) + (f" and {len(partly) - 3} more" if len(partly) > 3 else "")
    return [Finding("note", "partly-forbidden", f"it also covers {named}, which stay out of reach", grant)]


def _redundant(parsed: Sequence[tuple[Grant, Pattern | EndpointPattern]]) -> list[Finding]:
    findings: list[Finding] = []
    by_action: dict[str, list[tuple[Grant, Pattern | EndpointPattern]]] = {}
    for grant, pattern in parsed:
        by_action.setdefault(grant.action, []).append((grant, pattern))
    for entries in by_action.values():
        if len(entries) > COMPARED_GRANTS_MAX:
            findings += _equal(entries)
            continue
        named: set[int] = set()
        for (i, (one, a)), (j, (other, b)) in combinations(enumerate(entries), 2):
            for index, grant, wide, by in ((j, other, a, one), (i, one, b, other)):
                narrow = b if index == j else a
                if index not in named and _subsumes(by, grant) and covers(wide, narrow):
                    named.add(index)
                    findings.append(Finding("note", "redundant", f"already covered by {by.rule}", grant))
                    break
    return findings


def _subsumes(wide: Grant, narrow: Grant) -> bool:
    """Whether a grant that covers another's pattern makes it redundant: an optional one does not for a required."""
    methods = not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods))
    return methods and (wide.required or not narrow.required)


def _equal(entries: Sequence[tuple[Grant, Pattern | EndpointPattern]]) -> list[Finding]:
    seen: dict[str, Grant] = {}
    findings: list[Finding] = []
    for grant, _ in entries:
        first = seen.setdefault(grant.pattern_text, grant)
        if first is not grant and _subsumes(first, grant):
            findings.append(Finding("note", "redundant", f"already covered by {first.rule}", grant))
    return findings
