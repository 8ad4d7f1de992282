"""The store against a dict: any calls, in any batches, with any reopening, answer the same and count the same."""

from __future__ import annotations

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.broker import messages as m
from ipc.broker.events import Store as Order
from ipc.broker.events import StoreResult
from ipc.broker.store import Store, entry_bytes
from ipc.policy.decision import Allow, Deny


class Everything:
    """May read everything."""

    def decide(self, action: str, resource: str) -> Allow | Deny:
        """Allow."""
        return Allow("grant")

    def granted(self, action: str) -> tuple[str, ...]:
        """Return nothing."""
        return ()


KEYS = st.sampled_from(["a", "b", "a:b", "ä", "a:c:d"])
VALUES = st.binary(max_size=40)
MAYBE = st.none() | VALUES
CALLS = st.one_of(
    st.builds(m.Set, st.just(1), KEYS, VALUES),
    st.builds(m.Get, st.just(1), KEYS),
    st.builds(m.Delete, st.just(1), KEYS),
    st.builds(m.Exists, st.just(1), KEYS),
    st.builds(m.Usage, st.just(1)),
    st.builds(m.ListKeys, st.just(1), st.sampled_from(["", "a", "a:"]), st.sampled_from(["", "a", "a:b"])),
    st.builds(m.CompareAndSet, st.just(1), KEYS, MAYBE, MAYBE),
)
BATCHES = st.lists(st.lists(st.tuples(st.sampled_from(["one", "two"]), CALLS), min_size=1, max_size=6), max_size=8)
LIMIT = 400


class Model:
    """What a namespace should hold."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    @property
    def usage(self) -> int:
        """What it costs."""
        return sum(entry_bytes(key, value) for key, value in self.entries.items())

    def put(self, key: str, value: bytes | None) -> StoreResult:
        """Set or delete within the limit."""
        before, usage = dict(self.entries), self.usage
        if value is None:
            there = self.entries.pop(key, None) is not None
            return StoreResult(count=int(there), usage_bytes=self.usage)
        self.entries[key] = value
        if self.usage > LIMIT and self.usage > usage:
            self.entries = before
            return StoreResult(over_limit=True, usage_bytes=usage)
        return StoreResult(count=1, usage_bytes=self.usage)

    def answer(self, call: m.StorageCall) -> StoreResult:
        """Answer as the store should."""
        match call:
            case m.Set(_, key, value):
                return self.put(key, value)
            case m.Delete(_, key):
                return self.put(key, None)
            case m.CompareAndSet(_, key, expected, value):
                if self.entries.get(key) != expected:
                    return StoreResult(usage_bytes=self.usage)
                if expected is None and value is None:
                    return StoreResult(count=1, usage_bytes=self.usage)
                return self.put(key, value)
            case m.Get(_, key):
                return StoreResult(value=self.entries.get(key), usage_bytes=self.usage)
            case m.Exists(_, key):
                return StoreResult(count=int(key in self.entries), usage_bytes=self.usage)
            case m.Usage():
                return StoreResult(count=len(self.entries), usage_bytes=self.usage)
            case m.ListKeys(_, prefix, after):
                keys = sorted(k for k in self.entries if k.startswith(prefix) and k.encode() > after.encode())
                return StoreResult(keys=tuple(keys), count=len(keys), usage_bytes=self.usage)


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.integers(0, 8))
def test_it_answers_as_a_dict_does(batches: list[list[tuple[str, m.StorageCall]]], reopen_at: int) -> None:
    """Results, usage and the limit are those of the model; also after it was opened again in between."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        models = {"one": Model(), "two": Model()}
        for number, batch in enumerate(batches):
            if number == reopen_at:
                store.close()
                store = Store(directory)
            jobs = [(Order(1, name, call, LIMIT, Everything()), None) for name, call in batch]
            assert store.execute(jobs) == [models[name].answer(call) for name, call in batch]
        store.close()
        store = Store(directory)
        for name, model in models.items():
            assert store.account(name).usage_bytes == model.usage <= LIMIT
        store.close()
