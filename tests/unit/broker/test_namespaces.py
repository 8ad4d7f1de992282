"""Where a value lies: a component's own namespace, or one that its host and its grants both share with it."""

from __future__ import annotations

import pytest
from driving import Driver, admission

from ipc.broker.events import Bounds, SharedStorage, Stored, StoreResult
from ipc.broker.messages import (
    CompareAndSet,
    Delete,
    Exists,
    FromWorker,
    Get,
    ListKeys,
    Numbers,
    Refused,
    Set,
    Usage,
    Value,
)

NAMED = {"storage.read": ("**", "@prices:*"), "storage.write": ("own:*", "@prices:eu:*", "@gone:*")}
SHARED = Bounds(storage_bytes=1000, shared_storage=(SharedStorage("prices", 500), SharedStorage("secret", None)))


def keeper(grants: dict[str, tuple[str, ...]] | None = None, bounds: Bounds = SHARED) -> Driver:
    """A component a, with a store that answers when the test says so."""
    driver = Driver()
    driver.ready(admission("a", NAMED if grants is None else grants, bounds))
    driver.store_answers = False
    return driver


@pytest.mark.parametrize(
    ("message", "namespace", "limit"),
    [
        (Get(1, "prices:eu"), "a", 1000),
        (Get(1, "@prices:eu"), "@prices", 500),
        (Exists(1, "@prices:eu"), "@prices", 500),
        (Set(1, "@prices:eu:x", b"v"), "@prices", 500),
        (Delete(1, "@prices:eu:x"), "@prices", 500),
        (Set(1, "own:@prices", b"v"), "a", 1000),
        (ListKeys(1, "@prices:"), "@prices", 500),
        (ListKeys(1, "@prices:e"), "@prices", 500),
        (ListKeys(1, "@prices"), "a", 1000),
        (ListKeys(1, ""), "a", 1000),
        (Usage(1), "a", 1000),
    ],
)
def test_the_first_part_of_a_key_says_where(message: FromWorker, namespace: str, limit: int) -> None:
    """Behind an @ it names a shared one, with the limit of that; everything else is its own."""
    driver = keeper()
    assert driver.say("a-1", message) == []
    (order,) = driver.stores
    assert (order.namespace, order.limit_bytes) == (namespace, limit)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Get(1, "@secret:x"), "A1814"),  # shared by the host, and no grant names it: ** does not
        (Get(1, "@secret"), "A1814"),
        (Get(1, "@other:x"), "A1814"),
        (Get(1, "@:x"), "A1814"),
        (Set(1, "@gone:x", b""), "A1814"),  # named by a grant, and not shared by the host
        (ListKeys(1, "@secret:"), "A1814"),
        (ListKeys(1, "@gone:"), "A1814"),
        (Set(1, "@prices:us:x", b""), "A1203"),  # shared, and its grants say which keys
        (CompareAndSet(1, "@prices:us:x", None, b""), "A1203"),
    ],
)
def test_it_takes_the_host_and_a_grant_that_names_it(message: FromWorker, code: str) -> None:
    """Either alone is refused, on record, and never reaches the store."""
    driver = keeper()
    (refused,) = driver.say("a-1", message)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == ("not-permitted", code)
    assert driver.stores == []
    assert [each.code for each in driver.events("denied")] == [code]


def test_what_lies_in_a_shared_one_is_nobodys_own_usage() -> None:
    """It counts against its own limit, and a refusal names it; the component's level stays what it was."""
    driver = keeper()
    driver.say("a-1", Set(1, "@prices:eu:x", b"v"), Get(2, "@prices:eu"))
    full, read = driver.stores
    driver.handle(Stored(full.ticket, StoreResult(usage_bytes=499, over_limit=True)))
    driver.handle(Stored(read.ticket, StoreResult(value=b"v", usage_bytes=499)))
    refused, value = driver.take("a-1")
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code, refused.usage, refused.limit) == ("over-quota", "A1501", 499, 500)
    assert refused.reason.startswith("no room is left in the shared storage @prices: 499 B of 500 B")
    assert value == Value(2, b"v")
    assert driver.events("quota_crossed") == []
    driver.say("a-1", Usage(3))
    driver.handle(Stored(driver.stores[-1].ticket, StoreResult(usage_bytes=7, count=1)))
    assert driver.take("a-1") == [Numbers(3, (7, 1000, 1))]
