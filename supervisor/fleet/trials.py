"""Who was started and isn't known to be healthy yet: by when it must be, and what has come of it."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.fleet.change_over import HEALTH_WITHIN_NS, READY_WITHIN_NS, TRIAL_NS, Event, judge_actor
from supervisor.fleet.lifecycle import ENDS, Phase
from supervisor.fleet.member import ACTOR, Member
from supervisor.fleet.member import COMMAND as A_COMMAND


class Trials:
    """The members on trial. Times are on the monotonic clock."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._by_ns: dict[Member, int] = {}
        self._running_since_ns: dict[Member, int] = {}

    def begin(self, member: Member, now_ns: int) -> None:
        """Somebody is being started."""
        self._by_ns[member] = now_ns + READY_WITHIN_NS

    def end(self, member: Member) -> None:
        """Nobody wants to know any more how it is."""
        self._by_ns.pop(member, None)
        self._running_since_ns.pop(member, None)

    def __contains__(self, member: Member) -> bool:
        return member in self._by_ns

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._by_ns))

    def next_ns(self) -> int:
        """Return when somebody's time is over; 0 where nobody is on trial."""
        return min(map(self._due_ns, self._by_ns), default=0)

    def judge(self, member: Member, now_ns: int) -> tuple[Event | None, str]:
        """Return whether it is healthy or has failed, and why; None while that isn't known."""
        if member.phase is Phase.RUNNING:
            self._running_since_ns.setdefault(member, now_ns)
        if member.phase is Phase.DONE and member.plan.kind == A_COMMAND:
            return Event.HEALTHY, ""
        if member.phase in ENDS and member.phase is not Phase.DOWN:
            return Event.FAILED, member.ended or "it was ended"
        is_over = now_ns >= self._due_ns(member)
        if member not in self._running_since_ns:
            return (Event.FAILED, "it did not become ready in time") if is_over else (None, "")
        if member.plan.kind == ACTOR:
            return judge_actor(member.health, is_over), f"it says that it is {member.health}"
        return (Event.HEALTHY if is_over else None), ""

    def _due_ns(self, member: Member) -> int:
        since_ns = self._running_since_ns.get(member)
        if since_ns is None:
            return self._by_ns[member]
        return since_ns + (TRIAL_NS if member.plan.kind == A_COMMAND else HEALTH_WITHIN_NS)
