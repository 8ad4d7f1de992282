"""Actions, the names of what they act on, and grants: what one component was given."""

import re
from collections.abc import Mapping
from typing import Final

from ipc.errors import LocalProtocolError
from ipc.policy.endpoints import EndpointPattern, parse_endpoint_pattern
from ipc.policy.patterns import Form, Malformed, Pattern, PatternError, SegmentGlob, Separator, parse_pattern
from ipc.policy.wire import require_bool, require_map, require_scalars, require_text, require_texts, wire_text
from ipc.struct import Struct

READ: Final = "filesystem.read"
WRITE: Final = "filesystem.write"
LIST: Final = "filesystem.list"
FILE_ACTIONS: Final = (READ, WRITE, LIST)
ACTIONS: Final = (
    *FILE_ACTIONS,
    "network.connect",
    "network.listen",
    "storage.read",
    "storage.write",
    "messaging.send",
    "messaging.receive",
    "messaging.publish",
    "messaging.subscribe",
    "secrets.env",
)
"""Every action but the custom ones, which are `custom.NAME.ACTION`."""

_CUSTOM: Final = re.compile(r"custom\.[a-z][a-z0-9-]{0,62}\.[a-z][a-z0-9_-]{0,62}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")

PATH_MAX_BYTES: Final = 4095
"""Longest path in bytes, without the NUL that Linux's PATH_MAX (limits.h) counts."""
NAME_MAX_CHARS: Final = 1024
"""Longest topic, component name or storage key."""
ABNORMAL_SEGMENTS: Final = frozenset(("", ".", ".."))
"""Segments that no path in normal form has."""


Metadata = tuple[tuple[str, str | int | bool], ...]
"""What stands beside a custom capability, by name: for whoever provides it."""


class Grant(Struct, frozen=True):
    """One thing that one component was given: an action on what a pattern covers."""

    action: str
    pattern_text: str
    source: str
    """Where it was written: `Component.toml`, `--read`, `approval 12`; said in every decision that it allows."""
    required: bool = True
    """Whether the component does not start without it; no difference once it is granted."""
    methods: tuple[str, ...] = ()
    """For `network.connect` to a URL: the HTTP methods it is limited to; empty means all."""
    metadata: Metadata = ()
    """For custom actions: what their provider is told of the grant."""

    @property
    def rule(self) -> str:
        """The grant as decisions name it."""
        methods = f" {','.join(self.methods)}" if self.methods else ""
        return f'grant {self.action} "{self.pattern_text}"{methods} ({self.source})'

    def to_wire(self) -> dict[str, object]:
        """A map of plain values that msgpack can pack."""
        fields: dict[str, object] = {
            "action": self.action,
            "pattern": wire_text(self.pattern_text),
            "source": wire_text(self.source),
            "required": self.required,
            "methods": list(self.methods),
        }
        # Only where there is some: policies that were kept before there was any keep their hash.
        if self.metadata:
            fields["metadata"] = dict(self.metadata)
        return fields

    @classmethod
    def from_wire(cls, value: object) -> "Grant":
        """The grant of such a map; raises LocalProtocolError on any other shape."""
        known = ("action", "pattern", "source", "required", "methods")
        has_metadata = isinstance(value, Mapping) and "metadata" in value
        fields = require_map(value, "grant", (*known, "metadata") if has_metadata else known)
        grant = cls(
            require_text(fields, "action"),
            require_text(fields, "pattern"),
            require_text(fields, "source"),
            require_bool(fields, "required"),
            require_texts(fields, "methods"),
            require_scalars(fields, "metadata") if has_metadata else (),
        )
        if not is_action(grant.action):
            raise LocalProtocolError(f"unknown action {grant.action!r} in a grant")
        return grant


def is_action(action: str) -> bool:
    """Whether this is the name of an action."""
    return action in ACTIONS or _CUSTOM.fullmatch(action) is not None


def is_endpoint_action(action: str) -> bool:
    """Whether the action's resources are network endpoints, which have a grammar of their own."""
    return action.startswith("network.")


def separator_of(action: str) -> Separator:
    """What separates the segments of the resources of an action that is not a network action."""
    if action.startswith("filesystem."):
        return "/"
    return ":" if action.startswith("storage.") else "."


def parse_grant_pattern(action: str, text: str) -> Pattern | EndpointPattern:
    """Parse a pattern in the grammar that the action's resources have; raises PatternError."""
    if is_endpoint_action(action):
        return parse_endpoint_pattern(text)
    return parse_pattern(text, separator_of(action))


def implied_listing(pattern: Pattern) -> Pattern | None:
    """The directories whose names a read or list pattern lets a component list; None where it names single objects.

    Whoever may read `/in/**` or `/in/*.json` may list `/in` (the listing shows the covered names only);
    whoever may read `/in/a.json` may not.
    """
    tokens, text = pattern.tokens, pattern.text
    if None in tokens:
        return Pattern(text, pattern.separator, tokens[: tokens.index(None)], Form.TREE)
    if pattern.form is not Form.EXACT:
        return Pattern(text, pattern.separator, tokens, Form.TREE)
    if tokens and isinstance(tokens[-1], SegmentGlob):
        return Pattern(text, pattern.separator, tokens[:-1], Form.EXACT)
    return None


def normalise_path(raw: str) -> str | Malformed:
    """The one normal form of an absolute host path, or why it has none.

    Only one thing is repaired: a single trailing slash is dropped. Everything else that is not normal is refused,
    because callers hold the kernel's own spelling of a real path, and a second reading of a name is how checks are
    evaded. Undecodable bytes are surrogate escapes (PEP 383), as `os.fsdecode` gives them.
    """
    segments = path_segments(raw)
    if isinstance(segments, Malformed):
        return segments
    return "/" + "/".join(segments)


def path_segments(raw: str) -> list[str] | Malformed:
    """The segments of what `normalise_path` would give, without joining them again."""
    # One pass in C over what nearly every path is; whatever it can't vouch for is looked at closely.
    if (
        raw[:1] != "/"
        or raw[-1] == "/"
        or "//" in raw
        or "/." in raw
        or "\0" in raw
        or not raw.isascii()
        or len(raw) > PATH_MAX_BYTES
    ):
        return _unusual_path_segments(raw)
    return raw[1:].split("/")


def _unusual_path_segments(raw: str) -> list[str] | Malformed:
    if not raw.startswith("/"):
        return Malformed("empty" if not raw else "not absolute")
    if "\0" in raw:
        return Malformed("holds a NUL")
    if len(raw) > PATH_MAX_BYTES:
        return Malformed("longer than PATH_MAX")
    try:
        encoded = raw.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return Malformed("holds a lone surrogate")
    if len(encoded) > PATH_MAX_BYTES:
        return Malformed("longer than PATH_MAX")
    if raw == "/":
        return []
    segments = (raw[1:-1] if raw[-1] == "/" else raw[1:]).split("/")
    if not ABNORMAL_SEGMENTS.isdisjoint(segments):
        return Malformed("holds // or a . or .. segment")
    return segments


def normalise_name(raw: str, separator: Separator) -> str | Malformed:
    """A topic, component name or storage key in its one form, or why it has none; nothing is repaired."""
    if not raw:
        return Malformed("empty")
    if len(raw) > NAME_MAX_CHARS:
        return Malformed(f"longer than {NAME_MAX_CHARS} characters")
    if _CONTROL.search(raw) is not None:
        return Malformed("holds a control character")
    if "" in raw.split(separator):
        return Malformed(f"has an empty segment (at a {separator})")
    try:
        raw.encode()
    except UnicodeEncodeError:
        return Malformed("is not text")
    return raw


def pattern_problem(action: str, text: str) -> str | None:
    """What is wrong with a pattern, for a message; None if nothing is."""
    try:
        parse_grant_pattern(action, text)
    except PatternError as error:
        return f"at character {error.position}: {error.reason}"
    return None
