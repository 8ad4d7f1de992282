"""Storage, who is there, custom capabilities, and what people send: decided, ordered, answered."""

from __future__ import annotations

import pytest
from driving import Driver, admission

from ipc.audit.folding import REPEATED_SUFFIX
from ipc.broker.events import (
    Admission,
    Bounds,
    OperatorAnswered,
    OperatorCalled,
    OperatorGone,
    Provided,
    Recorded,
    Stored,
    StoreResult,
)
from ipc.broker.mailbox import SMALL_WINDOW
from ipc.broker.messages import (
    MAX_DESCRIPTION_BYTES,
    Accepted,
    Answer,
    CompareAndSet,
    Delete,
    Deliver,
    Describe,
    Exists,
    FromWorker,
    Get,
    GetMetadata,
    Handled,
    Health,
    Invoke,
    ListComponents,
    ListKeys,
    Names,
    Numbers,
    Refused,
    Send,
    Set,
    ToWorker,
    Usage,
    Value,
)
from ipc.broker.services import STORING_MAX
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument, compile_policy
from ipc.policy.quotas import NEVER_MS

KEYS = {"storage.read": ("r:*", "rw:*"), "storage.write": ("w:*", "rw:*")}


def keeper(grants: dict[str, tuple[str, ...]] | None = None, bounds: Bounds | None = None) -> Driver:
    """A component a, and a store that answers when the test says so."""
    driver = Driver()
    driver.ready(admission("a", grants, bounds))
    driver.store_answers = False
    return driver


@pytest.mark.parametrize(
    ("message", "result", "answer"),
    [
        (Get(1, "k"), StoreResult(value=b"v"), Value(1, b"v")),
        (Get(1, "k"), StoreResult(), Value(1, None)),
        (Set(1, "k", b"v"), StoreResult(usage_bytes=66), Accepted(1)),
        (Delete(1, "k"), StoreResult(count=1), Accepted(1, 1)),
        (Exists(1, "k"), StoreResult(count=1), Accepted(1, 1)),
        (ListKeys(1, ""), StoreResult(keys=("a", "b")), Names(1, ("a", "b"))),
        (Usage(1), StoreResult(usage_bytes=5, count=2), Numbers(1, (5, 1000, 2))),
        (CompareAndSet(1, "k", None, b"v"), StoreResult(count=1), Accepted(1, 1)),
    ],
)
def test_each_call_is_ordered_and_answered(message: FromWorker, result: StoreResult, answer: ToWorker) -> None:
    """The order names namespace and limit; the answer comes when the store is done, not before."""
    driver = keeper(bounds=Bounds(storage_bytes=1000))
    assert driver.say("a-1", message) == []
    (order,) = driver.stores
    assert (order.namespace, order.call, order.limit_bytes) == ("a", message, 1000)
    driver.handle(Stored(order.ticket, result))
    assert driver.take("a-1") == [answer]


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        (Get(1, "w:x"), "not-permitted", "A1203"),
        (Exists(1, "x"), "not-permitted", "A1203"),
        (Set(1, "r:x", b""), "not-permitted", "A1203"),
        (Delete(1, "r:x"), "not-permitted", "A1203"),
        (CompareAndSet(1, "w:x", None, b""), "not-permitted", "A1203"),
        (CompareAndSet(1, "r:x", None, b""), "not-permitted", "A1203"),
        (Get(1, ""), "invalid", "A1808"),
        (Get(1, "r::x"), "invalid", "A1808"),
        (Get(1, "r:\nx"), "invalid", "A1808"),
        (Set(1, "rw:" + "é" * 511, b""), "invalid", "A1808"),
        (ListKeys(1, "a\x00"), "invalid", "A1808"),
        (ListKeys(1, "", "\x1b"), "invalid", "A1808"),
        (ListKeys(1, "", "", 0), "invalid", "A1808"),
        (Set(1, "rw:x", b"x" * 101), "too-large", "A1803"),
        (CompareAndSet(1, "rw:x", None, b"x" * 101), "too-large", "A1803"),
    ],
)
def test_what_is_refused_never_reaches_the_store(message: FromWorker, kind: str, code: str) -> None:
    """Grants of each key, the form of keys, the bound of values."""
    driver = keeper(KEYS, Bounds(max_payload_bytes=100))
    (refused,) = driver.say("a-1", message)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == (kind, code)
    assert driver.stores == []
    assert [each.code for each in driver.events("denied")] == [code]


def test_a_listing_is_bounded_and_carries_the_rights() -> None:
    """The store leaves out what may not be read; it is asked for no more than an answer holds."""
    driver = keeper(KEYS)
    driver.say("a-1", ListKeys(1, "r:", "r:a", 10**6))
    (order,) = driver.stores
    assert order.call == ListKeys(1, "r:", "r:a", 1000)
    assert order.rights is driver.core._board.by_name["a"].rights


def test_full_storage_and_a_failing_disk_are_errors_on_record() -> None:
    """The quota's numbers, or that the store can't; never a wrong answer."""
    driver = keeper(bounds=Bounds(storage_bytes=1000))
    driver.say("a-1", Set(1, "k", b""), Set(2, "l", b""))
    full, broken = driver.stores
    driver.handle(Stored(full.ticket, StoreResult(usage_bytes=990, over_limit=True)))
    driver.handle(Stored(broken.ticket, StoreResult(failure="disk I/O error")))
    over, failed = driver.take("a-1")
    assert isinstance(over, Refused)
    assert isinstance(failed, Refused)
    assert (over.kind, over.code, over.usage, over.limit) == ("over-quota", "A1501", 990, 1000)
    assert over.retry_after_ms == NEVER_MS
    assert (failed.kind, failed.code, failed.reason) == ("unavailable", "A1807", "disk I/O error")
    assert [each.code for each in driver.events("denied")] == ["A1501", "A1807"]
    assert [each.reason.split(":")[0] for each in driver.events("quota_crossed")] == ["storage is critical"]


def test_usage_is_asked_of_the_store_at_admission() -> None:
    """What a component keeps is counted from what is there; until the store has answered nothing is claimed."""
    driver = Driver()
    driver.store_answers = False
    driver.admit(admission("a"))
    (order,) = driver.stores
    driver.handle(Stored(order.ticket, StoreResult(usage_bytes=90_000_000)))
    states = {state.quota: (state.usage, state.limit) for state in driver.core.quota_states(driver.now_ns)}
    assert states == {"storage": (90_000_000, 100_000_000), "message_rate": (0, 1000)}
    assert len(driver.events("quota_crossed")) == 1


def test_an_answer_of_the_store_for_another_connection_is_dropped() -> None:
    """A worker that comes back is not answered what it asked before: its numbers are used again."""
    driver = keeper()
    driver.say("a-1", Get(1, "k"))
    driver.lose("a-1")
    driver.connect("a-1", since=77)
    driver.take("a-1")
    driver.handle(Stored(driver.stores[0].ticket, StoreResult(value=b"old")))
    assert driver.take("a-1") == []
    driver.dismiss("a-1")
    driver.handle(Stored(driver.stores[0].ticket, StoreResult()))


def test_storage_calls_under_way_are_bounded() -> None:
    """More than any working worker has are refused until the store has done some."""
    driver = keeper()
    answers = driver.say("a-1", *(Get(n, "k") for n in range(300)))
    assert len(driver.stores) == STORING_MAX
    assert {each.kind for each in answers if isinstance(each, Refused)} == {"unavailable"}
    driver.handle(Stored(driver.stores[0].ticket, StoreResult()))
    driver.say("a-1", Get(1, "k"))
    assert len(driver.stores) == STORING_MAX + 1


def test_who_is_there_is_who_may_be_sent_to() -> None:
    """Both lists and descriptions show only those that both sides' grants allow."""
    driver = Driver()
    driver.ready(
        admission("a", {"messaging.send": ("b", "c", "gone")}),
        admission("b"),
        admission("c", {"messaging.receive": ("b",)}),
        admission("d"),
    )
    driver.say("b-1", Health("degraded"))
    assert driver.say("a-1", ListComponents(1)) == [Names(1, ("b",))]
    assert driver.say("a-1", GetMetadata(2, "b")) == [Names(2, ("b", "1.2.3", "test", "degraded"))]
    driver.say("b-1", Describe("Bee", "9", "its own words"))
    driver.lose("b-1")
    assert driver.say("a-1", GetMetadata(2, "b")) == [Names(2, ("Bee", "9", "its own words", "degraded"))]
    refused = driver.say("a-1", GetMetadata(3, "c"), GetMetadata(4, "d"), GetMetadata(5, "gone"))
    assert [each.kind for each in refused if isinstance(each, Refused)] == [
        "not-permitted",
        "not-permitted",
        "unknown-target",
    ]


def test_a_change_of_health_is_on_record_once() -> None:
    """Not that it is well from the start, nor what it says again; what goes to and fro is counted."""
    driver = keeper()
    for health in ("healthy", "healthy", "degraded", "degraded", "unhealthy", "degraded", "unhealthy", "healthy"):
        driver.say("a-1", Health(health))
    told = [(dict(each.detail), each.count) for each in driver.events("health_changed")]
    assert told == [
        ({"health": "degraded", "before": "healthy"}, 1),
        ({"health": "unhealthy", "before": "degraded"}, 1),
        ({"health": "healthy", "before": "unhealthy"}, 1),
    ]
    driver.pass_time(11 * 10**9)
    assert [each.count for each in driver.events("health_changed" + REPEATED_SUFFIX)] == [1, 1]


def test_a_description_is_bounded() -> None:
    """It is kept while its component lives: a worker that sends more than there is room for isn't one of ours."""
    driver = Driver()
    driver.ready(admission("a"))
    driver.say("a-1", Describe("a", "1", "é" * (MAX_DESCRIPTION_BYTES // 2)))
    assert driver.ended == []
    driver.say("a-1", Describe("a", "1", "é" * (MAX_DESCRIPTION_BYTES // 2) + "!"))
    assert [end.code for end in driver.ended] == ["A1806"]


def test_a_custom_capability_is_called_where_its_action_is_granted() -> None:
    """The provider gets instance, capability, action and payload; its bytes or its failure are the answer."""
    driver = keeper({"custom.sql.query": ("**",)})
    driver.say("a-1", Invoke(1, "sql", "query", b"select"), Invoke(2, "sql", "query", b"drop"))
    first, second = driver.provides
    assert (first.component, first.instance, first.capability) == ("a", "a-1", "sql")
    assert (first.action, first.payload, first.answer_bytes) == ("query", b"select", Bounds().max_payload_bytes)
    driver.handle(Provided(first.ticket, b"rows"))
    driver.handle(Provided(second.ticket, None, "unavailable", "the provider ended"))
    value, refused = driver.take("a-1")
    assert value == Value(1, b"rows")
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.reason) == ("unavailable", "the provider ended")
    refusals = driver.say("a-1", Invoke(3, "sql", "write", b""), Invoke(4, "Sql!", "query", b""))
    assert [each.kind for each in refusals if isinstance(each, Refused)] == ["not-permitted", "invalid"]
    assert len(driver.provides) == 2
    assert {each.action for each in driver.events("capability_used")} == {"custom.sql.query"}


def test_providers_calls_are_bounded_and_answered_to_who_asked() -> None:
    """So many at a time, a payload within the bound, and nothing for a connection that there isn't any more."""
    driver = keeper({"custom.sql.query": ("**",)}, Bounds(max_payload_bytes=10))
    (refused,) = driver.say("a-1", Invoke(1, "sql", "query", bytes(11)))
    assert isinstance(refused, Refused)
    assert refused.kind == "too-large"
    answers = driver.say("a-1", *(Invoke(n, "sql", "query", b"") for n in range(70)))
    assert [each.kind for each in answers if isinstance(each, Refused)] == ["unavailable"] * 6
    driver.lose("a-1")
    driver.connect("a-1", since=77)
    driver.take("a-1")
    for order in driver.provides:
        driver.handle(Provided(order.ticket, b"late"))
        driver.handle(Provided(order.ticket, b"twice"))
    assert driver.take("a-1") == []


def test_a_provider_is_told_what_stands_beside_the_grant() -> None:
    """The metadata are those of the grant that allows the action, not of another one of the same capability."""
    grants = (
        Grant("custom.sql.query", "**", "test", metadata=(("region", "eu"), ("rows", 5))),
        Grant("custom.sql.write", "**", "test"),
    )
    rights = compile_policy(PolicyDocument("a", "", grants=grants))
    driver = Driver()
    driver.ready(Admission("a-1", "a", "key of a-1", rights, Bounds()))
    driver.say("a-1", Invoke(1, "sql", "query", b""), Invoke(2, "sql", "write", b""))
    assert [order.metadata for order in driver.provides] == [(("region", "eu"), ("rows", 5)), ()]


@pytest.mark.parametrize(
    ("kind", "code", "on_record"),
    [
        ("failed", "", False),
        ("invalid", "", False),
        ("not-permitted", "A1812", True),
        ("timed-out", "A1811", True),
        ("unavailable", "A1807", True),
        ("too-large", "A1803", True),
    ],
)
def test_each_end_of_a_providers_call_is_an_error_of_its_kind(kind: str, code: str, on_record: bool) -> None:
    """What was refused or could not be done is on record with its code; a provider's words about a request are not."""
    driver = keeper({"custom.sql.query": ("**",)})
    driver.say("a-1", Invoke(1, "sql", "query", b""))
    driver.handle(Provided(driver.provides[0].ticket, None, kind, "why", 7))
    (refused,) = driver.take("a-1", Refused)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == (kind, code)
    assert [(each.code, each.action, each.resource) for each in driver.events("denied")] == (
        [(code, "custom.sql.query", "sql")] if on_record else []
    )


def test_nothing_is_asked_of_a_provider_before_it_is_on_record() -> None:
    """The first use waits for its record; where that can't be, the provider hears nothing."""
    driver = keeper({"custom.sql.query": ("**",)})
    driver.log_answers = False
    driver.say("a-1", Invoke(1, "sql", "query", b""))
    assert driver.provides == []
    driver.record_all("disk full")
    (refused,) = driver.take("a-1", Refused)
    assert isinstance(refused, Refused)
    assert (refused.code, driver.provides) == ("A3004", [])
    driver.say("a-1", Invoke(2, "sql", "query", b""))
    driver.record_all()
    assert [order.action for order in driver.provides] == ["query"]


def test_an_answer_larger_than_the_component_takes_is_an_error() -> None:
    """A component's own limit holds for answers, too."""
    driver = keeper({"custom.sql.query": ("**",)}, Bounds(max_payload_bytes=10))
    driver.say("a-1", Invoke(1, "sql", "query", b""))
    driver.handle(Provided(driver.provides[0].ticket, bytes(11)))
    (refused,) = driver.take("a-1", Refused)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.limit) == ("too-large", 10)


def called(driver: Driver, call: int = 1, to: str = "a", payload: bytes = b"?", wants_answer: bool = True) -> None:
    """A person sends something."""
    driver.handle(OperatorCalled(call, to, payload, 1000, wants_answer, "uid 1000 (alice)"))


def test_a_persons_call_is_on_record_and_answered() -> None:
    """By name, before it is delivered; the component sees who can't be a component."""
    driver = keeper({})
    driver.log_answers = False
    called(driver)
    (record,) = driver.events("operator_call")
    assert (record.instance, record.resource, record.actor) == ("a-1", "a", "uid 1000 (alice)")
    assert driver.take("a-1") == []
    driver.handle(Recorded(record.ticket))
    (delivery,) = driver.take("a-1")
    assert isinstance(delivery, Deliver)
    assert (delivery.sender, delivery.wants_answer) == ("@operator", True)
    driver.say("a-1", Answer(delivery.delivery, b"!"))
    assert driver.operator_answers == [OperatorAnswered(1, b"!")]


def test_a_persons_message_without_an_answer_ends_in_the_mailbox() -> None:
    """It is done when it was accepted."""
    driver = keeper({})
    called(driver, wants_answer=False)
    assert driver.operator_answers == [OperatorAnswered(1, None)]
    (delivery,) = driver.take("a-1", Deliver)
    driver.say("a-1", Handled(delivery.delivery))
    assert driver.ended == []


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("unknown", "unknown-target"),
        ("too large", "too-large"),
        ("far too large", "too-large"),
        ("full", "mailbox-full"),
        ("full, without an answer", "mailbox-full"),
        ("log", "unavailable"),
        ("time", "timed-out"),
        ("gone", "target-gone"),
        ("failed", "failed"),
        ("twice", "invalid"),
    ],
)
def test_every_end_of_a_persons_call(case: str, kind: str) -> None:
    """Each is told once."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(mailbox_messages=0)), admission("b"))
    if case.startswith("full"):
        driver.say("b-1", *(Send(n, "a", b"") for n in range(SMALL_WINDOW)))
    driver.log_works = case != "log"
    called(
        driver,
        to="nobody" if case == "unknown" else "a",
        payload=bytes({"too large": 1_000_001, "far too large": 3 * 1024 * 1024 + 1}.get(case, 0)),
        wants_answer=case != "full, without an answer",
    )
    match case:
        case "time":
            driver.pass_time(10**9)
        case "gone":
            driver.dismiss("a-1")
        case "failed":
            driver.say("a-1", Answer(driver.take("a-1", Deliver)[0].delivery, None, "no"))
        case "twice":
            called(driver)
    assert [answer.kind for answer in driver.operator_answers] == [kind]
    driver.pass_time(10**10) if case != "twice" else None
    assert len(driver.operator_answers) == 1


@pytest.mark.parametrize("recorded", [False, True])
def test_a_person_who_has_gone_is_not_answered(recorded: bool) -> None:
    """Before it was on record nothing is delivered; after, the answer is dropped."""
    driver = keeper({})
    driver.log_answers = recorded
    called(driver)
    driver.handle(OperatorGone(1))
    driver.record_all()
    delivered = driver.take("a-1", Deliver)
    assert len(delivered) == recorded
    for each in delivered:
        driver.say("a-1", Answer(each.delivery, b""))
    driver.pass_time(10**10)
    assert driver.operator_answers == []


def test_calls_of_people_are_bounded() -> None:
    """A thousand at a time."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(mailbox_messages=2_000)))
    for n in range(1_001):
        called(driver, call=n)
    assert [answer.kind for answer in driver.operator_answers] == ["unavailable"]
