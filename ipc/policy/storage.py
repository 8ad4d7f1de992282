"""How much of its storage quota a component uses: the account, as values in and numbers out. Pure.

Two kinds of things count. Whatever lies in the component's own directories (`${data}`, `${tmp}`) counts whole.
Elsewhere counts what this run makes, and by how much it makes files grow that were there before.

- A file counts with the larger of its length and what is allocated for it, and at least `OBJECT_BYTES`. By length, so
  that a sparse file isn't free until somebody copies it; by blocks, because small files take more than they are long
  and holes that others left can be filled. What is allocated beyond the length counts up to `AHEAD_BYTES`: more is the
  file system's own doing, as a worker can't ask for it.
- Directories, symbolic links and further names of a file (hard links) count `OBJECT_BYTES` each, so that a quota bounds
  the number of names too. The bytes of a file count once, however many names it has.
- An unlinked file counts for as long as the worker holds a descriptor of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ipc.struct import Struct

Identity = tuple[int, int]
"""Device and inode."""

OBJECT_BYTES: Final = 4096
"""The least that a name counts: a block, or about what an inode and a name cost where there are none."""
INSIDE: Final = "inside"
OUTSIDE: Final = "outside"
OBJECTS_MAX: Final = 250_000
"""How many names a component may have that count, however large its quota."""


AHEAD_BYTES: Final = 65_536
"""How much of what is allocated beyond a file's length counts; XFS allocates as much again while a file grows."""


def largest_file_bytes(limit_bytes: int) -> int:
    """Return how long one file may get (RLIMIT_FSIZE), so that a file of that length alone doesn't exceed the quota."""
    if limit_bytes >= 16 * AHEAD_BYTES:
        return limit_bytes - AHEAD_BYTES
    return limit_bytes - limit_bytes % OBJECT_BYTES


class Extent(Struct, frozen=True):
    """What stat(2) says of an object: `st_size`, and `st_blocks` in bytes."""

    size_bytes: int
    allocated_bytes: int

    @property
    def blocks_bytes(self) -> int:
        """What is allocated, as far as it counts."""
        return min(self.allocated_bytes, self.size_bytes + AHEAD_BYTES)

    @property
    def counted_bytes(self) -> int:
        """What it counts where all of it counts."""
        return max(self.size_bytes, self.blocks_bytes, OBJECT_BYTES)

    def growth_bytes(self, base: Extent) -> int:
        """What it counts where only what came on top of `base` counts."""
        return max(self.size_bytes - base.size_bytes, self.blocks_bytes - base.blocks_bytes, 0)


class _Followed(Struct):
    """An object that is followed by itself. Without a `base` all of it counts."""

    extent: Extent
    base: Extent | None
    inside: bool
    gone: bool = False
    names: int = 0

    @property
    def counted_bytes(self) -> int:
        own = self.extent.counted_bytes if self.base is None else self.extent.growth_bytes(self.base)
        return own + self.names * OBJECT_BYTES


class StorageAccount:
    """The account of one component. What lies in its own directories untouched is one sum; what it touches is followed.

    `inside` says of an object that it lies in one of the component's own directories.
    """

    __slots__ = ("_followed", "_followed_bytes", "_gone", "_lying_bytes", "_lying_objects", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        """Start with nothing."""
        self.limit_bytes = limit_bytes
        self._followed: dict[Identity, _Followed] = {}
        self._followed_bytes = 0
        self._gone = 0
        self._lying_bytes = 0
        self._lying_objects = 0

    @property
    def usage_bytes(self) -> int:
        """What is used now, as far as it was told."""
        return self._lying_bytes + self._followed_bytes

    @property
    def objects(self) -> int:
        """How many names count, about."""
        return self._lying_objects + len(self._followed)

    def followed_at(self, identity: Identity) -> str:
        """Say where an object lies that is followed by itself: inside, outside, or "" if it isn't."""
        entry = self._followed.get(identity)
        return "" if entry is None else INSIDE if entry.inside else OUTSIDE

    # -- may it? -------------------------------------------------------------------------------------------------------

    def has_room(self, more_bytes: int) -> bool:
        """Whether one more object that counts `more_bytes` still fits."""
        return self.usage_bytes + more_bytes <= self.limit_bytes and self.objects < OBJECTS_MAX

    def may_follow(self, identity: Identity) -> bool:
        """Whether one more object can be followed; those that grew by next to nothing are bounded by their number."""
        return identity in self._followed or len(self._followed) < OBJECTS_MAX

    def usage_with(self, identity: Identity, now: Extent, then: Extent, inside: bool) -> int:
        """What would be used if this object, which is `now`, were `then`."""
        entry = self._followed.get(identity)
        if entry is None or entry.gone:
            entry = _Followed(now, None if inside else now, inside)
            rest = self.usage_bytes - (entry.counted_bytes if inside else 0)
        else:
            rest = self.usage_bytes - entry.counted_bytes
        return rest + _Followed(then, entry.base, inside, names=entry.names).counted_bytes

    def usage_moved(self, identity: Identity, now: Extent, inside: bool) -> int:
        """What would be used if all of this object counted."""
        entry = self._followed.get(identity)
        counts = entry.counted_bytes if entry is not None else now.counted_bytes if inside else 0
        return self.usage_bytes - counts + now.counted_bytes

    # -- what happened -------------------------------------------------------------------------------------------------

    def follow(self, identity: Identity, now: Extent, inside: bool, created: bool = False) -> None:
        """Follow an object from here on; one that was `created` just now counts whole, wherever it is."""
        entry = self._followed.get(identity)
        if entry is not None and not (created or entry.gone):
            self._measure(entry, now)
            return
        if entry is not None:  # its number was given to another object: the old one is gone for good
            self._drop(identity)
        elif inside and not created:
            self._lying(-now.counted_bytes, -1)
        entry = self._followed[identity] = _Followed(now, None if created or inside else now, inside)
        self._followed_bytes += entry.counted_bytes

    def measured(self, identity: Identity, now: Extent) -> bool:
        """Take a new measurement of a followed object; True when it counts more than before."""
        entry = self._followed.get(identity)
        return entry is not None and self._measure(entry, now)

    def unnamed(self, identity: Identity, before: Extent, names_left: int, inside: bool, may_be_open: bool) -> None:
        """One of its names was removed; what it counts is released with the last, and with the last descriptor."""
        entry = self._followed.get(identity)
        if names_left > 0:
            if entry is None:
                if inside:
                    self._lying(-OBJECT_BYTES, -1)
            elif entry.names > 0:
                entry.names -= 1
                self._followed_bytes -= OBJECT_BYTES
            elif inside:
                self._lying(-OBJECT_BYTES, -1)
            return
        if entry is None:
            if not inside:
                return
            self.follow(identity, before, inside)
            entry = self._followed[identity]
        if may_be_open:
            self._gone += not entry.gone
            entry.gone = True
        else:
            self._drop(identity)

    def named(self, identity: Identity, now: Extent, from_inside: bool, to_inside: bool) -> None:
        """It was given one more name. With one name inside and one outside it counts whole, and is followed."""
        if from_inside and to_inside and identity not in self._followed:
            self._lying(OBJECT_BYTES, 1)
            return
        self.follow(identity, now, from_inside)
        if from_inside or to_inside:
            self._count_whole(identity, inside=from_inside and to_inside)
        self._followed[identity].names += 1
        self._followed_bytes += OBJECT_BYTES

    def moved(self, identity: Identity, now: Extent, from_inside: bool, to_inside: bool) -> None:
        """Its name was changed to one that is inside, or outside; what was inside goes on counting whole."""
        if from_inside != to_inside:
            self.follow(identity, now, from_inside)
            self._count_whole(identity, to_inside)

    def closed(self, opened: Collection[Identity], written: Collection[Identity]) -> None:
        """Take what the worker holds open, and holds open for writing; what was waiting to be closed is released."""
        for identity, entry in list(self._followed.items()):
            if entry.gone and identity not in opened:
                self._drop(identity)
            else:
                self.forget_idle(identity, written)

    def forget_idle(self, identity: Identity, written: Collection[Identity]) -> None:
        """Follow an object no longer that counts nothing and isn't open for writing."""
        entry = self._followed.get(identity)
        if entry is None or entry.gone or entry.inside or identity in written:
            return
        if not entry.counted_bytes:
            self._drop(identity)

    @property
    def waits_for_closing(self) -> bool:
        """Whether some unlinked file may still be held open."""
        return self._gone > 0

    def begin_recount(self, written: Collection[Identity]) -> None:
        """Follow no longer what lies inside, has a name and is not open for writing: a walk is about to count it."""
        for identity, entry in list(self._followed.items()):
            if entry.inside and not entry.gone:
                # Its further names are met by the walk.
                self._followed_bytes -= entry.names * OBJECT_BYTES
                entry.names = 0
                if identity not in written:
                    self._drop(identity)

    def recounted(self, lying_bytes: int, lying_objects: int) -> None:
        """Take what a walk found inside, without what is followed."""
        self._lying_bytes = lying_bytes
        self._lying_objects = lying_objects

    # -- the sums ------------------------------------------------------------------------------------------------------

    def _measure(self, entry: _Followed, now: Extent) -> bool:
        before = entry.counted_bytes
        entry.extent = now
        more = entry.counted_bytes - before
        self._followed_bytes += more
        return more > 0

    def _count_whole(self, identity: Identity, inside: bool) -> None:
        entry = self._followed[identity]
        before = entry.counted_bytes
        entry.base = None
        entry.inside = inside
        self._followed_bytes += entry.counted_bytes - before

    def _drop(self, identity: Identity) -> None:
        entry = self._followed.pop(identity)
        self._followed_bytes -= entry.counted_bytes
        self._gone -= entry.gone

    def _lying(self, more_bytes: int, more_objects: int) -> None:
        # Others change these directories too: until the next walk a sum may be too small to take from.
        self._lying_bytes = max(0, self._lying_bytes + more_bytes)
        self._lying_objects = max(0, self._lying_objects + more_objects)


class Walk:
    """Adds up what a walk meets: a file with many names once, each further name of it as an object."""

    __slots__ = ("_account", "_seen", "lying_bytes", "lying_objects", "uncounted")

    def __init__(self, account: StorageAccount) -> None:
        """Start at nothing; what `account` follows is left out."""
        self._account = account
        self._seen: set[Identity] = set()
        self.lying_bytes = 0
        self.lying_objects = 0
        self.uncounted = False
        """Whether something was there that can't be counted."""

    @property
    def full(self) -> bool:
        """Whether there are so many objects that counting on changes nothing."""
        return self.lying_objects >= OBJECTS_MAX

    def meet(self, identity: Identity, extent: Extent, links: int, is_directory: bool) -> None:
        """Count one name."""
        followed_at = self._account.followed_at(identity)
        if followed_at == OUTSIDE:  # it has names on both sides, which are counted where it is followed
            return
        further = identity in self._seen
        if links > 1 and not is_directory:
            self._seen.add(identity)
        if followed_at and not further:
            return
        self.lying_objects += 1
        self.lying_bytes += OBJECT_BYTES if further else extent.counted_bytes


MEASURE_NS: Final = 250_000_000
"""How often what is open for writing is measured, at the least."""
MEASURE_NEAR_NS: Final = 25_000_000
FILL_BYTES_PER_S: Final = 1_000_000_000
"""How fast a worker is taken to fill what is left of its quota: the next measurement comes before it can be full."""


def next_measurement_ns(remaining_bytes: int) -> int:
    """Return how long to wait before the next measurement while `remaining_bytes` of the quota are left."""
    return min(MEASURE_NS, max(MEASURE_NEAR_NS, remaining_bytes * 1_000_000_000 // FILL_BYTES_PER_S))
