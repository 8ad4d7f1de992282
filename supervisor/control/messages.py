"""What is said on the control socket (AF_UNIX SOCK_SEQPACKET, `ipc.channel`), and who may say it.

A client sends one request after the other, each after the answer to the one before. An answer is any number of parts
and then `Done`, or `NotDone`. Who a client is, the kernel says (SO_PEERCRED): nothing of it is in a message.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ipc.messages import Message


class Role(IntEnum):
    """What somebody may do; each may what the ones before it may. NOBODY isn't even told what runs."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


class GetStatus(Message, frozen=True):
    """How is everything, or one component of this name? Parts: SupervisorStatus, then a ComponentStatus each;
    of everything also a ProviderStatus each."""

    name: str = ""


class OpenLogs(Message, frozen=True):
    """Let me read what a component printed. Part: LogFiles, with the open files, the oldest first."""

    name: str


class GetQuotas(Message, frozen=True):
    """How full are the quotas, of all or of one component? Parts: a QuotaStatus each."""

    name: str = ""


class CallComponent(Message, frozen=True):
    """Send a message, with [payload] (a sealed memory file). Part: CallAnswer, with [payload] where there is one."""

    name: str
    wants_answer: bool
    timeout_ms: int


class ShutDown(Message, frozen=True):
    """End every component in order, and then the supervisor. Done comes when the components have ended."""


class TakeVersion(Message, frozen=True):
    """Let a component be the version that its name means now, in the registry of `installed_in`; try it again if it is.

    Parts: a VersionChange for each step, with `waits` until it rests. `grant_asked`: what that version asks is granted.
    """

    name: str
    installed_in: str
    waits: bool = True
    grant_asked: bool = False


class ReadApprovals(Message, frozen=True):
    """What is asked for, or request `number` in full? Part: ApprovalDocument, with its JSON (a sealed memory file)."""

    number: int = 0
    closed: bool = False
    """Those that are answered or over, too."""


class DecideApproval(Message, frozen=True):
    """Approve, reject, revoke, narrow, request anew, import, settle (`what`), with [a file to narrow to, or to import].

    `preview` and `preview-narrow` show what would be; `settle` sees that nobody has more than is approved.

    Part: as of ReadApprovals; for what was imported and is kept, what that is.
    Whose word it is, the kernel says; what they need for it besides the least role, `supervisor.approvals.service`.
    """

    what: str
    number: int
    seen: str = ""
    without: tuple[str, ...] = ()
    lifetime_s: int = 0
    once: bool = False
    reason: str = ""


Request = GetStatus | OpenLogs | GetQuotas | CallComponent | ShutDown | TakeVersion | ReadApprovals | DecideApproval

REQUESTS: Final[tuple[type[Request], ...]] = (
    GetStatus,
    OpenLogs,
    GetQuotas,
    CallComponent,
    ShutDown,
    TakeVersion,
    ReadApprovals,
    DecideApproval,
)

MAY_ASK: Final[dict[type[Request], Role]] = {
    GetStatus: Role.VIEWER,
    OpenLogs: Role.VIEWER,
    GetQuotas: Role.VIEWER,
    CallComponent: Role.OPERATOR,
    ShutDown: Role.ADMIN,
    TakeVersion: Role.ADMIN,
    ReadApprovals: Role.VIEWER,
    DecideApproval: Role.VIEWER,
}
"""The least role that each request takes."""


def may_ask(role: Role, request: type[Request]) -> bool:
    """Whether this role may ask for this."""
    return role >= MAY_ASK[request]


class SupervisorStatus(Message, frozen=True):
    """Who answers, and how it is. `trouble` says why nothing is allowed at the moment, "" otherwise."""

    pid: int
    version: str
    socket: str
    state_directory: str
    started_ns: int
    run_as: str
    stopping: bool
    trouble: str = ""


class ComponentStatus(Message, frozen=True):
    """One component: its phase of `supervisor.fleet.lifecycle`, and what is known. `pid` 0: no process of it runs.

    Times are UTC in nanoseconds, 0 for never. `ended` says how the last run of it ended, in words. `trust` is the level
    (`supervisor.trust.level`), `approval` who said yes to what it may. `package` is the digest of what it was taken
    from, "" where that isn't known; `change` is what is going on with another version. `approved_until_s` (UTC) is when
    its approval is over, None for never.
    """

    name: str
    version: str
    kind: str
    phase: str
    instance: str
    directory: str
    health: str
    pid: int
    since_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    allowed: int
    denied: int
    outcome: str
    exit_code: int
    code: str
    ended: str
    trust: str
    approval: str
    package: str = ""
    change: str = ""
    roles: tuple[str, ...] = ()
    approved_until_s: int | None = None


class ProviderStatus(Message, frozen=True):
    """One provider of custom capabilities: how it is (`provider_life.state_of`), and what was asked of it.

    `reason` says why a process of it died last. The counts are those since the broker began; -1: not known now.
    """

    name: str
    capabilities: tuple[str, ...]
    program: str
    state: str
    pids: tuple[int, ...]
    calls: int
    failed: int
    busy: int
    waiting: int
    reason: str


class QuotaStatus(Message, frozen=True):
    """One quota of one component; `limit` None is unlimited, `peak` None where nobody watches it.

    `part`: of what, where parts are counted by themselves.
    """

    component: str
    quota: str
    usage: int
    limit: int | None
    unit: str
    part: str = ""
    peak: int | None = None


class LogFiles(Message, frozen=True):
    """So many open files come along; a supervisor that ends closes the connection, and nothing more is written."""

    count: int


class CallAnswer(Message, frozen=True):
    """How a call ended; `kind` "" is well, else one of `ipc.broker.messages.ErrorKind`."""

    kind: str = ""
    reason: str = ""
    has_payload: bool = False


class VersionChange(Message, frozen=True):
    """Where a change of versions is (`phase` of `supervisor.fleet.change_over`), of the version that the name means.

    `runs` is the version that runs, with its package's digest.
    """

    phase: str
    version: str
    package: str
    runs: str
    runs_package: str
    reason: str = ""
    hint: str = ""
    approval: int = 0


class ApprovalDocument(Message, frozen=True):
    """JSON comes along: of a decision also what has become of those who ran by what was taken back."""


class Done(Message, frozen=True):
    """The request was answered."""


class NotDone(Message, frozen=True):
    """The request can't be answered: `kind` is refused, unknown, busy, unavailable or invalid; what helps, if known."""

    kind: str
    message: str
    hint: str = ""


Part = (
    SupervisorStatus
    | ComponentStatus
    | ProviderStatus
    | QuotaStatus
    | LogFiles
    | CallAnswer
    | VersionChange
    | ApprovalDocument
)
Ending = Done | NotDone
ANSWERS: Final[tuple[type, ...]] = (
    SupervisorStatus,
    ComponentStatus,
    ProviderStatus,
    QuotaStatus,
    LogFiles,
    CallAnswer,
    VersionChange,
    ApprovalDocument,
    Done,
    NotDone,
)
