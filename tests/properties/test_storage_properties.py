"""The storage account against a model of files: what is used is what there is, whatever happens in which order."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipc.policy.quota import STATUSES, Crossings, QuotaLevel
from ipc.policy.storage import (
    AHEAD_BYTES,
    MEASURE_NEAR_NS,
    MEASURE_NS,
    OBJECT_BYTES,
    Extent,
    Identity,
    StorageAccount,
    Walk,
    largest_file_bytes,
    next_measurement_ns,
)
from ipc.struct import Struct

sizes = st.integers(0, 5 * OBJECT_BYTES)
extents = st.builds(Extent, sizes, sizes)
amounts = st.integers(0, 2**40)


class File(Struct):
    """One file of the model. `base` is what it had when this run first touched it, where only growth counts."""

    identity: Identity
    extent: Extent
    inside: bool
    base: Extent | None
    links: int = 1
    more_names: int = 0
    readers: bool = False
    writers: bool = False

    @property
    def counted_bytes(self) -> int:
        """What it counts, further names included."""
        own = self.extent.counted_bytes if self.base is None else self.extent.growth_bytes(self.base)
        return own + self.more_names * OBJECT_BYTES


class Machine(RuleBasedStateMachine):
    """Files inside and outside; what happens to them reaches the account as the warden tells it."""

    def __init__(self) -> None:
        """Start with an empty model."""
        super().__init__()
        self.account = StorageAccount(2**40)
        self.files: list[File] = []
        self.unlinked: list[File] = []
        self.next = 0

    def add(self, extent: Extent, inside: bool, base: Extent | None) -> File:
        """Make a file of the model."""
        self.next += 1
        file = File((1, self.next), extent, inside, base)
        self.files.append(file)
        return file

    @initialize(inside=st.lists(extents, max_size=3), outside=st.lists(extents, max_size=3))
    def begin(self, inside: list[Extent], outside: list[Extent]) -> None:
        """Files that were there before."""
        for extent in inside:
            self.add(extent, True, None)
        for extent in outside:
            self.add(extent, False, extent)
        self.recount()

    @rule(extent=extents, inside=st.booleans())
    def create(self, extent: Extent, inside: bool) -> None:
        """A new file, open for writing."""
        file = self.add(extent, inside, None)
        self.account.follow(file.identity, extent, inside, created=True)
        file.writers = True

    @precondition(lambda self: self.files)
    @rule(data=st.data(), writes=st.booleans())
    def open(self, data: st.DataObject, writes: bool) -> None:
        """Open for writing, or for reading, which the account needn't know."""
        file = data.draw(st.sampled_from(self.files))
        if writes:
            self.account.follow(file.identity, file.extent, file.inside)
            file.writers = True
        else:
            file.readers = True

    @precondition(lambda self: any(file.writers for file in self.files + self.unlinked))
    @rule(data=st.data(), extent=extents)
    def write(self, data: st.DataObject, extent: Extent) -> None:
        """Grow or shrink through an open descriptor, also without a name."""
        file = data.draw(st.sampled_from([file for file in self.files + self.unlinked if file.writers]))
        before, file.extent = file.counted_bytes, extent
        assert self.account.measured(file.identity, extent) == (file.counted_bytes > before)

    @precondition(lambda self: self.files)
    @rule(data=st.data(), extent=extents)
    def truncate(self, data: st.DataObject, extent: Extent) -> None:
        """By path; what would be used is known before."""
        file = data.draw(st.sampled_from(self.files))
        expected = self.account.usage_with(file.identity, file.extent, extent, file.inside)
        self.account.follow(file.identity, file.extent, file.inside)
        file.extent = extent
        self.account.measured(file.identity, extent)
        assert self.account.usage_bytes == expected
        if not file.writers:
            self.account.forget_idle(file.identity, ())
            if file.base is not None and not file.counted_bytes:
                file.base = extent

    @precondition(lambda self: self.files)
    @rule(data=st.data(), inside=st.booleans())
    def move(self, data: st.DataObject, inside: bool) -> None:
        """To another name, which may be on the other side; what would be used is known before."""
        file = data.draw(st.sampled_from([file for file in self.files if file.links == 1] or self.files))
        if file.links > 1:
            return
        expected = self.account.usage_moved(file.identity, file.extent, file.inside) + file.more_names * OBJECT_BYTES
        changes = inside != file.inside
        self.account.moved(file.identity, file.extent, file.inside, inside)
        if changes:
            file.base = None
            assert self.account.usage_bytes in (expected, expected - file.more_names * OBJECT_BYTES)
        file.inside = inside

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def link(self, data: st.DataObject) -> None:
        """One more name on the same side."""
        file = data.draw(st.sampled_from(self.files))
        self.account.named(file.identity, file.extent, file.inside, file.inside)
        file.links += 1
        file.more_names += 1

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        """One name less; with the last it counts for as long as it is open."""
        file = data.draw(st.sampled_from(self.files))
        file.links -= 1
        self.account.unnamed(file.identity, file.extent, file.links, file.inside, may_be_open=True)
        if file.links:
            file.more_names = max(0, file.more_names - 1)
            return
        self.files.remove(file)
        if file.inside or file.base is None or file.counted_bytes or file.writers:
            self.unlinked.append(file)
        self.look()

    @precondition(lambda self: self.files + self.unlinked)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """Every descriptor of one file."""
        file = data.draw(st.sampled_from(self.files + self.unlinked))
        file.readers = file.writers = False
        self.look()

    @rule()
    def look(self) -> None:
        """What the warden finds open."""
        every = self.files + self.unlinked
        opened = {file.identity for file in every if file.readers or file.writers}
        written = {file.identity for file in every if file.writers}
        self.account.closed(opened, written)
        self.unlinked = [file for file in self.unlinked if file.identity in opened]
        for file in self.files:
            if file.base is not None and not file.writers and not file.counted_bytes:
                file.base = file.extent  # forgotten: as if it had never been touched

    @rule()
    def recount(self) -> None:
        """A walk of what lies inside finds what the sums say."""
        self.account.begin_recount({file.identity for file in self.files + self.unlinked if file.writers})
        walk = Walk(self.account)
        for file in self.files:
            for _ in range(file.links if file.inside else 0):
                walk.meet(file.identity, file.extent, file.links, False)
        self.account.recounted(walk.lying_bytes, walk.lying_objects)

    @invariant()
    def is_what_there_is(self) -> None:
        """The account says what the model says."""
        assert self.account.usage_bytes == sum(file.counted_bytes for file in self.files + self.unlinked)


TestStorageAccount = Machine.TestCase
TestStorageAccount.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(usage=amounts, limit=amounts)
def test_a_level_has_one_status(usage: int, limit: int) -> None:
    """The status follows the percentage, and exceeded is exactly more than the limit."""
    level = QuotaLevel("storage", usage, limit)
    assert level.status in STATUSES
    assert (level.status == "exceeded") == (usage > limit)
    if limit > 0 and usage <= limit:
        expected = "critical" if usage * 100 >= 95 * limit else "warning" if usage * 100 >= 80 * limit else "ok"
        assert level.status == expected
    assert level.to_json()["percent"] == level.percent


@given(usages=st.lists(st.integers(0, 120), max_size=50))
def test_each_crossing_is_told_once(usages: list[int]) -> None:
    """There are as many events as changes of the status, no more."""
    crossings = Crossings()
    told = [crossings.note(QuotaLevel("storage", usage, 100)) for usage in usages]
    statuses = ["ok", *(QuotaLevel("storage", usage, 100).status for usage in usages)]
    assert told == [a != b for a, b in itertools.pairwise(statuses)]


@given(limit=amounts, allocated=amounts)
def test_the_largest_file_alone_fits(limit: int, allocated: int) -> None:
    """A file as long as RLIMIT_FSIZE lets it get is within the quota, whatever is allocated ahead of it."""
    largest = largest_file_bytes(limit)
    assert 0 <= largest <= limit
    ahead = allocated if limit >= 16 * AHEAD_BYTES else 0
    assert not largest or Extent(largest, largest + ahead).counted_bytes <= limit


@given(remaining=amounts)
def test_the_nearer_to_the_limit_the_sooner_it_is_measured(remaining: int) -> None:
    """Never later than the interval that is promised, and never so often that it costs."""
    assert MEASURE_NEAR_NS <= next_measurement_ns(remaining) <= MEASURE_NS
    assert next_measurement_ns(remaining) <= next_measurement_ns(remaining + 1)
