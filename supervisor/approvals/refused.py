"""What somebody tried with approvals and was refused, as records: by whom, what, why. Pure.

Of each person each different attempt is recorded by itself, a bounded number at a time; what repeats, and what is more,
is counted. So a flood fills no log, and the first attempt of everybody is in it.
"""

from __future__ import annotations

from typing import Final

from ipc.audit.event import AuditEvent
from ipc.audit.folding import Folder
from supervisor.approvals.events import approval_of
from supervisor.approvals.request import Request

EVENT: Final = "approval_refused"
WINDOW_NS: Final = 60_000_000_000
OF_ONE_MAX: Final = 20
"""So many different attempts of one person are told apart within a window."""
_KNOWN: Final = frozenset(
    {"approve", "preview", "reject", "revoke", "narrow", "preview-narrow", "settle", "request", "import"}
)


class RefusedAttempts:
    """Counts what is refused. `now_ns` is monotonic."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._folder = Folder(WINDOW_NS)
        self._opened_ns: dict[tuple[int, str], int] = {}

    def note(
        self, uid: int, what: str, about: Request | None, reason: str, detail: dict[str, object], now_ns: int
    ) -> tuple[AuditEvent, ...]:
        """Take one attempt; returns the records to be written now."""
        what = what if what in _KNOWN else "unknown"
        event = AuditEvent(
            EVENT,
            component=about.subject.component if about is not None else "",
            instance=about.subject.instance if about is not None else "",
            action=f"approvals.{what}",
            decision="denied",
            reason=reason,
            approval=approval_of(about.number) if about is not None else "",
            actor=f"uid {uid}",
            detail=detail or None,
        )
        key = self._key(uid, f"{event.action} {event.approval} {reason} {detail}", now_ns)
        if self._folder.repeat(key, now_ns):
            return ()
        self._opened_ns[key] = now_ns
        return (*self._folder.begin(key, event, now_ns), event)

    def flush(self) -> tuple[AuditEvent, ...]:
        """Close what was counted."""
        self._opened_ns.clear()
        return self._folder.flush()

    def _key(self, uid: int, attempt: str, now_ns: int) -> tuple[int, str]:
        self._opened_ns = {key: at_ns for key, at_ns in self._opened_ns.items() if now_ns - at_ns < WINDOW_NS}
        key = (uid, attempt)
        of_one = sum(1 for each in self._opened_ns if each[0] == uid)
        return key if key in self._opened_ns or of_one < OF_ONE_MAX else (uid, "")
