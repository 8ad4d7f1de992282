"""The host's end of the hatch: what lies in the page is believed as far as it can be, and none beside it is touched."""

from __future__ import annotations

import ctypes
import struct
import tracemalloc
from collections.abc import Iterator

import pytest

from ipc.broker.messages import MAX_PAYLOAD_BYTES
from worker import hatch
from worker.hatch import LONG_BYTES, MESSAGE, PAGE_BYTES, PIECE_BYTES, RESULT, Hatch

AROUND: bytes = b"\xa5" * PAGE_BYTES


class Page:
    """A page with something of somebody else's on either side, and its hatch."""

    def __init__(self) -> None:
        """Open it."""
        self.memory = bytearray(AROUND + bytes(PAGE_BYTES) + AROUND)
        self.hatch = Hatch()
        assert self.hatch.is_for(PAGE_BYTES, hatch.PAGES_MAX * PAGE_BYTES)
        self.hatch.open(ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE_BYTES)

    def put(self, at: int, content: bytes) -> None:
        """Write as a guard does, or as who isn't one."""
        self.memory[PAGE_BYTES + at : PAGE_BYTES + at + len(content)] = content

    def word(self, at: int) -> int:
        """Read a number."""
        found: int = struct.unpack_from("<I", self.memory, PAGE_BYTES + at)[0]
        return found

    def hand_over(self, number: int, size: int, piece: bytes = b"") -> None:
        """Tell of a piece."""
        self.put(hatch.PIECE_AT, piece)
        self.put(hatch.LIST_AT, struct.pack("<II", number, size))
        self.hatch.grow(hatch.TAKE_PAGES)

    def fetches(self, what: int, does: bool = True) -> None:
        """Say that a guard fetches."""
        self.put(hatch.FETCHED_AT + what, bytes((does,)))


@pytest.fixture
def page() -> Iterator[Page]:
    """Yield one, on whose sides nothing is written."""
    made = Page()
    yield made
    assert made.memory[:PAGE_BYTES] == made.memory[2 * PAGE_BYTES :] == AROUND


def test_pieces_make_lists(page: Page) -> None:
    """Pieces are put together in their order, each list by itself; what was taken is gone."""
    page.hand_over(0, PIECE_BYTES, b"a" * PIECE_BYTES)
    assert page.word(hatch.SIZE_AT) == 0
    page.hand_over(0, 3, b"bcd")
    page.hand_over(1, 1, b"e")
    assert page.hatch.take() == {0: b"a" * PIECE_BYTES + b"bcd", 1: b"e"}
    assert page.hatch.take() == {}


@pytest.mark.parametrize(
    ("number", "size"),
    [(0, 0), (0, PIECE_BYTES + 1), (0, PAGE_BYTES), (0, 0xFFFFFFFF), (0, 0x80000000), (2, 1), (0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_what_can_not_be_is_not_taken(page: Page, number: int, size: int) -> None:
    """A size beyond the page, a list that no function has: left there, where a guard sees that it wasn't taken."""
    page.hand_over(number, size)
    assert page.word(hatch.SIZE_AT) == size
    assert page.hatch.take() == {}


def test_no_more_is_kept_than_a_payload_may_have(page: Page) -> None:
    """Who rings on and on, without asking for anything, fills no memory."""
    for _ in range(100):
        page.hand_over(0, PIECE_BYTES)
        page.hand_over(1, PIECE_BYTES)
    taken = sum(len(one) for one in page.hatch.take().values())
    assert MAX_PAYLOAD_BYTES - PIECE_BYTES < taken <= MAX_PAYLOAD_BYTES
    page.hand_over(0, 1, b"x")
    assert page.hatch.take() == {0: b"x"}


def test_small_pieces_take_no_more_than_large_ones(page: Page) -> None:
    """Each of two bytes: they are kept as what they are, and not as a million values."""
    tracemalloc.start()
    for _ in range(10_000):
        page.hand_over(0, 2)
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(page.hatch.take()[0]) == 20_000
    assert kept_bytes < 100_000


def test_what_is_given_lies_there_piece_by_piece(page: Page) -> None:
    """The first at once, each other one when it is asked for, and none at the end."""
    page.fetches(MESSAGE)
    content = bytes(i % 251 for i in range(2 * PIECE_BYTES + 5))
    assert page.hatch.give(MESSAGE, content) == b""
    got = b""
    while left := page.word(hatch.GIVEN_AT):
        assert left == len(content) - len(got)
        at = PAGE_BYTES + hatch.PIECE_AT
        got += page.memory[at : at + min(left, PIECE_BYTES)]
        page.hatch.grow(hatch.MORE_PAGES)
    assert got == content
    for _ in range(3):
        page.hatch.grow(hatch.MORE_PAGES)
        page.hatch.grow(77)
    assert page.word(hatch.GIVEN_AT) == 0


def test_only_what_is_fetched_is_given(page: Page) -> None:
    """Short ones, what no guard fetches, and everything where there is no page: the engine carries it."""
    long = bytes(LONG_BYTES + 1)
    assert Hatch().give(MESSAGE, long) == long
    assert page.hatch.give(MESSAGE, long) == long
    page.fetches(RESULT)
    assert page.hatch.give(MESSAGE, long) == long
    assert page.hatch.give(RESULT, long) == b""
    assert page.hatch.give(RESULT, long[1:]) == long[1:]
    page.fetches(RESULT, False)
    assert page.hatch.give(RESULT, long) == long


@pytest.mark.parametrize(
    ("minimum", "maximum"),
    [(PAGE_BYTES, PAGE_BYTES), (2 * PAGE_BYTES, hatch.PAGES_MAX * PAGE_BYTES), (PAGE_BYTES, 1 << 32)],
)
def test_other_memories_are_none(minimum: int, maximum: int) -> None:
    """It is known by its bounds, which no toolchain gives a memory."""
    assert not Hatch().is_for(minimum, maximum)


def test_there_is_one(page: Page) -> None:
    """A second memory that looks like it is a memory as others are."""
    assert not page.hatch.is_for(PAGE_BYTES, hatch.PAGES_MAX * PAGE_BYTES)
