"""Signed yeses as votes of the machine's, the two documents as values, and what is kept: bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from approvals_to_test import ALICE, ASKER, BOB, CONNECT, READ, START_S, refusal, request, subject, taken, vote

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals import kept as kept_files
from supervisor.approvals.chain import make_row, read_step, replay
from supervisor.approvals.kept import KeptFile, TooManyKeptError
from supervisor.approvals.machine import State
from supervisor.approvals.request import Lapsed, Request, Signed, Voted
from supervisor.approvals.statement import Exported, Statement, read_exported, read_statement
from supervisor.approvals.steps import due_step
from supervisor.approvals.store import ApprovalStore

KEYS = ("SHA256:a", "SHA256:b")
TOLD = Grant("custom.sql.read", "db/users", "", metadata=(("limit", 5), ("all", True), ("as", "x")))
FETCH = Grant("network.connect", "https://api.example.com/v1/**", "", methods=("POST", "GET"))


def by_key(
    of: Request, key: str = KEYS[0], identity: str = "alice", uid: int | None = None, until_s: int | None = None
) -> Voted:
    """Return a signed yes to what is there."""
    mark = Signed(key, identity, of.subject.key, "id", START_S + 1000, ASKER)
    return Voted(of.latest_s + 1, uid, "seen", 1, until_s=until_s, signed=mark)


def test_a_key_votes() -> None:
    """With a user's vote it makes two, and is called by its fingerprint."""
    half = taken(request(), by_key(request()))
    assert half.votes[0].who == "key SHA256:a (alice)"
    whole = taken(half, vote(half, ALICE))
    assert whole.state is State.APPROVED
    assert taken(half, by_key(half, KEYS[1], "bob")).state is State.APPROVED


@pytest.mark.parametrize(
    ("key", "identity", "uid"),
    [(KEYS[0], "alice", None), (KEYS[0], "bob", None), (KEYS[1], "alice", None), (KEYS[1], "bob", ALICE)],
)
def test_one_person_by_any_of_three(key: str, identity: str, uid: int | None) -> None:
    """The key, whose it is, and the user are each enough to be the same person; who is none of them is another."""
    half = taken(request(), by_key(request(), uid=ALICE))
    assert "has said yes already" in refusal(half, by_key(half, key, identity, uid))
    assert taken(half, by_key(half, KEYS[1], "bob", BOB)).state is State.APPROVED


def test_a_signer_who_is_a_user_here_is_that_user() -> None:
    """Root and who asked have no vote by a key either; nobody at all has none."""
    one = request()
    assert "asked for it" in refusal(one, by_key(one, uid=ASKER))
    assert "root administers" in refusal(one, by_key(one, uid=0))
    assert "nobody has said it" in refusal(one, Voted(one.latest_s, None, one.review, 1))
    assert taken(request(needs=1), by_key(request(needs=1), uid=ASKER)).state is State.APPROVED


def test_a_signed_yes_is_to_one_thing_in_its_time() -> None:
    """To nothing else, and not once it could only have been brought before."""
    one = request()
    good = by_key(one)
    assert good.signed is not None
    other = replace(good, signed=replace(good.signed, subject="00"))
    assert "signed for something else" in refusal(one, other)
    late = replace(good, signed=replace(good.signed, import_before_s=good.at_s))
    assert "imported is over" in refusal(one, late)
    assert taken(one, good).counting == 1


def test_what_is_limited_by_a_day_ends_then() -> None:
    """Waiting or approved, by the earliest of all that were named."""
    one = request()
    assert "over at once" in refusal(one, by_key(one, until_s=one.latest_s + 1))
    half = taken(one, by_key(one, until_s=START_S + 50))
    assert due_step(half, START_S + 50) == Lapsed(START_S + 50)
    whole = taken(half, vote(half, BOB, lifetime_s=500))
    assert whole.due_s == START_S + 50
    assert due_step(whole, START_S + 49) is None
    sooner = taken(half, vote(half, BOB, lifetime_s=3))
    assert sooner.due_s == (sooner.approved_s or 0) + 3


def test_a_signed_yes_is_read_again_as_it_was_written() -> None:
    """From the row that it is kept as."""
    one = request()
    signed = by_key(one, uid=ALICE, until_s=START_S + 50)
    rows = [make_row(1, "", 1, one.filed, "reporter", one.subject.key)]
    rows.append(make_row(2, rows[0].sum, 1, signed, "reporter", one.subject.key))
    assert read_step(rows[1]) == signed
    assert replay(rows) == taken(one, signed)


def _statement(**more: object) -> Statement:
    about = subject(READ, CONNECT, TOLD, FETCH, instance="acme")
    sets, hosts = (about, (CONNECT, TOLD, FETCH)), ("web-*", "ci")
    own = Statement(*sets, hosts, START_S, START_S + 9, START_S + 5, True, "ä", "ab" * 32, "w", 7, "n")
    return replace(own, **more)


def test_documents_are_read_as_they_were_written() -> None:
    """All of it: methods, what providers are told, times; the sets are the same sets."""
    for statement in (_statement(), _statement(expires_s=None, once=False)):
        found = read_statement(statement.encoded)
        assert found.encoded == statement.encoded
        assert found.subject.key == statement.subject.key
        assert (found.hosts, found.expires_s, found.once) == (statement.hosts, statement.expires_s, statement.once)
    exported = Exported("w", 7, _statement().subject, (READ,), {"a": [1, None, {"b": "\x1b"}]})
    assert read_exported(exported.encoded) == replace(
        exported, subject=read_exported(exported.encoded).subject, granted=read_exported(exported.encoded).granted
    )
    assert exported.encoded.isascii()
    with pytest.raises(ConfigError, match="edited"):
        read_exported(json.dumps(json.loads(exported.encoded)).encode())
    assert b"\x1b" not in exported.encoded


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("airssys", "approval-request"),
        ("hosts", []),
        ("hosts", ["**"]),
        ("hosts", ["a"] * 65),
        ("hosts", "web-1"),
        ("signed_at", "2026-01-01"),
        ("expires_at", ""),
        ("once", 1),
        ("reason", "x" * 501),
        ("granted", []),
        ("asked", []),
        ("asked", [{"action": "filesystem.fly", "resource": "/a", "methods": [], "metadata": []}]),
        ("asked", [{"action": "filesystem.read", "resource": "a", "methods": [], "metadata": []}]),
        ("request", "7"),
        ("component", None),
        ("component", "../x"),
        ("component", "x\x1b[2J"),
        ("instance", "a b"),
        ("package", "ab"),
        ("reviewed", "ab"),
        ("new", 1),
    ],
)
def test_what_no_statement_says_is_refused(key: str, value: object) -> None:
    """Each field."""
    fields = {**json.loads(_statement().encoded), key: value}
    data = (json.dumps(fields, ensure_ascii=True, sort_keys=True, indent=1) + "\n").encode()
    with pytest.raises(ConfigError, match="no such document"):
        read_statement(data)
    with pytest.raises(ConfigError, match="no such document"):
        read_exported(data)


def test_few_are_kept_and_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose time is over make room; one is kept once; each is on record before it is kept."""
    monkeypatch.setattr(kept_files, "KEPT_MAX", 2)
    events: list[AuditEvent] = []
    store = ApprovalStore(str(tmp_path), str(tmp_path / "audit"), events.append, clock_s=lambda: START_S)
    event = AuditEvent("approval_kept")
    with store.open() as ledger:
        kept = ledger.kept
        assert kept.add(KeptFile("a", 1, b"x"), "s", START_S + 5, START_S, event)
        assert not kept.add(KeptFile("a", 1, b"x"), "s", START_S + 5, START_S, event)
        assert kept.add(KeptFile("b", 1, b"y"), "s", START_S + 9, START_S, event)
        with pytest.raises(TooManyKeptError):
            kept.add(KeptFile("c", 1, b"z"), "s", START_S + 9, START_S, event)
        assert kept.add(KeptFile("c", 1, b"z"), "s", START_S + 9, START_S + 5, event)
    with store.open() as ledger:
        assert [each.file for each in ledger.kept.of_subject("s")] == [b"y", b"z"]
        ledger.kept.drop("b")
        assert [each.id for each in ledger.kept.of_subject("s")] == ["c"]
        assert ledger.kept.of_subject("t") == []
    assert len(events) == 3
