"""Two documents between hosts: a request to be reviewed elsewhere, and what a signed yes to it says. Pure.

Both are JSON in exactly one form (sorted keys, indented, ASCII, a newline at the end): what was read is written anew,
and anything that isn't the same bytes is refused. So nothing in them can be meant in two ways, and no text in them acts
on a terminal.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from ipc.errors import ConfigError
from ipc.naming import identity_text
from ipc.policy.capability import Grant, Metadata, is_action, pattern_problem
from ipc.struct import Struct, ValidationError, convert
from supervisor.approvals.host_names import check_host_pattern, covers_host
from supervisor.approvals.objections import REASON_MAX_CHARS
from supervisor.approvals.subject import Subject, grant_terms, placed, spelled_out
from supervisor.config.units import when

VERSION: Final = 1
EXPORTED: Final = "approval-request"
SIGNED: Final = "approval"
EXPORT_MAX_BYTES: Final = 4 << 20
STATEMENT_MAX_BYTES: Final = 192 * 1024
HOSTS_MAX: Final = 64
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9-]{0,62}(?:@[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Exported(Struct, frozen=True):
    """A request as it left its host. `document` is what was shown there: words of that host's, and nothing is decided
    by them; `subject` and `granted` are what a yes is to.
    """

    host: str
    number: int
    subject: Subject
    granted: tuple[Grant, ...]
    document: dict[str, object]

    @property
    def encoded(self) -> bytes:
        """Return its bytes."""
        return _encode(
            {
                "airssys": EXPORTED,
                "version": VERSION,
                "host": self.host,
                "request": self.number,
                **_subject_fields(self.subject),
                "granted": spelled_out(self.granted),
                "shown": self.document,
            }
        )

    @property
    def digest(self) -> str:
        """Return the SHA-256 of its bytes, in hexadecimal: what a reviewer names."""
        return hashlib.sha256(self.encoded).hexdigest()


class Statement(Struct, frozen=True):
    """What somebody signs: yes, to `granted` of `subject`, on these hosts, within these times (UTC, in seconds).

    `reviewed` is the digest of the export that they read, `host` and `number` where that came from. `nonce` makes each
    another one.
    """

    subject: Subject
    granted: tuple[Grant, ...]
    hosts: tuple[str, ...]
    signed_s: int
    import_before_s: int
    expires_s: int | None
    once: bool
    reason: str
    reviewed: str
    host: str
    number: int
    nonce: str

    @property
    def encoded(self) -> bytes:
        """Return its bytes: what is signed."""
        return _encode(
            {
                "airssys": SIGNED,
                "version": VERSION,
                **_subject_fields(self.subject),
                "granted": spelled_out(self.granted),
                "hosts": list(self.hosts),
                "signed_at": when(self.signed_s),
                "import_before": when(self.import_before_s),
                "expires_at": when(self.expires_s),
                "once": self.once,
                "reason": self.reason,
                "reviewed": self.reviewed,
                "host": self.host,
                "request": self.number,
                "nonce": self.nonce,
            }
        )

    def covers_host(self, name: str) -> bool:
        """Whether it is for the host of this name."""
        return any(covers_host(pattern, name) for pattern in self.hosts)


class _Capability(Struct, frozen=True, forbid_unknown_fields=True):
    action: str
    resource: str
    methods: tuple[str, ...]
    metadata: Metadata


class _Fields(Struct, frozen=True, forbid_unknown_fields=True):
    airssys: str
    version: int
    component: str
    instance: str
    package: str
    asked: tuple[_Capability, ...]
    granted: tuple[_Capability, ...]
    host: str
    request: int


class _ExportedFields(_Fields, frozen=True, forbid_unknown_fields=True):
    shown: dict[str, object]


_Some = TypeVar("_Some", bound=_Fields)


class _StatementFields(_Fields, frozen=True, forbid_unknown_fields=True):
    hosts: tuple[str, ...]
    signed_at: str
    import_before: str
    expires_at: str | None
    once: bool
    reason: str
    reviewed: str
    nonce: str


def read_exported(data: bytes) -> Exported:
    """Return the request that a file holds; raises ConfigError for anything that isn't one in its one form."""
    fields = _read(data, _ExportedFields, EXPORTED, EXPORT_MAX_BYTES)
    subject, granted = _subject_of(fields)
    found = Exported(fields.host, fields.request, subject, granted, fields.shown)
    if found.encoded != data:
        raise _damaged("it isn't in its one form: it was edited, or is another version's")
    return found


def exported_of(document: dict[str, object]) -> Exported:
    """Return a request as it leaves its host: what `show` says of it there, and the set, spelled out."""
    core = {key: document[key] for key in ("host", "request", "component", "package")}
    shown = {
        key: value for key, value in document.items() if key not in (*core, "instance", "asked_set", "granted_set")
    }
    fields = {
        "airssys": EXPORTED,
        "version": VERSION,
        **core,
        "instance": document["instance"] or "",
        "asked": document["asked_set"],
        "granted": document["granted_set"],
        "shown": shown,
    }
    return read_exported(_encode(fields))


def read_statement(data: bytes) -> Statement:
    """Return the statement that these bytes are; raises ConfigError as `read_exported` does.

    One that would grant anything that isn't asked, or nothing, is none.
    """
    fields = _read(data, _StatementFields, SIGNED, STATEMENT_MAX_BYTES)
    subject, granted = _subject_of(fields)
    if not 0 < len(fields.hosts) <= HOSTS_MAX or any(check_host_pattern(each) for each in fields.hosts):
        raise _damaged("its hosts are none")
    if not _DIGEST.fullmatch(fields.reviewed):
        raise _damaged("what was reviewed is no digest")
    if len(fields.reason) > REASON_MAX_CHARS:
        raise _damaged(f"a reason has at most {REASON_MAX_CHARS} characters")
    if within_terms(granted, subject.asked) is None:
        raise _damaged("it grants what isn't asked, or nothing")
    found = Statement(
        subject,
        granted,
        fields.hosts,
        _seconds(fields.signed_at),
        _seconds(fields.import_before),
        None if fields.expires_at is None else _seconds(fields.expires_at),
        fields.once,
        fields.reason,
        fields.reviewed,
        fields.host,
        fields.request,
        fields.nonce,
    )
    if found.encoded != data:
        raise _damaged("it isn't in its one form: it was edited, or is another version's")
    return found


def within_terms(granted: Sequence[Grant], asked: Sequence[Grant]) -> tuple[Grant, ...] | None:
    """Return those of `asked` that `granted` names word for word; None where it names another one, or none."""
    wanted = {str(term) for term in grant_terms(granted)}
    found = tuple(grant for grant in asked if str(grant_terms([grant])[0]) in wanted)
    return found if wanted and len(grant_terms(found)) == len(wanted) else None


def _subject_fields(subject: Subject) -> dict[str, object]:
    return {
        "component": subject.component,
        "instance": subject.instance,
        "package": subject.package,
        "asked": spelled_out(subject.asked),
    }


def _encode(fields: dict[str, object]) -> bytes:
    return (json.dumps(fields, ensure_ascii=True, sort_keys=True, indent=1) + "\n").encode()


def _read(data: bytes, form: type[_Some], kind: str, most_bytes: int) -> _Some:
    if len(data) > most_bytes:
        raise _damaged(f"more than {most_bytes >> 10} KiB")
    try:
        found = convert(json.loads(data), form)
    except (ValueError, ValidationError, RecursionError):
        raise _damaged("it can't be read") from None
    if (found.airssys, found.version) != (kind, VERSION):
        raise _damaged("it is another kind or version of document")
    return found


def _subject_of(fields: _Fields) -> tuple[Subject, tuple[Grant, ...]]:
    identity = identity_text(fields.component, fields.instance)
    if not _IDENTITY.fullmatch(identity) or not _DIGEST.fullmatch(fields.package):
        raise _damaged("what it is about is no component")
    asked, granted = (tuple(map(_grant, each)) for each in (fields.asked, fields.granted))
    return Subject(fields.component, fields.instance, fields.package, asked), granted


def _grant(of: _Capability) -> Grant:
    grant = Grant(of.action, of.resource, "a signed approval", methods=of.methods, metadata=of.metadata)
    if not is_action(of.action) or pattern_problem(of.action, placed([grant])[0].pattern_text):
        raise _damaged("a capability in it is none")
    return grant


def _seconds(text: str) -> int:
    try:
        found = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _damaged("a time in it is none") from None
    return int(found.timestamp())


def _damaged(why: str) -> ConfigError:
    return ConfigError(f"this is no such document: {why}", hint="export it anew: airssys approvals export ID")
