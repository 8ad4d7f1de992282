"""By which approval something runs, with what, and until when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ipc.policy.capability import Grant
from ipc.struct import Struct, ValidationError, convert, replace, to_builtins
from supervisor.approvals.subject import placed
from supervisor.manifest import Variables

if TYPE_CHECKING:
    from supervisor.event_loop import Interest

OVER: Final = "A3010"
FOREVER_NS: Final = 2**63
TERMS_MAX_BYTES: Final = 1 << 20
LOOK_NS: Final = 500_000_000
"""How often the wall clock is looked at: that somebody sets it wakes nobody up."""


class Terms(Struct, frozen=True):
    """What of a `Reliance` is written down for others of the same user to read, and its time to change."""

    granted: tuple[Grant, ...]
    until_s: int | None
    until_boot_ns: int
    lost: str = ""
    """Why it is being ended, for who runs by it to tell: empty while it isn't."""


class Reliance(Struct, frozen=True):
    """An approval by its number, with the grants by their names, and where this run's own directories lie.

    It is over at `until_s` (UTC, seconds; None: never), and at `until_boot_ns` (CLOCK_BOOTTIME) whatever becomes of the
    wall clock meanwhile.
    """

    number: int
    granted: tuple[Grant, ...]
    own: Variables
    until_s: int | None = None
    until_boot_ns: int = 0
    descriptor: int = -1
    """Where it is written down, and changed, of what runs by itself (`supervisor.approvals.running`). Nothing else may
    open that file in this process: with any of its descriptors the lock would go (fcntl(2))."""

    def left_ns(self, wall_s: float, boot_ns: int) -> int:
        """Return how long it still holds, 0 or less for no longer: a clock that is set back revives nothing."""
        if self.until_s is None:
            return FOREVER_NS
        return min(int((self.until_s - wall_s) * 1e9), self.until_boot_ns - boot_ns)

    @property
    def placed(self) -> tuple[Grant, ...]:
        """Return the grants as they lie on this host, in the order of `granted`."""
        return placed(self.granted, self.own)


def boot_ns() -> int:
    """Return the time since the start of the machine, while it was suspended, too: clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ends_at_boot_ns(until_s: int | None, ledger_now_s: int) -> int:
    """Return when a time of the ledger's will have come on CLOCK_BOOTTIME, if it isn't earlier by the wall clock."""
    return 0 if until_s is None else boot_ns() + max(0, until_s - ledger_now_s) * 10**9


def write_terms(
    descriptor: int, granted: Sequence[Grant], until_s: int | None, until_boot_ns: int, lost: str = ""
) -> None:
    """Write down with what and until when something runs."""
    terms = {"granted": to_builtins(granted), "until_s": until_s, "until_boot_ns": until_boot_ns, "lost": lost}
    data = json.dumps(terms).encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))


def read_terms(descriptor: int) -> Terms | None:
    """Return what is written down there; None for what can't be read, such as what is being written."""
    try:
        return convert(json.loads(os.pread(descriptor, TERMS_MAX_BYTES, 0)), Terms)
    except (ValueError, ValidationError, RecursionError, OSError):
        return None


def current(reliance: Reliance) -> Reliance:
    """Return it with the time that is written down for it now: somebody may have made it shorter."""
    terms = None if reliance.descriptor < 0 else read_terms(reliance.descriptor)
    return reliance if terms is None else replace(reliance, until_s=terms.until_s, until_boot_ns=terms.until_boot_ns)


def lost_words(reliance: Reliance) -> str:
    """Return why somebody has this run end, and where that is to be read; empty where nobody does."""
    terms = None if reliance.descriptor < 0 else read_terms(reliance.descriptor)
    return f"{terms.lost} (airssys approvals show {reliance.number})" if terms is not None and terms.lost else ""


class ApprovalEnd:
    """Ends one run when the approval that it runs by is over: a source of its event loop."""

    def __init__(self, reliance: Reliance, end: Callable[[str, str], object]) -> None:
        """Look from now on; `end` is called once, with a code and the reason."""
        self._reliance = reliance
        self._end = end
        self._look_ns = 1

    def interests(self) -> Iterator[Interest]:
        """Nothing is waited for but time."""
        return iter(())

    def next_ns(self) -> int:
        """Return when to look again; 0 once it was over."""
        return self._look_ns

    def tick(self, now_ns: int) -> None:
        """End it if it is time."""
        if not 0 < self._look_ns <= now_ns:
            return
        self._reliance = current(self._reliance)
        left_ns = self._reliance.left_ns(time.time(), boot_ns())
        self._look_ns = now_ns + min(LOOK_NS, left_ns) if left_ns > 0 else 0
        if left_ns <= 0:
            self._end(OVER, f"the approval that it ran by is over (approval {self._reliance.number})")
