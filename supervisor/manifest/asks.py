"""What a manifest asks for, in words for a person, most dangerous first. Pure."""

import json
import re
from collections.abc import Sequence
from enum import IntEnum
from itertools import takewhile
from typing import Final

from ipc.policy.capability import Grant, Metadata, parse_grant_pattern, separator_of
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.patterns import is_too_broad, parse_pattern
from ipc.struct import Struct
from supervisor.config import units
from supervisor.manifest import BoundManifest, Manifest, Request, Variables
from supervisor.manifest.template import Variable, parse_template, variables_in


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
HOMES: Final = ("/home", "/root", "/Users")
"""Where people's home directories are."""
HOME: Final = re.compile(r"/(?:home|Users)/[^/]+|/root")
"""One person's home directory."""
_SYMBOLIC: Final = ("data", "tmp")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def describe_asks(manifest: Manifest, bound: BoundManifest, unset: Sequence[str] = ()) -> tuple[Ask, ...]:
    """Return what is asked for, the most dangerous first; `unset` names parameters whose values only stand in."""
    pairs = zip(manifest.requests(), bound.grants, strict=True)
    asks = [describe_ask(request, grant, bound, unset) for request, grant in pairs]
    return tuple(sorted(asks, key=lambda ask: (-ask.danger, ask.action, ask.resource)))


def describe_ask(request: Request, grant: Grant, bound: BoundManifest, unset: Sequence[str] = ()) -> Ask:
    """Return one thing that is asked for, with the grant that it became."""
    shown = _shown(request, grant, unset)
    danger, place = _judge(request, grant, bound.variables, unset)
    sentence = _sentence(request, shown, place)
    rationale = dict(bound.manifest.rationale).get(request.action, "")
    return Ask(danger, request.action, shown, sentence, request.required, rationale, request.line)


def describe_grant(grant: Grant, placed: Grant, variables: Variables) -> tuple[Danger, str]:
    """Return how dangerous a grant is, and what it allows as one clause: of a set without its manifest.

    `placed` is the same grant where `variables` put `${component}`, `${data}` and `${tmp}`; `grant` may name them.
    """
    own = next((name for name in ("${component}", "${data}", "${tmp}") if grant.pattern_text.startswith(name)), "")
    resource = own + grant.pattern_text[len(own) :].replace("${", "$${")
    request = Request(grant.action, resource, grant.required, "", 0, grant.methods, grant.metadata)
    danger, place = _judge(request, placed, variables, ())
    return danger, _sentence(request, grant.pattern_text, place)


def _shown(request: Request, grant: Grant, unset: Sequence[str]) -> str:
    """The bound text, or the written one where it holds what isn't known before the start."""
    symbolic = any(
        variable.name in _SYMBOLIC if variable.parameter is None else variable.parameter in unset
        for variable in variables_in(request.resource)
    )
    return request.resource if symbolic else grant.pattern_text


def is_beneath(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def literal_prefix(text: str) -> str:
    """The directory (or object) that every match of a path pattern lies in."""
    pattern = parse_pattern(text)
    literal = takewhile(lambda token: isinstance(token, str), pattern.tokens)
    return "/" + "/".join(str(token) for token in literal)


def _judge(request: Request, grant: Grant, variables: Variables, unset: Sequence[str]) -> tuple[Danger, str]:
    """Return how dangerous a request is, and a few words on where it reaches."""
    verb = request.action.rpartition(".")[2]
    if not request.action.startswith("filesystem."):
        return _judge_other(request.action, grant.pattern_text), ""
    first = parse_template(request.resource)[0]
    if isinstance(first, Variable) and first.parameter in unset:
        return (Danger.HIGH if verb == "write" else Danger.MEDIUM), f"you name {first.parameter} with --set"
    prefix = literal_prefix(grant.pattern_text)
    for place, words in (
        (variables.data, "its own data directory"),
        (variables.tmp, "its own temporary directory"),
    ):
        if is_beneath(prefix, place):
            return Danger.OWN, words
    if is_beneath(prefix, variables.component):
        if verb == "write":
            return Danger.CRITICAL, "its own program directory: it could change what runs next time"
        return Danger.OWN, "its own program directory"
    if is_too_broad(grant.pattern_text):
        return Danger.CRITICAL, "everything on this machine"
    return _judge_place(prefix, verb)


def _judge_place(prefix: str, verb: str) -> tuple[Danger, str]:
    writes = verb == "write"
    if prefix in HOMES or prefix == "/":
        return (Danger.CRITICAL if writes or prefix == "/" else Danger.HIGH), "many people's files"
    if HOME.fullmatch(prefix):
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
        told = f" with {', '.join(metadata_words(request.metadata))}" if request.metadata else ""
        return f'ask {custom[1]} to "{custom[2]}"{told}'
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


def metadata_words(metadata: Metadata) -> list[str]:
    """Return what stands beside a custom capability, as TOML writes it: no key looks like another one and its value."""
    return [
        f"{name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)}"
        f" = {json.dumps(value, ensure_ascii=False)}"
        for name, value in metadata
    ]


def _files(request: Request, shown: str) -> str:
    if request.action == "filesystem.list":
        return f"files in {shown}"
    if shown.endswith("/**"):
        return f"everything beneath {shown[:-3] or '/'}"
    if shown.endswith("/"):
        return f"{shown.rstrip('/') or '/'} and everything beneath"
    return shown if any(character in shown for character in "*?[") else f"the file {shown}"


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
