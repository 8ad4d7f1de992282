"""What a manifest asks for, in words for a person, most dangerous first; and what is wrong or odd about it. Pure."""

import re
from collections.abc import Sequence
from enum import IntEnum
from itertools import takewhile
from typing import Final

from ipc.policy.capability import Grant, is_endpoint_action, parse_grant_pattern, path_segments, separator_of
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.forbidden import GUARDED_TREES, ForbiddenPaths, fold_segments
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import Form, Malformed, Pattern, is_too_broad, parse_pattern
from ipc.struct import Struct
from supervisor import units
from supervisor.broad_grants import is_broad_allowed, is_too_broad_grant
from supervisor.manifest import BoundManifest, Manifest, Request
from supervisor.manifest.template import Variable, parse_template, variables_in
from supervisor.settings import ComponentSettings


class Danger(IntEnum):
    """How much harm a capability can do by itself; higher is worse."""

    OWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        """The word that reports use."""
        return self.name.lower()


class Ask(Struct, frozen=True):
    """One thing that is asked for: `resource` is as bound, or as written where a parameter has no value yet."""

    danger: Danger
    action: str
    resource: str
    sentence: str
    required: bool
    rationale: str
    line: int

    def to_json(self) -> dict[str, object]:
        """Return the stable keys of `asks[]`."""
        return {
            "action": self.action,
            "resource": self.resource,
            "danger": self.danger.word,
            "sentence": self.sentence,
            "required": self.required,
            "rationale": self.rationale,
            "line": self.line,
        }


class Finding(Struct, frozen=True):
    """Something about a manifest that a person should know. `severity`: error (it can't run so), warning or note."""

    severity: str
    kind: str
    message: str
    key: str
    line: int


_SYSTEM: Final = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)
_HOMES: Final = ("/home", "/root", "/Users")
_HOME: Final = re.compile(r"/(?:home|Users)/[^/]+|/root")
_SYMBOLIC: Final = ("data", "tmp")


def describe_asks(manifest: Manifest, bound: BoundManifest, unset: Sequence[str] = ()) -> tuple[Ask, ...]:
    """Return what is asked for, the most dangerous first; `unset` names parameters whose values only stand in."""
    pairs = zip(manifest.requests(), bound.grants, strict=True)
    asks = [describe_ask(request, grant, bound, unset) for request, grant in pairs]
    return tuple(sorted(asks, key=lambda ask: (-ask.danger, ask.action, ask.resource)))


def describe_ask(request: Request, grant: Grant, bound: BoundManifest, unset: Sequence[str] = ()) -> Ask:
    """Return one thing that is asked for, with the grant that it became."""
    shown = _shown(request, grant, unset)
    danger, place = _judge(request, grant, bound, unset)
    sentence = _sentence(request, shown, place)
    rationale = dict(bound.manifest.rationale).get(request.action, "")
    return Ask(danger, request.action, shown, sentence, request.required, rationale, request.line)


def _shown(request: Request, grant: Grant, unset: Sequence[str]) -> str:
    """The bound text, or the written one where it holds what isn't known before the start."""
    symbolic = any(
        variable.name in _SYMBOLIC if variable.parameter is None else variable.parameter in unset
        for variable in variables_in(request.resource)
    )
    return request.resource if symbolic else grant.pattern_text


def _beneath(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def literal_prefix(text: str) -> str:
    """The directory (or object) that every match of a path pattern lies in."""
    pattern = parse_pattern(text)
    literal = takewhile(lambda token: isinstance(token, str), pattern.tokens)
    return "/" + "/".join(str(token) for token in literal)


def _judge(request: Request, grant: Grant, bound: BoundManifest, unset: Sequence[str]) -> tuple[Danger, str]:
    """Return how dangerous a request is, and a few words on where it reaches."""
    verb = request.action.rpartition(".")[2]
    if not request.action.startswith("filesystem."):
        return _judge_other(request.action, grant.pattern_text), ""
    first = parse_template(request.resource)[0]
    if isinstance(first, Variable) and first.parameter in unset:
        return (Danger.HIGH if verb == "write" else Danger.MEDIUM), f"you name {first.parameter} with --set"
    prefix = literal_prefix(grant.pattern_text)
    for place, words in (
        (bound.variables.data, "its own data directory"),
        (bound.variables.tmp, "its own temporary directory"),
    ):
        if _beneath(prefix, place):
            return Danger.OWN, words
    if _beneath(prefix, bound.variables.component):
        if verb == "write":
            return Danger.CRITICAL, "its own program directory: it could change what runs next time"
        return Danger.OWN, "its own program directory"
    if is_too_broad(grant.pattern_text):
        return Danger.CRITICAL, "everything on this machine"
    return _judge_place(prefix, verb)


def _judge_place(prefix: str, verb: str) -> tuple[Danger, str]:
    writes = verb == "write"
    if prefix in _HOMES or prefix == "/":
        return (Danger.CRITICAL if writes or prefix == "/" else Danger.HIGH), "many people's files"
    if _HOME.fullmatch(prefix):
        return (Danger.CRITICAL if writes else Danger.HIGH), "a whole home directory"
    if prefix.count("/") == 1 and prefix in _SYSTEM:
        return (Danger.CRITICAL if writes else Danger.HIGH), "a whole system directory"
    top = "/" + prefix.split("/")[1]
    if top in _SYSTEM and not prefix.startswith(("/var/lib/", "/var/log/", "/run/user/")):
        return (Danger.CRITICAL if writes else Danger.MEDIUM), "a system directory"
    return (Danger.HIGH if writes else Danger.MEDIUM), ""


def _judge_other(action: str, text: str) -> Danger:
    if action.startswith("network."):
        pattern = parse_grant_pattern(action, text)
        anywhere = isinstance(pattern, EndpointPattern) and pattern.too_broad
        return Danger.CRITICAL if anywhere else Danger.HIGH
    if action == "secrets.env":
        return Danger.HIGH
    if is_too_broad(text, separator_of(action)) and not action.startswith("custom."):
        return Danger.HIGH
    return Danger.MEDIUM if action.startswith("custom.") or action.endswith((".write", ".send")) else Danger.LOW


def _sentence(request: Request, shown: str, place: str) -> str:
    """Say what is asked for, as one clause that follows "it may"."""
    if request.action.startswith("filesystem."):
        verb = {"read": "read", "write": "create, change and delete", "list": "see the names of"}[request.action[11:]]
        return f"{verb} {_files(request, shown)}" + (f" ({place})" if place else "")
    methods = f" with {', '.join(request.methods)}" if request.methods else ""
    custom = re.fullmatch(r"custom\.([^.]+)\.([^.]+)", request.action)
    if custom:
        return f'ask {custom[1]} to "{custom[2]}"'
    clause = {
        "network.connect": f"connect to {shown}{methods}",
        "network.listen": f"accept connections on {shown}",
        "storage.read": f"read stored keys {shown}",
        "storage.write": f"write stored keys {shown}",
        "messaging.send": f"send messages to {shown}",
        "messaging.receive": f"receive messages from {shown}",
        "messaging.publish": f"publish on {shown}",
        "messaging.subscribe": f"subscribe to {shown}",
        "secrets.env": f"be given the secret {shown}",
    }
    return clause[request.action]


def _files(request: Request, shown: str) -> str:
    if request.action == "filesystem.list":
        return f"files in {shown}"
    if shown.endswith("/**"):
        return f"everything beneath {shown[:-3] or '/'}"
    if shown.endswith("/"):
        return f"{shown.rstrip('/') or '/'} and everything beneath"
    return shown if any(character in shown for character in "*?[") else f"the file {shown}"


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
    if pattern.form is not Form.EXACT and (prefix == "/" or _HOME.fullmatch(prefix) or prefix in _HOMES):
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
            _beneath(prefix, mount.host) or _beneath(mount.host, prefix) for prefix in prefixes
        ):
            message = f'the mount "{mount.guest}" shows an empty directory: no grant reaches {written.host}'
            findings.append(Finding("warning", "unreached_mount", message, "component.mounts", written.line))
    return findings


def _unused_parameters(manifest: Manifest) -> list[Finding]:
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


_IMPORT_ACTIONS: Final = (
    (re.compile(r"wasi:sockets/(?:tcp|udp|ip-name-lookup)"), "network.connect", "opens sockets or looks up names"),
    (re.compile(r"wasi_snapshot_preview1\.sock_"), "network.connect", "uses sockets"),
)
_PROVIDED: Final = re.compile(
    r"wasi:(?:cli|clocks|filesystem|io|random|sockets)/[a-z-]+@0\.2\.|wasi_snapshot_preview1\."
)
"""What a worker offers: WASI preview 1, and preview 2 without `wasi:http`."""


def uncovered_imports(imports: Sequence[str] | None, manifest: Manifest) -> tuple[Finding, ...]:
    """Return what the wasm imports and no capability covers, and what this version doesn't provide; None: not known.

    Core imports are `module.name`, those of components `namespace:package/interface@version`.
    """
    asked = {request.action for request in manifest.requests()}
    findings: dict[str, Finding] = {}
    for name in imports or ():
        if not _PROVIDED.match(name):
            message = f"the wasm imports {name}, which nothing provides: it can't start"
            findings.setdefault(name, Finding("error", "unknown_import", message, "component.wasm", 0))
        for expression, action, words in _IMPORT_ACTIONS:
            if expression.match(name) and action not in asked and "network.listen" not in asked:
                message = f"the wasm imports {name}, which {words}; it asks for no {action}, so that will be refused"
                findings.setdefault(words, Finding("note", "uncovered_import", message, "component.wasm", 0))
    return tuple(findings.values())


def describe_limits(manifest: Manifest) -> tuple[str, ...]:
    """Return the limits and quotas that are written, one phrase each."""
    quota, limits = manifest.quota, manifest.limits
    phrases = {
        "memory": quota.memory_bytes is not None and units.format_size(quota.memory_bytes),
        "CPU": quota.cpu_time_ns_per_s is not None and units.format_cpu(quota.cpu_time_ns_per_s),
        "storage": quota.storage_bytes is not None and units.format_size(quota.storage_bytes),
        "messages": quota.message_rate_per_s is not None and units.format_rate(quota.message_rate_per_s),
        "network": quota.network_bandwidth_bytes_per_s is not None
        and units.format_bandwidth(quota.network_bandwidth_bytes_per_s),
        "timeout": limits.timeout_ns is not None and units.format_duration(limits.timeout_ns),
        "fuel": limits.fuel is not None and f"{limits.fuel:,}",
        "output": limits.output_bytes is not None and units.format_size(limits.output_bytes),
        "payload": limits.max_payload_bytes is not None and units.format_size(limits.max_payload_bytes),
    }
    return tuple(f"{name} {amount}" for name, amount in phrases.items() if amount)
