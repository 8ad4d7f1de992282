"""What runs by itself by an approval, and has lost something of it: found while the approvals are held, and ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from ipc.audit.event import format_time
from supervisor.approvals.events import approval_of
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.losing import EndedInstance, Loss, Outcome, loss_of, standing_of
from supervisor.approvals.reliance import ends_at_boot_ns
from supervisor.approvals.running import Ending, Holder, holders
from supervisor.audit.query import Filter, newest_first
from supervisor.event_loop import EventLoop, Interest

_RECORDS_MAX = 5_000
"""So many records are looked through for what somebody had open: a flood of others' holds nobody up."""
_UNREADABLE = Loss(0, (), (), True, "it can't be read with what it runs")


class Settling(Protocol):
    """The end of those who have lost something, under way."""

    @property
    def is_over(self) -> bool:
        """Whether nobody has any more what was taken from them, but who can't be ended."""

    def outcome(self) -> Outcome:
        """Return what has become of them."""


class Watch(Protocol):
    """Knows who runs by approvals: `look`, while they are held, at what each has lost; then `begin` to carry it out."""

    def look(self, ledger: Ledger) -> None:
        """Find who has more than is approved now."""

    def begin(self) -> Settling:
        """End them, or have them go on with less."""


class RunsSettling:
    """Runs that are being ended."""

    def __init__(self, found: Sequence[tuple[Holder, Loss]], audit_directory: str, now_ns: int) -> None:
        """Ask them to end."""
        self._losses = dict(found)
        self._audit_directory = audit_directory
        self._since = format_time(time.time_ns())
        for holder, loss in found:
            holder.tell(loss.why)
        self.ending = Ending([holder for holder, _ in found], now_ns)

    @property
    def is_over(self) -> bool:
        """Whether each has ended, or can't be ended."""
        return self.ending.is_over

    def outcome(self) -> Outcome:
        """Return who has ended, and what they had open then: each has put that on record before its end."""
        counts = self._open_files()
        instances = []
        for holder in self.ending.ended:
            of_all = counts.get(holder.number)
            instances.append(EndedInstance(self._losses[holder].gone, of_all))
            if of_all is not None:
                counts[holder.number] = {}  # they were added up, and are told of once
        instances += [EndedInstance(self._losses[each].gone, None, has_ended=False) for each in self.ending.left]
        runs, left = (sorted({each.pid for each in some}) for some in (self.ending.ended, self.ending.left))
        return Outcome(tuple(instances), runs=tuple(runs), left=tuple(left))

    def _open_files(self) -> dict[int, dict[str, int]]:
        """Return the open files of each approval's runs, added up; nothing where one of them has left no record."""
        ended = Counter(each.number for each in self.ending.ended)
        recorded: dict[int, list[Mapping[str, object]]] = {number: [] for number in ended}
        try:
            newest = newest_first(self._audit_directory, Filter()) if ended else iter(())
            for found in islice(newest, _RECORDS_MAX):
                if str(found.record["time"]) < self._since:
                    break
                detail = found.record["detail"]
                counted = detail.get("open_files") if isinstance(detail, dict) else None
                for number, counts in recorded.items():
                    if isinstance(counted, dict) and found.record["approval"] == approval_of(number):
                        counts.append(counted)
        except OSError:
            return {}
        return {number: _added_up(counts) for number, counts in recorded.items() if len(counts) == ended[number]}


def _added_up(counts: Sequence[Mapping[str, object]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update({name: count for name, count in each.items() if isinstance(count, int)})
    return dict(total)


class RunsWatch:
    """Ends what runs by itself; a source of the event loop in which it ends. One alone is enough for a state."""

    def __init__(self, approvals: str, audit_directory: str, touch: Callable[[], object] = lambda: None) -> None:
        """Watch those who hold files in this directory; `touch` is called when there is something to wait for."""
        self._approvals = approvals
        self._audit_directory = audit_directory
        self._touch = touch
        self._found: list[tuple[Holder, Loss]] = []
        self._under_way: list[RunsSettling] = []

    def look(self, ledger: Ledger) -> None:
        """Find them; who has lost nothing but time is told of that."""
        for holder in holders(self._approvals):
            standing = standing_of(ledger.request(holder.number), ledger.request, ledger.now_s)
            loss = _UNREADABLE if holder.terms is None else loss_of(holder.number, holder.terms.granted, standing)
            if loss is not None:
                self._found.append((holder, loss))
                continue
            holder.end_at(standing.ends_s, ends_at_boot_ns(standing.ends_s, ledger.now_s))
            holder.close()

    def begin(self) -> RunsSettling:
        """Ask them to end; the loop that this is a source of sees to the rest."""
        found, self._found = self._found, []
        settling = RunsSettling(found, self._audit_directory, time.monotonic_ns())
        if not settling.is_over:
            self._under_way.append(settling)
            self._touch()
        return settling

    def interests(self) -> Iterator[Interest]:
        """Yield those that are to end."""
        for settling in self._under_way:
            yield from settling.ending.interests()

    def next_ns(self) -> int:
        """Return when who still lives is killed; 0 while nobody is waited for."""
        return min((settling.ending.next_ns() for settling in self._under_way), default=0)

    def tick(self, now_ns: int) -> None:
        """See who has ended."""
        for settling in self._under_way:
            settling.ending.tick(now_ns)
        self._under_way = [each for each in self._under_way if not each.is_over]

    def close(self) -> None:
        """Wait for nobody any more."""
        for holder, _ in self._found:
            holder.close()
        self._found.clear()
        for settling in self._under_way:
            settling.ending.close()

    def settle(self) -> Outcome:
        """End them, and return when they have: for who has nothing else to do meanwhile."""
        settling, loop = self.begin(), EventLoop()
        loop.add("runs", self)
        while not settling.is_over:
            loop.turn()
        return settling.outcome()
