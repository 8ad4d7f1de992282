"""The store: what each call answers, the exact quota, pages of keys, what is refused, what the disk does."""

from __future__ import annotations

import os
import select
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.broker import messages as m
from ipc.broker.events import Store as Order
from ipc.broker.events import StoreResult
from ipc.broker.store import ENTRY_BYTES, FILE, RESERVE_FILE, SLICE_KEYS, Job, Listing, Store, StoreError, entry_bytes
from ipc.broker.store_faults import key_fault
from ipc.broker.store_thread import BATCH_BYTES, CROWDED, STORED_BYTES, WAITING_CALLS, StoreThread
from ipc.errors import LocalProtocolError
from ipc.policy.decision import Allow, Deny


class Rights:
    """Allows to read keys with one of these beginnings."""

    def __init__(self, *beginnings: str) -> None:
        self.beginnings = beginnings or ("",)

    def decide(self, action: str, resource: str) -> Allow | Deny:
        """Answer."""
        assert action == "storage.read"
        return Allow("grant") if resource.startswith(self.beginnings) else Deny("A1203", "no grant covers it", "")

    def granted(self, action: str) -> tuple[str, ...]:
        """Return nothing."""
        return ()


def ask_store(
    store: Store, *calls: m.StorageCall, name: str = "one", limit: int | None = 1_000, rights: Rights | None = None
) -> list[StoreResult]:
    """Have calls carried out together; listings to their end."""
    jobs: list[Job] = [(Order(n, name, call, limit, rights or Rights()), None) for n, call in enumerate(calls)]
    results = store.execute(jobs)
    for number, result in enumerate(results):
        while isinstance(result, Listing):
            (result,) = store.execute([(jobs[number][0], result)])
        results[number] = result
    return [result for result in results if isinstance(result, StoreResult)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    store = Store(str(tmp_path))
    yield store
    store.close()


def test_set_get_exists_delete(store: Store) -> None:
    """Each answers what its message says, and the usage after it."""
    cost = 1 + 3 + ENTRY_BYTES
    assert ask_store(store, m.Set(1, "k", b"abc"), m.Get(2, "k"), m.Exists(3, "k"), m.Usage(4)) == [
        StoreResult(count=1, usage_bytes=cost),
        StoreResult(value=b"abc", usage_bytes=cost),
        StoreResult(count=1, usage_bytes=cost),
        StoreResult(count=1, usage_bytes=cost),
    ]
    assert ask_store(store, m.Delete(1, "k"), m.Delete(2, "k"), m.Get(3, "k"), m.Exists(4, "k"), m.Usage(5)) == [
        StoreResult(count=1),
        StoreResult(count=0),
        StoreResult(value=None),
        StoreResult(count=0),
        StoreResult(count=0),
    ]


def test_compare_and_set(store: Store) -> None:
    """Only if what is there is what was expected, nothing included; a value of None deletes."""
    steps = [
        (m.CompareAndSet(1, "k", b"x", b"y"), 0, None),
        (m.CompareAndSet(1, "k", None, b"a"), 1, b"a"),
        (m.CompareAndSet(1, "k", None, b"b"), 0, b"a"),
        (m.CompareAndSet(1, "k", b"a", b""), 1, b""),
        (m.CompareAndSet(1, "k", b"", None), 1, None),
        (m.CompareAndSet(1, "k", None, None), 1, None),
    ]
    for call, count, value in steps:
        done, got = ask_store(store, call, m.Get(2, "k"))
        assert (done.count, got.value) == (count, value)


def test_the_limit_is_exact(store: Store) -> None:
    """The last byte fits in and one more doesn't; what is refused changes nothing; smaller always goes."""
    full = 1_000 - 1 - ENTRY_BYTES
    assert ask_store(store, m.Set(1, "k", b"x" * (full + 1))) == [StoreResult(over_limit=True)]
    assert ask_store(store, m.Set(1, "k", b"x" * full)) == [StoreResult(count=1, usage_bytes=1_000)]
    assert ask_store(store, m.Set(1, "l", b"")) == [StoreResult(over_limit=True, usage_bytes=1_000)]
    assert ask_store(store, m.Set(1, "k", b"x" * full))[0].count == 1
    assert ask_store(store, m.Set(1, "k", b"x"), limit=10) == [StoreResult(count=1, usage_bytes=66)]
    assert ask_store(store, m.Set(1, "k", b"xy"), limit=10) == [StoreResult(over_limit=True, usage_bytes=66)]
    assert ask_store(store, m.CompareAndSet(1, "k", b"x", b"xy"), limit=10)[0].over_limit
    assert ask_store(store, m.Set(1, "k", b"x" * 10_000), limit=None)[0].usage_bytes == 10_065
    assert ask_store(store, m.Set(1, "k", b""), m.Set(2, "l", b""), m.Set(3, "m", b""), name="two", limit=130) == [
        StoreResult(count=1, usage_bytes=65),
        StoreResult(count=1, usage_bytes=130),
        StoreResult(over_limit=True, usage_bytes=130),
    ]


def test_namespaces_know_nothing_of_each_other(store: Store) -> None:
    """The same key is another one, a listing and the usage too."""
    ask_store(store, m.Set(1, "k", b"one"))
    assert ask_store(store, m.Get(1, "k"), m.Exists(2, "k"), m.ListKeys(3, ""), m.Usage(4), name="two") == [
        StoreResult(),
        StoreResult(),
        StoreResult(),
        StoreResult(),
    ]


def test_keys_are_listed_in_pages(store: Store) -> None:
    """In the order of their bytes, after a key, beneath a beginning, only those that may be read, at most the limit."""
    keys = [f"a:{n:03}" for n in range(10)] + ["b", "b:ä", "b:😀", "c"]
    ask_store(store, *[m.Set(n, key, b"") for n, key in enumerate(keys)], limit=None)

    def listed(prefix: str, after: str = "", limit: int = 1000, rights: Rights | None = None) -> tuple[str, ...]:
        (result,) = ask_store(store, m.ListKeys(1, prefix, after, limit), rights=rights)
        return result.keys

    assert listed("") == tuple(sorted(keys, key=str.encode))
    assert listed("b:") == ("b:ä", "b:😀")
    assert listed("a:", "a:004", 3) == ("a:005", "a:006", "a:007")
    assert listed("a:", "a:009") == ()
    assert listed("", "b", 2) == ("b:ä", "b:😀")
    assert listed("", rights=Rights("c", "a:001")) == ("a:001", "c")
    assert listed("", limit=0) == ()
    assert listed("d") == ()


def test_a_long_listing_goes_in_steps(store: Store) -> None:
    """One step looks at so many keys and no more; together they find all that may be read."""
    many = SLICE_KEYS + 100
    ask_store(store, *[m.Set(n, f"k:{n:05}", b"") for n in range(many)], limit=None)
    order = Order(1, "one", m.ListKeys(1, ""), None, Rights(f"k:{many - 1:05}"))
    (first,) = store.execute([(order, None)])
    assert isinstance(first, Listing)
    (second,) = store.execute([(order, first)])
    assert isinstance(second, StoreResult)
    assert second.keys == (f"k:{many - 1:05}",)


@pytest.mark.parametrize(
    "key", ["", "a\0b", "a\nb", "a\x7f", "a\x85", ":", "a:", ":a", "a::b", "x" * 1025, "é" * 513, "\ud800"]
)
def test_what_is_no_key(store: Store, key: str) -> None:
    """It has a fault in words, and every call that names it fails and changes nothing."""
    assert key_fault(key)
    calls = (m.Set(1, key, b""), m.Get(1, key), m.Exists(1, key), m.Delete(1, key), m.CompareAndSet(1, key, None, b""))
    assert all(result.failure for result in ask_store(store, *calls))
    assert ask_store(store, m.Usage(1)) == [StoreResult()]


@pytest.mark.parametrize("key", ["a", "a:b:c", "../../etc/passwd", "a/b", "ä:😀", "x" * 1024, "%", "'; DROP"])
def test_what_is_a_key(store: Store, key: str) -> None:
    """Names that would mean something elsewhere are just names."""
    assert not key_fault(key)
    assert [r.value for r in ask_store(store, m.Set(1, key, b"v"), m.Get(2, key), limit=None)] == [None, b"v"]


def test_usage_is_summed_up_from_the_rows(tmp_path: Path) -> None:
    """A store that is opened again knows what is used, whatever happened."""
    store = Store(str(tmp_path))
    ask_store(store, m.Set(1, "k", b"xyz"), m.Set(2, "l", b"x"), m.Delete(3, "k"), m.Set(4, "l", b"longer"))
    ask_store(store, m.Set(1, "ä", b"x" * 99), name="two")
    store.close()
    store = Store(str(tmp_path))
    assert store.account("one").usage_bytes == entry_bytes("l", b"longer")
    assert store.account("two").usage_bytes == entry_bytes("ä", b"x" * 99) == 2 + 99 + 64
    assert store.account("three").usage_bytes == 0
    store.close()


def test_the_files_are_the_owners_alone_and_one_broker_has_them(tmp_path: Path, store: Store) -> None:
    """Mode 0600, no shared memory beside it; a second one is refused."""
    ask_store(store, m.Set(1, "k", b""))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {FILE, f"{FILE}-wal", RESERVE_FILE}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(StoreError, match="locked"):
        Store(str(tmp_path))


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    """Another program's database, a damaged file, a link: an error that names the file, and nothing is written."""
    path = tmp_path / FILE
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 7")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of this version"):
        Store(str(tmp_path))
    assert path.read_bytes() == before
    path.write_bytes(b"garbage" * 1_000)
    with pytest.raises(StoreError, match=FILE):
        Store(str(tmp_path))
    path.unlink()
    os.symlink("/etc/passwd", path)
    with pytest.raises(StoreError, match=FILE):
        Store(str(tmp_path))


def test_a_removed_namespace_leaves_no_byte(tmp_path: Path, store: Store) -> None:
    """Neither in the log nor in free pages; another one's entries stay."""
    ask_store(store, *[m.Set(n, f"secret{n}", b"hidden" * 300) for n in range(50)], limit=None)
    ask_store(store, m.Set(1, "kept", b"stays"), name="two")
    assert store.remove("one") == ""
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret" not in held
    assert b"hidden" not in held
    assert b"stays" in held
    assert store.account("one").usage_bytes == 0
    assert ask_store(store, m.Get(1, "kept"), name="two")[0].value == b"stays"


def test_calls_share_transactions_and_keep_their_order(tmp_path: Path) -> None:
    """A thousand calls of four components, each answered, each component's in order."""
    thread = StoreThread(Store(str(tmp_path)))
    for number in range(1_000):
        name = f"c{number % 4}"
        thread.submit(Order(number, name, m.Set(number, "k", b"%d" % number), None, Rights()))
    thread.close()
    answered = [stored.ticket for stored in thread._stored]
    assert sorted(answered) == list(range(1_000))
    for part in range(4):
        mine = [ticket for ticket in answered if ticket % 4 == part]
        assert mine == sorted(mine)
    store = Store(str(tmp_path))
    assert [ask_store(store, m.Get(1, "k"), name=f"c{n}")[0].value for n in range(4)] == [
        b"996", b"997", b"998", b"999",
    ]  # fmt: skip
    store.close()


def test_one_component_can_not_crowd_the_others_out(tmp_path: Path) -> None:
    """What waits of one component is bounded, and another one's call is not behind all of it."""
    thread = StoreThread(Store(str(tmp_path)))
    with thread._changed:
        for number in range(WAITING_CALLS):
            thread.submit(Order(number, "flood", m.Set(number, "k", b"x"), None, Rights()))
        thread.submit(Order(-1, "flood", m.Get(1, "k"), None, Rights()))
        thread.submit(Order(-2, "other", m.Get(1, "k"), None, Rights()))
    thread.close()
    answered = [stored.ticket for stored in thread._stored]
    assert next(stored for stored in thread._stored if stored.ticket == -1).result == StoreResult(failure=CROWDED)
    assert answered.index(-2) < 100


def test_values_that_nobody_takes_are_bounded(tmp_path: Path) -> None:
    """Many who ask for large values at a time get them as fast as they are taken; what waits meanwhile is little."""
    store = Store(str(tmp_path))
    names = [f"component-{number}" for number in range(40)]
    for name in names:
        ask_store(store, m.Set(1, "k", bytes(1_000_000)), name=name, limit=None)
    thread = StoreThread(store)
    for ticket, name in enumerate(names):
        thread.submit(Order(ticket, name, m.Get(ticket, "k"), None, Rights()))
    taken: list[int] = []
    while len(taken) < len(names):
        assert select.select([thread], [], [], 20)[0]
        stored = thread.take_stored()
        assert sum(len(each.result.value or b"") for each in stored) <= STORED_BYTES + BATCH_BYTES
        taken += [each.ticket for each in stored]
    assert sorted(taken) == list(range(len(names)))
    thread.close()


def test_a_thread_that_ends_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it breaks on, want of memory for one, is told to who waits; with a store that works nothing is."""
    thread = StoreThread(Store(str(tmp_path)))
    thread.submit(Order(1, "one", m.Get(1, "k"), None, Rights()))
    assert select.select([thread], [], [], 20)[0]
    assert [each.ticket for each in thread.take_stored()] == [1]

    def break_off(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Store, "execute", break_off)
    thread.submit(Order(2, "one", m.Get(2, "k"), None, Rights()))
    assert select.select([thread], [], [], 20)[0]
    with pytest.raises(LocalProtocolError, match="MemoryError"):
        thread.take_stored()
    thread.close()
