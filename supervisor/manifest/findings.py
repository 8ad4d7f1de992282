"""What is wrong with a manifest, or odd about it, before it is run. Pure."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from ipc.policy.capability import Grant, is_endpoint_action, path_segments, separator_of
from ipc.policy.forbidden import GUARDED_TREES, ForbiddenPaths, fold_segments
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import Form, Malformed, Pattern, parse_pattern
from ipc.struct import Struct
from supervisor.config.settings import ComponentSettings
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.grants.broad import is_broad_allowed, is_too_broad_grant
from supervisor.manifest import BoundManifest, Manifest, Request, only_brokered
from supervisor.manifest.asks import HOME, HOMES, is_beneath, literal_prefix
from supervisor.manifest.template import variables_in
from supervisor.run.socket_imports import is_habit, opening_sockets


class Finding(Struct, frozen=True):
    """Something about a manifest that a person should know. `severity`: error (it can't run so), warning or note."""

    severity: str
    kind: str
    message: str
    key: str
    line: int


def find_problems(
    manifest: Manifest,
    bound: BoundManifest,
    host: ComponentSettings,
    forbidden: ForbiddenPaths,
    unset: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Return the findings: too broad, forbidden, guarded, covered twice, unused; errors first."""
    pairs = list(zip(manifest.requests(), bound.grants, strict=True))
    findings: list[Finding] = []
    for request, grant in pairs:
        findings += _too_broad(request, grant, host)
        if request.action.startswith("filesystem."):
            findings += _refused_paths(request, grant, forbidden)
    findings += _overlaps(pairs, bound, unset)
    findings += _unreached_mounts(manifest, bound)
    findings += _unused_parameters(manifest)
    order = ("error", "warning", "note")
    return tuple(sorted(findings, key=lambda finding: (order.index(finding.severity), finding.line)))


def _too_broad(request: Request, grant: Grant, host: ComponentSettings) -> list[Finding]:
    if not is_too_broad_grant(grant):
        return []
    what = f'{grant.action} "{grant.pattern_text}"'
    if is_broad_allowed(grant, host):
        return [
            Finding(
                "warning",
                "too_broad",
                f"{what} names nothing in particular; this host allows it",
                request.key,
                request.line,
            )
        ]
    hint = f'allow_broad = ["{grant.action}:{grant.pattern_text}"]'
    message = f"{what} is too broad: it names nothing in particular (a host can allow it: {hint})"
    return [Finding("error" if request.required else "warning", "too_broad", message, request.key, request.line)]


def _refused_paths(request: Request, grant: Grant, forbidden: ForbiddenPaths) -> list[Finding]:
    pattern = parse_pattern(grant.pattern_text)
    sample = _sample(pattern)
    segments = path_segments(sample)
    if isinstance(segments, Malformed):
        return []
    refusal = forbidden.find(sample, segments, fold_segments(segments, sample), request.action == "filesystem.write")
    what = f'{request.action} "{grant.pattern_text}"'
    if refusal is not None:
        kind = "guarded" if refusal.guarded else "forbidden"
        advice = " (a host can lift one exact path: lift_guarded)" if refusal.guarded else ""
        # A path that the host lifts beneath a guarded directory is reached all the same.
        hopeless = request.required and not (refusal.guarded and pattern.form is not Form.EXACT)
        message = f"{what} is {kind} and will be refused: {refusal.reason}{advice}"
        return [Finding("error" if hopeless else "warning", kind, message, request.key, request.line)]
    prefix = literal_prefix(grant.pattern_text)
    if pattern.form is not Form.EXACT and (prefix == "/" or HOME.fullmatch(prefix) or prefix in HOMES):
        inside = "key stores and start-up files in it" if prefix != "/" else f"key stores, {', '.join(GUARDED_TREES)}"
        return [Finding("note", "forbidden", f"{what}: {inside} stay forbidden", request.key, request.line)]
    return []


def _sample(pattern: Pattern) -> str:
    """A path with ordinary names in place of the wildcards: where it is forbidden, so is nearly every match."""
    names = [
        token if isinstance(token, str) else f"{token.prefix}x{token.suffix}"
        for token in pattern.tokens
        if token is not None
    ]
    return "/" + "/".join([*names, "x"] if pattern.form is Form.BENEATH else names)


def _overlaps(pairs: Sequence[tuple[Request, Grant]], bound: BoundManifest, unset: Sequence[str]) -> list[Finding]:
    """Patterns that another one of the same action covers whole, and writing where the program itself lies."""
    findings: list[Finding] = []
    by_action: dict[str, list[tuple[Request, Grant]]] = {}
    for request, grant in pairs:
        if not is_endpoint_action(grant.action) and not grant.action.startswith("custom."):
            by_action.setdefault(grant.action, []).append((request, grant))
    for group in by_action.values():
        for request, inner, outer in _covered(group, unset):
            message = f'{inner.action} "{inner.pattern_text}" adds nothing: "{outer.pattern_text}" covers it'
            findings.append(Finding("note", "overlapping", message, request.key, request.line))
    wasm = bound.manifest.wasm_path
    for request, grant in pairs:
        if grant.action == "filesystem.write" and parse_pattern(grant.pattern_text).matches(wasm):
            message = f'filesystem.write "{grant.pattern_text}" lets it change its own program, {wasm}'
            findings.append(Finding("warning", "own_program", message, request.key, request.line))
    return findings


def _covered(group: Sequence[tuple[Request, Grant]], unset: Sequence[str]) -> list[tuple[Request, Grant, Grant]]:
    """Each pattern that another of the group covers; linear in their number, because manifests can be hostile."""
    separator = separator_of(group[0][1].action)
    patterns = [parse_pattern(grant.pattern_text, separator) for _, grant in group]
    trees = [
        (pattern, number)
        for number, pattern in enumerate(patterns)
        if pattern.form is not Form.EXACT and all(isinstance(token, str) for token in pattern.tokens)
    ]
    index = PatternIndex(trees)
    found: list[tuple[Request, Grant, Grant]] = []
    seen: dict[str, int] = {}
    for number, (request, grant) in enumerate(group):
        pattern = patterns[number]
        first = seen.setdefault(grant.pattern_text, number)
        others = [first] if first != number else [] if not trees else _trees_over(index, pattern, number)
        stands_in = any(
            variable.parameter in unset for variable in variables_in(request.resource) if variable.parameter
        )
        if others and not stands_in:
            found.append((request, grant, group[others[0]][1]))
    return found


def _trees_over(index: PatternIndex, pattern: Pattern, number: int) -> list[int]:
    """The trees that cover every match of a pattern: they cover the directory in which all its matches lie."""
    literal = list(takewhile(lambda token: isinstance(token, str), pattern.tokens))
    # NUL is in no name, so no literal segment of a tree can match it by chance.
    inside = [*literal, "\0"] if len(literal) < len(pattern.tokens) or pattern.form is Form.BENEATH else literal
    return [other for other in index.matches_segments([str(token) for token in inside]) if other != number]


def _unreached_mounts(manifest: Manifest, bound: BoundManifest) -> list[Finding]:
    files = [grant for grant in bound.grants if grant.action.startswith("filesystem.")]
    prefixes = [literal_prefix(grant.pattern_text) for grant in files]
    findings = []
    for mount, written in zip(bound.mounts, manifest.component.mounts, strict=True):
        if mount.guest != "." and not any(
            is_beneath(prefix, mount.host) or is_beneath(mount.host, prefix) for prefix in prefixes
        ):
            message = f'the mount "{mount.guest}" shows an empty directory: no grant reaches {written.host}'
            findings.append(Finding("warning", "unreached_mount", message, "component.mounts", written.line))
    return findings


def _unused_parameters(manifest: Manifest) -> list[Finding]:
    if only_brokered(manifest):
        return []  # an actor is given them at its start
    texts = [request.resource for request in manifest.requests()]
    texts += [mount.host for mount in manifest.component.mounts]
    texts += [*manifest.component.args, *(value for _, value in manifest.component.env)]
    texts += [parameter.default for parameter in manifest.parameters if isinstance(parameter.default, str)]
    used = {variable.parameter for text in texts for variable in variables_in(text)}
    return [
        Finding("note", "unused", f"the parameter {each.name} is used nowhere", f"parameters.{each.name}", each.line)
        for each in manifest.parameters
        if each.name not in used
    ]


def unserved_capabilities(manifest: Manifest, providers: Sequence[ProviderSettings]) -> tuple[Finding, ...]:
    """Return the custom capabilities that are asked for and that no provider of this host serves."""
    served = {capability for provider in providers for capability in provider.capabilities}
    findings: dict[str, Finding] = {}
    for request in manifest.requests():
        family, _, rest = request.action.partition(".")
        name = rest.rpartition(".")[0]
        if family == "custom" and name not in served:
            message = f"no provider serves {name} on this host: each call will be unavailable"
            findings.setdefault(name, Finding("warning", "no_provider", message, request.key, request.line))
    return tuple(findings.values())


_IMPORT_ACTIONS: Final = (
    (re.compile(r"wasi:sockets/(?:tcp|udp|ip-name-lookup)"), "network.connect", "opens sockets or looks up names"),
    (re.compile(r"wasi_snapshot_preview1\.sock_"), "network.connect", "uses sockets"),
)
_PROVIDED: Final = re.compile(
    r"wasi:(?:cli|clocks|filesystem|io|random|sockets)/[a-z-]+@0\.2\.|wasi_snapshot_preview1\."
    r"|airssys:core/(?:types|host-messaging|host-services|storage|capabilities|custom)@1\.0\.0$"
)
"""What a worker offers: WASI preview 1, preview 2 without `wasi:http`, and to actors their world."""


def uncovered_imports(imports: Sequence[str] | None, manifest: Manifest, habits: bool = False) -> tuple[Finding, ...]:
    """Return what the wasm imports and no capability covers, and what this version doesn't provide; None: not known.

    What a toolchain imports for every program is left out, unless `habits` are asked for. Core imports are
    `module.name`, those of components `namespace:package/interface@version`.
    """
    asked = {request.action for request in manifest.requests()}
    findings: dict[str, Finding] = {}
    left_out = () if habits or not is_habit(imports or ()) else opening_sockets(imports or ())
    for name in imports or ():
        if not _PROVIDED.match(name):
            message = f"the wasm imports {name}, which nothing provides: it can't start"
            findings.setdefault(name, Finding("error", "unknown_import", message, "component.wasm", 0))
        for expression, action, words in _IMPORT_ACTIONS:
            if (
                expression.match(name)
                and name not in left_out
                and action not in asked
                and "network.listen" not in asked
            ):
                message = f"the wasm imports {name}, which {words}; it asks for no {action}, so that will be refused"
                findings.setdefault(words, Finding("note", "uncovered_import", message, "component.wasm", 0))
    return tuple(findings.values())


_USES: Final = (
    ("filesystem.", re.compile(r"wasi:filesystem/|wasi_snapshot_preview1\.path_"), "opens files"),
    ("network.", re.compile(r"wasi:sockets/|wasi:http/|wasi_snapshot_preview1\.sock_"), "uses the network"),
    ("storage.", re.compile(r"airssys:core/storage@"), "uses storage"),
    ("messaging.send", re.compile(r"airssys:core/host-messaging@"), "sends messages"),
    ("messaging.publish", re.compile(r"airssys:core/host-messaging@"), "publishes"),
    ("custom.", re.compile(r"airssys:core/custom@"), "asks a provider"),
)


def unused_requests(imports: Sequence[str], manifest: Manifest) -> tuple[Finding, ...]:
    """Return the families of capabilities that are asked for, and that a program with these imports can't use."""
    findings: dict[str, Finding] = {}
    for request in manifest.requests():
        for family, expression, words in _USES:
            if request.action.startswith(family) and not any(map(expression.match, imports)):
                message = f"it asks for {request.action}, and the wasm imports nothing that {words}"
                findings.setdefault(
                    request.action, Finding("note", "unused_request", message, request.key, request.line)
                )
    return tuple(findings.values())
