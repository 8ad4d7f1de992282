"""Getting approved by a signature what its signer hasn't approved here: each attack with its honest twin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from approvals_to_test import ALICE, ASKER, BOB, CONNECT, READ, START_S, facts, filed, hold, subject
from signed import Signer as Key
from signed import ed25519_signer, sshsig

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals import ledger as ledgers
from supervisor.approvals.asking import Approved, Question, decide_by_approval
from supervisor.approvals.errors import AwaitingApprovalError
from supervisor.approvals.request import Filed
from supervisor.approvals.rules import Needed
from supervisor.approvals.service import ApprovalService, Document, RefusedError
from supervisor.approvals.signed import NAMESPACE
from supervisor.approvals.statement import Statement, exported_of
from supervisor.approvals.store import ApprovalStore
from supervisor.approvals.subject import Subject
from supervisor.audit.log import AuditLog
from supervisor.cli.approvals_offhost import import_lines
from supervisor.cli.approvals_offhost_view import exported_lines, statement_lines
from supervisor.cli.approvals_view import list_lines
from supervisor.cli.review_view import review_lines
from supervisor.config.approval_settings import ApprovalRule, Signer
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories
from supervisor.control.messages import DecideApproval
from supervisor.control.roles import Peer, Roles
from supervisor.manifest import Variables
from supervisor.signing.keys import read_public_key

pytestmark = pytest.mark.any_user

ALICES, BOBS, MALLORYS = (ed25519_signer() for _ in range(3))
DAY_S = 86_400
RULES = (ApprovalRule(("network.*",), 2, source="airssys.toml:3"),)


def signer(key: Key, identity: str, index: int = 0, **more: object) -> Signer:
    """Return an entry of `[[approvals.signers]]`."""
    return replace(Signer(index, read_public_key(key.line), identity), **more)


class Host:
    """A host on which the reporter takes two people, who may sign elsewhere; its clock is set."""

    def __init__(self, directory: Path, name: str = "web-1", *signers: Signer) -> None:
        """Make its store, and nothing else."""
        self.now_s = START_S
        self.events: list[AuditEvent] = []
        self.log = AuditLog(str(directory / name / "audit"))
        self.own = Variables(f"/var/lib/{name}/packages/reporter", "/d", "/t")
        own = signers or (signer(ALICES, "alice@example.com"), signer(BOBS, "bob@example.com", 1))
        self.settings = Settings(
            default_directories({}, 1000), approval_rules=RULES, approval_signers=own, host_name=name
        )
        self.store = ApprovalStore(
            str(directory / name), self.log.directory, self._record, clock_s=lambda: self.now_s, wait_s=0.0
        )
        roles = Roles(ASKER, {}, {}, frozenset({ASKER, ALICE, BOB}))
        self.service = ApprovalService(self.store, self.settings, roles)

    def _record(self, event: AuditEvent) -> None:
        self.log.append([(event.within_bounds(), SUPERVISOR)])
        self.events.append(event)

    def with_signers(self, *signers: Signer) -> None:
        """Write the settings anew."""
        settings = replace(self.settings, approval_signers=signers)
        self.service = ApprovalService(self.store, settings, Roles(ASKER, {}, {}, frozenset({ASKER, ALICE, BOB})))
        self.settings = settings

    def start(self, about: Subject | None = None, needs: int = 2) -> Approved:
        """Start it, as far as approvals go."""
        question = Question(about or subject(), Needed(needs), facts())
        return decide_by_approval(self.store, question, self.settings, "", ASKER, self.own, hold)

    def asked(self, about: Subject | None = None, needs: int = 2) -> int:
        """Have it asked for; the number of the request."""
        with pytest.raises(AwaitingApprovalError) as waits:
            self.start(about, needs)
        return waits.value.request.number

    def file(self, how: Filed) -> int:
        """Have something asked for in another way."""
        with self.store.open() as ledger:
            return ledger.file(how).number

    def statement(self, number: int, hosts: tuple[str, ...] = ("web-*",), **more: object) -> Statement:
        """Return what a reviewer signs who has seen it."""
        seen = exported_of(self.service.shown(number))
        nonce = f"{len(self.events):032x}"
        own = Statement(
            subject=seen.subject,
            granted=seen.granted,
            hosts=hosts,
            signed_s=self.now_s,
            import_before_s=self.now_s + 30 * DAY_S,
            expires_s=None,
            once=False,
            reason="",
            reviewed=seen.digest,
            host=seen.host,
            number=seen.number,
            nonce=nonce,
        )
        return replace(own, **more)

    def brings(self, file: bytes, uid: int = ASKER) -> Document:
        """Have somebody import a file."""
        return self.service.decide(Peer(1, uid, frozenset()), DecideApproval("import", 0), file)

    def says(self, uid: int, number: int) -> Document:
        """Have somebody say yes here."""
        seen = str(self.service.shown(number)["review"])
        return self.service.decide(Peer(1, uid, frozenset()), DecideApproval("approve", number, seen=seen))

    def refuses(self, file: bytes, words: str) -> None:
        """Have somebody import a file that isn't taken; nothing becomes of it but a record."""
        before = len(self.events)
        with pytest.raises(ConfigError, match=words) as refused:
            self.brings(file)
        assert "\n" not in refused.value.message
        assert {event.event for event in self.events[before:]} <= {"approval_refused", "approval_refused_repeated"}


def signed(statement: Statement, key: Key = ALICES, namespace: str = NAMESPACE) -> bytes:
    """Return a file as `sign` writes it."""
    return statement.encoded + sshsig(key, statement.encoded, namespace)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose log is closed afterwards."""
    found = Host(tmp_path)
    yield found
    found.log.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Host]:
    """Another host of the same settings."""
    found = Host(tmp_path, "db-1")
    yield found
    found.log.close()


def test_two_signatures_approve(host: Host) -> None:
    """What is signed by two people starts, and the record says by whom: what the other tests take away from."""
    number = host.asked()
    one = host.brings(signed(host.statement(number)))
    assert (one["state"], one["votes"]) == ("pending", 1)
    assert host.brings(signed(host.statement(number, reason="read it"), BOBS))["state"] == "approved"
    assert [grant.action for grant in host.start().grants] == ["filesystem.read", "network.connect"]
    granted = host.events[-1]
    assert granted.event == "approval_granted"
    assert granted.actor == f"key {read_public_key(BOBS.line).fingerprint} (bob@example.com)"
    assert (granted.reason, granted.detail["brought_by"]) == ("read it", f"uid {ASKER}")


def test_its_own_directory_is_that_of_the_host_that_starts_it(host: Host, other: Host) -> None:
    """A yes to `${component}` gives each host its own package, and nowhere the directory that it had elsewhere.

    One to that directory by its path is a yes to another set.
    """
    own, path = Grant("filesystem.read", "${component}/**", "x"), f"{host.own.component}/**"
    number = host.asked(subject(own), needs=1)
    review = signed(host.statement(number, hosts=("*",)))
    host.brings(review)
    other.brings(review)
    for each in (host, other):
        assert [grant.pattern_text for grant in each.start(subject(own), needs=1).grants] == [
            f"{each.own.component}/**"
        ]
    by_path = subject(Grant("filesystem.read", path, "x"))
    host.brings(signed(host.statement(host.asked(by_path, needs=1))))
    assert [grant.pattern_text for grant in host.start(by_path, needs=1).grants] == [path]
    other.asked(by_path, needs=1)


def test_a_signature_for_something_else_is_none(host: Host) -> None:
    """Made for a package, for a file, or for a namespace that begins alike."""
    statement = host.statement(host.asked())
    for namespace in ("airssys-package", "file", "airssys-approval2", ""):
        host.refuses(signed(statement, namespace=namespace), "signature doesn't hold")
    assert host.brings(signed(statement))["votes"] == 1


def test_a_signature_over_another_statement_is_none(host: Host) -> None:
    """However alike; nor one of an edited statement, of each field of it."""
    number = host.asked()
    statement = host.statement(number)
    block = sshsig(ALICES, statement.encoded, NAMESPACE)
    edits: list[dict[str, object]] = [
        {"hosts": ("*",)},
        {"once": True},
        {"reason": "other"},
        {"import_before_s": START_S + 99 * DAY_S},
        {"expires_s": START_S + DAY_S},
        {"nonce": "0" * 32},
        {"granted": (READ,)},
        {"subject": subject(package="cd" * 32)},
    ]
    for edit in edits:
        host.refuses(replace(statement, **edit).encoded + block, "signature doesn't hold")
    assert host.brings(statement.encoded + block)["votes"] == 1


def test_a_file_in_another_form_is_none(host: Host) -> None:
    """The same JSON otherwise written, with a key twice or one more, cut, doubled, with two signatures."""
    statement = host.statement(host.asked())
    text, block = statement.encoded, sshsig(ALICES, statement.encoded, NAMESPACE)
    compact = json.dumps(json.loads(text), sort_keys=True).encode() + b"\n"
    twice = text.replace(b'{\n "airssys"', b'{\n "once": true,\n "airssys"')
    more = text.replace(b'{\n "airssys"', b'{\n "a": 1,\n "airssys"')
    for damaged in (compact, twice, more, b" " + text, text + b"\n", text[:-9], b"[" * 5000, b"\xff\n", b"{}\n"):
        host.refuses(damaged + sshsig(ALICES, damaged, NAMESPACE), "no such document|no signature in it")
    host.refuses(text, "no signature")
    host.refuses(text + block + sshsig(BOBS, text, NAMESPACE), "more than one signature")
    host.refuses(text + block[:-40] + b"\n", "can't be read")
    host.refuses(text + block + b" " * 300_000, "more than")
    assert host.brings(text + block)["votes"] == 1


def test_it_counts_on_no_other_host(host: Host, other: Host) -> None:
    """By a pattern that covers another's name, or by none; on its own it does."""
    number, elsewhere = host.asked(), other.asked()
    assert number == elsewhere
    for hosts in (("web-*",), ("db-2", "db-1.example.com", "*-2"), ("db",)):
        other.refuses(signed(host.statement(number, hosts)), "this host is called db-1")
    assert host.brings(signed(host.statement(number)))["votes"] == 1
    assert other.brings(signed(host.statement(number, ("web-*", "db-*"))))["votes"] == 1


def test_it_counts_in_its_time_only(host: Host) -> None:
    """Not once it could only be imported before, nor once it has expired; an approval ends with the yes to it."""
    number = host.asked(needs=1)
    late = signed(host.statement(number, import_before_s=START_S + 10))
    over = signed(host.statement(number, expires_s=START_S + 10))
    good = signed(host.statement(number, expires_s=START_S + 20))
    host.refuses(signed(host.statement(number, signed_s=START_S + 3_601)), "in the time to come")
    host.now_s = START_S + 10
    host.refuses(late, "time in which it could be imported is over")
    host.refuses(over, "it has expired")
    assert host.brings(good)["votes"] == 1
    host.now_s = START_S + 20
    assert host.service.shown(number)["state"] == "expired"
    assert host.asked() == number + 1


def test_a_key_that_counts_for_nothing(host: Host) -> None:
    """Nobody's, revoked, expired, not yet valid; a day later the last is."""
    number = host.asked()
    host.refuses(signed(host.statement(number), MALLORYS), "nobody here has the key SHA256:")
    one = signed(host.statement(number))
    host.with_signers(signer(ALICES, "alice", revoked=True))
    host.refuses(one, "the key is revoked")
    host.with_signers(signer(ALICES, "alice", valid_before_s=START_S))
    host.refuses(one, "the key has expired")
    host.with_signers(signer(ALICES, "alice", valid_after_s=START_S + DAY_S))
    host.refuses(one, "the key isn't valid yet")
    host.now_s += DAY_S
    assert host.brings(one)["votes"] == 1


def test_a_person_has_one_vote_both_ways(host: Host) -> None:
    """As a user and by a key, in either order, by two keys, and as who asked; somebody else's vote makes two."""
    spare = ed25519_signer()
    host.with_signers(
        signer(ALICES, "alice", uid=ALICE),
        signer(spare, "alice", 1),
        signer(BOBS, "bob", 2, uid=BOB),
        signer(MALLORYS, "asker", 3, uid=ASKER),
    )
    number = host.asked()
    host.says(ALICE, number)
    host.refuses(signed(host.statement(number)), "has said yes already")
    host.refuses(signed(host.statement(number), spare), "has said yes already")
    host.refuses(signed(host.statement(number), MALLORYS), "asked for it")
    assert host.brings(signed(host.statement(number), BOBS))["state"] == "approved"
    another = host.asked(subject(component="other"))
    host.brings(signed(host.statement(another), spare))
    with pytest.raises(RefusedError, match="has said yes already"):
        host.says(ALICE, another)
    host.refuses(signed(host.statement(another)), "has said yes already")
    assert host.says(BOB, another)["state"] == "approved"


def test_a_signed_yes_is_one_yes(host: Host) -> None:
    """Not again for the same request, nor for the next one: not after it was used, nor after it was revoked."""
    number = host.asked(needs=1)
    once = signed(host.statement(number, once=True))
    host.brings(once)
    host.brings(signed(host.statement(number), BOBS))
    host.start(needs=1)
    again = host.asked(needs=1)
    assert again == number + 1
    host.refuses(once, f"counted here already, for request {number}")
    fresh = signed(host.statement(again))
    other = signed(host.statement(again, reason="another"), BOBS)
    host.brings(fresh)
    host.says(BOB, again)
    host.service.decide(Peer(1, ALICE, frozenset()), DecideApproval("revoke", again))
    host.refuses(fresh, "counted here already")
    anew = host.service.decide(Peer(1, ASKER, frozenset()), DecideApproval("request", again))
    host.refuses(fresh, "counted here already")
    host.refuses(other, "signed before the same was rejected or revoked here")
    host.now_s += 1
    assert host.brings(signed(host.statement(int(str(anew["request"])))))["votes"] == 1


def test_room_is_not_made_by_forgetting_what_has_counted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it could be brought again; afterwards it goes like the others."""
    monkeypatch.setattr(ledgers, "REQUESTS_MAX", 3)
    monkeypatch.setattr(ledgers, "CLOSED_KEPT", 0)
    number = host.asked(needs=1)
    one = signed(host.statement(number, expires_s=START_S + 10))
    host.brings(one)
    host.now_s += 10
    for index in range(6):
        host.now_s += 8 * DAY_S if index == 5 else 1
        host.file(filed(subject(component="other", package=f"{index:064x}"), at_s=host.now_s))
        kept = {each["request"] for each in host.service.listed(closed=True)["requests"]}  # type: ignore[attr-defined]
        assert number in kept
    host.now_s += 40 * DAY_S
    host.service.listed(closed=False)
    for index in range(3):
        host.file(filed(subject(component="last", package=f"{index:064x}"), at_s=host.now_s))
    assert number not in {each["request"] for each in host.service.listed(closed=True)["requests"]}  # type: ignore[attr-defined]


def test_nothing_wider_than_what_is_asked_is_granted(host: Host) -> None:
    """Not a set that nobody asked, nor one that others have narrowed since; what is left is in what was signed."""
    wide = Grant("filesystem.write", "/**", "")
    number = host.asked()
    statement = host.statement(number)
    for granted in ((*statement.granted, wide), (wide,), ()):
        host.refuses(signed(replace(statement, granted=granted)), "grants what isn't asked, or nothing")
    lied = replace(statement, subject=replace(statement.subject, asked=(READ, CONNECT, wide)), granted=(wide,))
    host.refuses(signed(lied), "request 1 is for the same package, and isn't what was signed")
    host.brings(signed(replace(statement, granted=(READ,))))
    assert host.brings(signed(host.statement(number), BOBS))["state"] == "approved"
    assert [grant.action for grant in host.start().grants] == ["filesystem.read"]


def test_a_number_of_another_host_is_nothing(host: Host, other: Host) -> None:
    """Request 1 there is something else: it isn't approved by the yes to request 1 here, and that is kept."""
    assert host.asked() == other.asked(subject(component="other")) == 1
    kept = other.brings(signed(host.statement(1, ("*",))))
    assert "kept" in kept
    assert other.service.shown(1)["votes"] == 0
    assert other.asked() == 2
    assert other.service.shown(2)["votes"] == 1


def test_other_parameters_are_another_set(host: Host, other: Host) -> None:
    """The same package that may read elsewhere is not what was signed, and isn't kept."""
    number = host.asked()
    about = subject(replace(READ, pattern_text="/home/**"), CONNECT)
    other.asked(about)
    other.refuses(signed(host.statement(number, ("*",))), "other parameters make another set")
    assert other.brings(signed(other.statement(1, ("db-1",)), BOBS))["votes"] == 1


def test_what_is_kept_is_looked_at_again(host: Host, other: Host) -> None:
    """A key that was revoked meanwhile counts for nothing, and that is on record; one that holds does."""
    number = host.asked()
    for key in (ALICES, BOBS):
        assert other.brings(signed(host.statement(number, ("*",)), key))["is_new"]
    assert not other.brings(signed(host.statement(number, ("*",)), ALICES)).get("votes")
    other.with_signers(signer(ALICES, "alice", revoked=True), signer(BOBS, "bob", 1))
    asked = other.asked()
    assert other.service.shown(asked)["votes"] == 1
    dropped = [event for event in other.events if event.event == "approval_unkept"]
    assert dropped
    assert all("revoked" in event.reason for event in dropped)


def test_what_is_kept_starts_a_fleet(host: Host, other: Host) -> None:
    """Two yeses that were there before anybody asked: the first start is a start."""
    number = host.asked()
    for key in (ALICES, BOBS):
        other.brings(signed(host.statement(number, ("*",)), key))
    assert len(other.start().grants) == 2
    assert [event.event for event in other.events] == [
        "approval_kept",
        "approval_kept",
        "approval_requested",
        "approval_voted",
        "approval_granted",
    ]


def test_what_was_refused_here_is_not_approved_by_a_file(host: Host) -> None:
    """Not before somebody asks anew on purpose."""
    number = host.asked()
    before = signed(host.statement(number))
    after = signed(host.statement(number, signed_s=START_S + 1))
    host.service.decide(Peer(1, BOB, frozenset()), DecideApproval("reject", number))
    host.refuses(before, "signed before the same was rejected or revoked here")
    host.refuses(after, f"request {number} is for the same, and was rejected here: ask anew first")
    host.service.decide(Peer(1, ASKER, frozenset()), DecideApproval("request", number))
    host.refuses(before, "signed before the same was rejected or revoked here")
    assert host.brings(after)["votes"] == 1


def test_what_is_kept_does_not_outlive_a_revocation(host: Host, other: Host) -> None:
    """Enough had signed it before: once it was taken back, it takes new ones."""
    number = host.asked()
    spare = ed25519_signer()
    other.with_signers(*other.settings.approval_signers, signer(spare, "carol", 2))
    for key in (ALICES, BOBS, spare):
        other.brings(signed(host.statement(number, ("*",)), key))
    assert other.start().approval == "approval 1"
    other.service.decide(Peer(1, BOB, frozenset()), DecideApproval("revoke", 1))
    anew = int(str(other.service.decide(Peer(1, ASKER, frozenset()), DecideApproval("request", 1))["request"]))
    assert other.service.shown(anew)["votes"] == 0
    other.now_s += 1
    assert other.brings(signed(other.statement(anew, ("*",)), spare))["votes"] == 1


def test_who_has_no_vote_brings_nothing(host: Host) -> None:
    """Nor fills up what is kept; who has one does."""
    one = signed(host.statement(host.asked()))
    with pytest.raises(RefusedError, match="has no vote"):
        host.brings(one, uid=4321)
    assert host.brings(one, uid=BOB)["votes"] == 1


EVIL = "x\x1b[2J\u202e\u200b\nrequest 1, approved"


def test_no_text_of_anybodys_acts_on_the_terminal(host: Host, other: Host) -> None:
    """Of a reason, an identity, a component, a host: they are in the document as they are, and shown harmlessly."""
    host.with_signers(signer(ALICES, EVIL))
    number = host.asked()
    statement = host.statement(number, ("*",), reason=EVIL, host=EVIL)
    exported = exported_of(host.service.shown(number))
    other.with_signers(signer(ALICES, EVIL))
    kept = import_lines(other.brings(signed(statement)))
    told = host.brings(signed(statement))
    assert EVIL in str(told["yes"][0]["reason"])  # type: ignore[index]
    shown = [
        *kept,
        *review_lines(told, whole=True),
        *list_lines(host.service.listed(closed=True), closed=True, place=EVIL),
        *statement_lines(statement),
        *exported_lines(replace(exported, host=EVIL, document={"rules": [EVIL], "trust": EVIL}), exported.granted),
    ]
    for line in shown:
        assert line.isprintable()
