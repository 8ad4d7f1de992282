"""The mailbox of one receiver: what was accepted for it and is not handled yet. Pure.

At most `WINDOW` messages are with the receiver at a time, and more only of small ones that nobody waits for: so a slow
one doesn't fill its own memory, a request that has ended isn't begun, and a dead one takes few along. The rest waits
here in the order of arrival, bounded by number, by bytes, and by the room that all mailboxes share. While there is room
in the window nothing waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ipc.broker.messages import Deliver
from ipc.struct import Struct

WINDOW: Final = 32
"""Deliveries that a receiver has not handled yet. Enough to keep one busy through a batch; few to lose with it."""
SMALL_WINDOW: Final = 256
"""As many where the next one is small. At a window's end each side waits for the other, and what such a turn costs is
shared by the messages in it: of small ones that is most of what they cost."""
SMALL_BYTES: Final = 1_024
"""What is small has at most so many bytes, and nobody waits for its answer."""
NUMBERS: Final = 2**53
"""Ids are below this, so that every language can hold them in a float."""


LETTER_BYTES: Final = 256
"""What a waiting message takes beside its payload; it is counted so that many small ones are not free."""


class Pool:
    """The room that all mailboxes, and what else waits, share. Everyone can use what the others leave.

    Their own bounds allow the sum of all to be many times what the process may hold. So when the pool is used up,
    nobody gets more than a share of it, and everybody gets that: a component that fills one mailbox after another
    takes no other's room away. Twice the pool is the most that waits.
    """

    __slots__ = ("_holders", "limit_bytes", "share_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        """Begin with nobody who could use it."""
        self.limit_bytes = self.share_bytes = limit_bytes
        self.used_bytes = 0
        self._holders = 0

    def change_holders(self, more: int) -> None:
        """Somebody has come or gone who may hold something."""
        self._holders += more
        self.share_bytes = self.limit_bytes // max(1, self._holders)

    def take(self, size_bytes: int, held_bytes: int) -> bool:
        """Take room for somebody who holds so much already; False when there is none."""
        used = self.used_bytes + size_bytes
        if used > self.limit_bytes and held_bytes + size_bytes > self.share_bytes:
            return False
        self.used_bytes = used
        return True

    def give_back(self, size_bytes: int) -> None:
        """Give room back."""
        self.used_bytes -= size_bytes


class Letter(Struct, frozen=True, gc=False):
    """What waits. `correlation` is that of a request, 0 where no answer is wanted."""

    sender: str
    payload: bytes
    correlation: int
    topic: str


class Mailbox:
    """One receiver's. `unhandled` are the deliveries that are with it, each with its correlation."""

    __slots__ = (
        "_letters",
        "_next",
        "_pool",
        "dead",
        "is_open",
        "max_bytes",
        "max_messages",
        "size_bytes",
        "unhandled",
    )

    def __init__(self, max_messages: int, max_bytes: int, first_delivery: int, pool: Pool) -> None:
        """Begin closed: messages wait until the receiver is there.

        Deliveries are numbered from `first_delivery`, a random number: an answer that is left over from an earlier
        session must not fit a delivery of this one.
        """
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self._pool = pool
        self.is_open = False
        self.size_bytes = 0
        self.unhandled: dict[int, int] = {}
        self.dead = 0
        """Requests that wait here and whose sender doesn't any more."""
        self._letters: deque[Letter] = deque()
        self._next = first_delivery

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, sender: str, payload: bytes, correlation: int = 0, topic: str = "") -> Deliver | bool:
        """Accept a message: what is to be delivered now, True when it waits, False when there is no room."""
        size, letters = len(payload), self._letters
        if not letters and self.is_open and self._takes(size, correlation):
            number = self._next
            self._next = number + 1
            self.unhandled[number] = correlation
            return Deliver(number, sender, payload, correlation != 0, topic)
        waiting = len(letters)
        if waiting >= self.max_messages or self.size_bytes + size > self.max_bytes:
            return False
        # As `held_bytes` says; asking it costs as much as all of this.
        if not self._pool.take(size + LETTER_BYTES, self.size_bytes + LETTER_BYTES * waiting):
            return False
        letters.append(Letter(sender, payload, correlation, topic))
        self.size_bytes += size
        return True

    def _takes(self, size_bytes: int, correlation: int) -> bool:
        """Whether the receiver may be given one more, of that size."""
        given = len(self.unhandled)
        return given < WINDOW or (given < SMALL_WINDOW and not correlation and size_bytes <= SMALL_BYTES)

    @property
    def held_bytes(self) -> int:
        """What it takes of the pool."""
        return self.size_bytes + LETTER_BYTES * len(self._letters)

    def handled(self, delivery: int) -> int:
        """Take note that a delivery is done with: its correlation, 0 for none, -1 if it isn't with the receiver."""
        return self.unhandled.pop(delivery, -1)

    def refill(self, is_wanted: Callable[[int], bool]) -> list[Deliver]:
        """What is to be delivered now that there is room; `is_wanted` says whether anybody waits for a request."""
        ready: list[Deliver] = []
        letters, taken_bytes = self._letters, 0
        while letters and self.is_open:
            letter = letters[0]
            size, correlation = len(letter.payload), letter.correlation
            if not self._takes(size, correlation):
                break
            letters.popleft()
            self.size_bytes -= size
            taken_bytes += size + LETTER_BYTES
            if correlation and not is_wanted(correlation):
                self.dead -= 1
                continue
            number = self._next
            self._next = number + 1
            self.unhandled[number] = correlation
            ready.append(Deliver(number, letter.sender, letter.payload, correlation != 0, letter.topic))
        self._pool.give_back(taken_bytes)
        return ready

    def bury(self, is_wanted: Callable[[int], bool]) -> bool:
        """Drop the requests that nobody waits for, if they are the larger part; whether they were.

        Only then, so that a sender who finds the mailbox full again and again doesn't have us go through it each time.
        """
        if self.dead * 2 <= len(self._letters):
            return False
        kept = [letter for letter in self._letters if not letter.correlation or is_wanted(letter.correlation)]
        before = self.held_bytes
        self._letters = deque(kept)
        self.size_bytes = sum(len(letter.payload) for letter in kept)
        self._pool.give_back(before - self.held_bytes)
        self.dead = 0
        return True

    def withdraw(self) -> tuple[list[int], int]:
        """Forget what is with the receiver, which is out of reach: the requests' correlations, the number of others."""
        correlations = [correlation for correlation in self.unhandled.values() if correlation]
        others = len(self.unhandled) - len(correlations)
        self.unhandled.clear()
        self.is_open = False
        return correlations, others

    def take_letters(self) -> list[Letter]:
        """Give up what waits, in its order: it is another mailbox's now."""
        letters = list(self._letters)
        self._pool.give_back(self.held_bytes)
        self._letters.clear()
        self.size_bytes = self.dead = 0
        return letters

    def empty(self) -> tuple[list[int], int]:
        """Forget what waits: the requests' correlations, the number of others."""
        letters = self.take_letters()
        correlations = [letter.correlation for letter in letters if letter.correlation]
        return correlations, len(letters) - len(correlations)
