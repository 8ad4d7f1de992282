"""The session of one instance: its phases, what may be said in which, and what the broker keeps of it. Pure.

Two tables decide everything: `NEXT`, into which phase each event leads, and `ALLOWED`, which messages a phase takes.
Both are total; what is not allowed ends the instance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ipc.broker import messages as wire
from ipc.broker.mailbox import Mailbox, Pool
from ipc.broker.namespaces import Namespaces
from ipc.policy.quota import Crossings
from ipc.policy.rate import Rate

if TYPE_CHECKING:
    from ipc.audit.folding import Window
    from ipc.broker.events import Admission
    from ipc.broker.messages import FromWorker, ToWorker

ADMITTED: Final = "admitted"
"""Known, without a connection: it is being started, or has lost its connection. Its mailbox takes messages."""
EXPECTED: Final = "expected"
"""The warden connects it now."""
READY: Final = "ready"
LEAVING: Final = "leaving"
"""It said that it ends; nothing is delivered to it any more."""
ENDED: Final = "ended"
"""It broke the protocol and is being ended; what still comes from it is dropped unread."""
PHASES: Final = (ADMITTED, EXPECTED, READY, LEAVING, ENDED)
LIVE: Final = frozenset((ADMITTED, EXPECTED, READY))

STANDS_BY: Final = "stands_by"
"""It may speak, and nobody can send to it: its component's name is another instance's."""
NAMED: Final = "named"
"""What is sent to its component is sent to it."""
OUTGOING: Final = "outgoing"
"""Another instance has the name; this one finishes what it was given."""
GONE: Final = "gone"
"""It is ending; nothing of it waits any more."""
PLACES: Final = (STANDS_BY, NAMED, OUTGOING, GONE)
"""Whether an instance has its component's name, beside what it may say (`PHASES`): only one has it at a time."""

ANNOUNCED: Final = "announced"
GREETED: Final = "greeted"
LEFT: Final = "left"
DISCONNECTED: Final = "disconnected"
BROKE: Final = "broke"
HAPPENINGS: Final = (ANNOUNCED, GREETED, LEFT, DISCONNECTED, BROKE)

NEXT: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        (ADMITTED, ANNOUNCED): EXPECTED,
        (ADMITTED, GREETED): ENDED,
        (ADMITTED, LEFT): ENDED,
        (ADMITTED, DISCONNECTED): ADMITTED,
        (ADMITTED, BROKE): ENDED,
        (EXPECTED, ANNOUNCED): EXPECTED,
        (EXPECTED, GREETED): READY,
        (EXPECTED, LEFT): ENDED,
        (EXPECTED, DISCONNECTED): ADMITTED,
        (EXPECTED, BROKE): ENDED,
        (READY, ANNOUNCED): READY,
        (READY, GREETED): ENDED,
        (READY, LEFT): LEAVING,
        (READY, DISCONNECTED): ADMITTED,
        (READY, BROKE): ENDED,
        (LEAVING, ANNOUNCED): LEAVING,
        (LEAVING, GREETED): ENDED,
        (LEAVING, LEFT): ENDED,
        (LEAVING, DISCONNECTED): LEAVING,
        (LEAVING, BROKE): ENDED,
        (ENDED, ANNOUNCED): ENDED,
        (ENDED, GREETED): ENDED,
        (ENDED, LEFT): ENDED,
        (ENDED, DISCONNECTED): ENDED,
        (ENDED, BROKE): ENDED,
    }
)

ORDERED: Final[frozenset[type]] = frozenset(
    (
        wire.Send,
        wire.Request,
        wire.Broadcast,
        wire.Publish,
        wire.Get,
        wire.Set,
        wire.Delete,
        wire.Exists,
        wire.ListKeys,
        wire.Usage,
        wire.CompareAndSet,
        wire.ListComponents,
        wire.GetMetadata,
        wire.Invoke,
        wire.Bye,
    )
)
"""What waits, in its order, while the first use of a grant is being put on record."""
AT_ONCE: Final[frozenset[type]] = frozenset((wire.Cancel, wire.Handled, wire.Answer, wire.Health, wire.Describe))
"""What ends something that was begun, or tells how and what the component is; it never waits."""

ALLOWED: Final[Mapping[str, frozenset[type]]] = MappingProxyType(
    {
        ADMITTED: frozenset(),
        EXPECTED: frozenset((wire.Hello,)),
        READY: ORDERED | AT_ONCE,
        LEAVING: frozenset((wire.Health,)),  # the answer to a Ping that crossed its Bye
        ENDED: frozenset(),
    }
)

REFUSALS_PER_S: Final = 50
"""Distinct refusals that get a record of their own, a second and at once; beyond, they are counted by kind. A component
that asks for ever new names must fill neither the log nor the table of what is folded."""

NEWS_PER_S: Final = 20
"""Greetings, and changes of its health, of one instance: the supervisor is told of each. A working worker's are seconds
apart."""

Handlers = Mapping[type, Callable[["Session", Any, int], None]]


class Session:
    """What the broker keeps of one admitted instance, for as long as it is one.

    `route` is its connection, None without; `out` what goes to it at the end of this turn. Everything in here is
    bounded: by the component's `Bounds`, by its grants, by the number of other components, or by a constant.
    """

    __slots__ = (
        "admission",
        "answers_forgiven",
        "awaits",
        "backlog",
        "backlog_bytes",
        "callbacks",
        "check_ns",
        "described",
        "epoch",
        "first_use",
        "handlers",
        "health",
        "heard_ns",
        "instance",
        "look_ns",
        "mailbox",
        "max_payload_bytes",
        "name",
        "namespaces",
        "news",
        "out",
        "pending",
        "phase",
        "pings",
        "place",
        "providing",
        "rate",
        "rate_crossings",
        "reach",
        "recorded",
        "refusals",
        "rights",
        "route",
        "routes",
        "stalled_for",
        "storage_bytes",
        "storage_crossings",
        "storing",
    )

    def __init__(
        self, admission: Admission, rate: Rate, epoch: int, first_delivery: int, pool: Pool, now_ns: int
    ) -> None:
        """Begin as admitted; `rate` is that of the component, which outlives its instances."""
        bounds = admission.bounds
        self.admission = admission
        self.instance = admission.instance
        self.name = admission.name
        self.rights = admission.rights
        self.max_payload_bytes = min(bounds.max_payload_bytes, wire.MAX_PAYLOAD_BYTES)
        self.phase = ADMITTED
        self.place = STANDS_BY if admission.stands_by else NAMED
        self.awaits: Session | None = None
        """Who had its name before and hasn't finished: until then nothing is delivered to this one."""
        self.route: bytes | None = None
        self.out: list[ToWorker] = []
        self.handlers: Handlers = {}
        self.health = "unknown"
        self.described = (admission.name, admission.version, admission.description)
        """Name, version, description: its own words, its manifest's until it has spoken."""
        self.epoch = epoch
        """What Welcome says; another one whenever something on the way to this worker may have been lost."""
        self.heard_ns = now_ns
        self.pings = 0
        """How many it was sent since it was last heard."""
        self.check_ns = 0
        """When its heartbeat is looked at next."""
        self.callbacks = False
        """Whether it was sent a callback since it was last heard: that may keep it busy."""
        self.answers_forgiven = 0
        """Answers to deliveries of an earlier connection, which aren't known any more."""
        # What others send to it, and what it asks of others.
        self.mailbox = Mailbox(bounds.mailbox_messages, bounds.mailbox_bytes, first_delivery, pool)
        self.pending: set[int] = set()
        self.routes: dict[str, Route] = {}
        self.reach: tuple[int, tuple[Route, ...]] = (-1, ())
        self.namespaces = Namespaces(admission.name, admission.rights, bounds)
        self.storing = 0
        self.providing = 0
        # Its quotas.
        self.rate = rate
        self.rate_crossings = Crossings()
        self.look_ns = 0
        self.storage_bytes = 0
        self.storage_crossings = Crossings()
        # What of it is on record.
        self.recorded: set[tuple[str, str]] = set()
        self.first_use: object = None
        """That use whose record opened a count: it isn't counted into it again."""
        self.refusals = Rate(REFUSALS_PER_S, now_ns)
        self.news = Rate(NEWS_PER_S, now_ns)
        self.stalled_for = 0
        """The ticket of the record that it waits for, 0 for none."""
        self.backlog: deque[FromWorker] = deque()
        self.backlog_bytes = 0

    @property
    def is_busy(self) -> bool:
        """Whether it has something to handle, waits for an answer, or has said what isn't on record yet."""
        has_work = bool(self.mailbox.unhandled or self.pending or self.backlog)
        return has_work and self.phase == READY and self.route is not None


class Route:
    """That one component may send to another: both sides' grants were asked, and it is on record."""

    __slots__ = ("max_payload_bytes", "receiver_rule", "rule", "target", "window")

    def __init__(self, sender: Session, target: Session, rule: str, receiver_rule: str) -> None:
        """The window is opened when the first message goes.

        What goes is within both bounds: the sender's, and that by which the receiver's memory was measured.
        """
        self.max_payload_bytes = min(sender.max_payload_bytes, target.max_payload_bytes)
        self.target = target
        self.rule = rule
        self.receiver_rule = receiver_rule
        self.window: Window | None = None
