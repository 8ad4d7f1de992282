"""Getting approved what nobody approved: each attack with its honest twin, on real files and with a real audit log."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from approvals_to_test import ALICE, ASKER, BOB, CAROL, MANIFEST, START_S, filed, hold, subject

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.approvals import ledger, notify
from supervisor.approvals.asking import Approved, Question, decide_by_approval, question_of
from supervisor.approvals.chain import DamagedError, make_row
from supervisor.approvals.errors import AwaitingApprovalError, NotApprovedError
from supervisor.approvals.head import Head, head_text
from supervisor.approvals.machine import State
from supervisor.approvals.request import Lapsed
from supervisor.approvals.rules import Needed
from supervisor.approvals.service import ApprovalService, Document, RefusedError, UnknownRequestError
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.cli.approvals_view import list_lines, outcome_lines
from supervisor.cli.review_view import review_lines
from supervisor.config.approval_settings import ApprovalRule
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories
from supervisor.control.messages import DecideApproval
from supervisor.control.roles import Peer, Roles
from supervisor.manifest import Variables, bind, load_manifest

pytestmark = pytest.mark.any_user

RULES = (ApprovalRule(("network.*",), 2, source="airssys.toml:3"),)
WITHOUT = ("network.connect:api.example.com:443",)
ROOT_UID = 0


class Host:
    """A state directory whose component takes two approvers, and a clock that is set."""

    def __init__(self, directory: Path) -> None:
        """Make the component, and nothing else."""
        self.now_s = START_S
        self.state = directory / "state"
        self.component = directory / "component"
        self.component.mkdir(parents=True)
        (self.component / "Component.toml").write_text(MANIFEST)
        (self.component / "reporter.wasm").write_bytes(b"\0asm\1\0\0\0")
        (self.component / "words.txt").write_text("hello")
        self.log = AuditLog(str(self.state / "audit"))
        self.settings = Settings(default_directories({}, 1000), approval_rules=RULES)
        roles = Roles(1000, {}, {}, frozenset({ASKER, ALICE, BOB, CAROL}))
        self.store = ApprovalStore(
            str(self.state), self.log.directory, self._record, clock_s=lambda: self.now_s, wait_s=0.0
        )
        self.service = ApprovalService(self.store, self.settings, roles)

    def _record(self, event: AuditEvent) -> None:
        self.log.append([(event.within_bounds(), SUPERVISOR)])

    def records(self) -> list[dict[str, object]]:
        """Return what is in the log."""
        paths = sorted(Path(self.log.directory).glob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.strip("\0")]

    @property
    def variables(self) -> Variables:
        """The directories of a start."""
        return Variables(str(self.component), str(self.state / "data"), str(self.state / "tmp"))

    def question(self, needs: int = 2) -> Question:
        """Return what a start of the component asks now."""
        manifest = load_manifest(str(self.component))
        bound = bind(manifest, {}, self.variables)
        return question_of(bound, bound.grants, Needed(needs))

    def another(self) -> Host:
        """Return this host as another process of it: with the same files, and a hold of its own on them."""
        found = copy.copy(self)
        found.store = ApprovalStore(str(self.state), self.log.directory, self._record, clock_s=lambda: self.now_s)
        found.service = ApprovalService(found.store, self.settings, Roles(1000, {}, {}, frozenset({ASKER, ALICE, BOB})))
        return found

    def start(self, needs: int = 2) -> Approved:
        """Start it, as far as approvals go."""
        return decide_by_approval(self.store, self.question(needs), self.settings, "", ASKER, self.variables, hold)

    def asked(self, needs: int = 2) -> int:
        """Have it asked for; the number of the request."""
        with pytest.raises(AwaitingApprovalError) as waits:
            self.start(needs)
        return waits.value.request.number

    def says(self, uid: int, what: str, number: int, seen: str | None = None, **more: object) -> Document:
        """Have somebody decide, who has seen it as it is now."""
        reviewed = str(self.service.shown(number)["review"]) if seen is None else seen
        decision = DecideApproval(what=what, number=number, seen=reviewed, **more)  # type: ignore[arg-type]
        return self.service.decide(Peer(1, uid, frozenset()), decision)

    def approved(self, number: int | None = None, **more: object) -> int:
        """Have two people approve it."""
        number = self.asked() if number is None else number
        self.says(ALICE, "approve", number, **more)
        assert self.says(BOB, "approve", number)["state"] == "approved"
        return number


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose log is closed afterwards."""
    found = Host(tmp_path)
    yield found
    found.log.close()


def _refused(host: Host, uid: int, number: int, words: str, **more: object) -> None:
    with pytest.raises(RefusedError, match=words):
        host.says(uid, "approve", number, **more)


def test_one_own_request_is_not_approved_where_two_are_needed(host: Host) -> None:
    """Nor half of it; two others do, and then it starts."""
    number = host.asked()
    _refused(host, ASKER, number, "asked for it")
    host.says(ALICE, "approve", number)
    _refused(host, ASKER, number, "asked for it")
    assert host.asked() == number, "one yes is not enough"
    host.says(BOB, "approve", number)
    assert [grant.action for grant in host.start().grants] == ["filesystem.read", "network.connect"]


def test_the_same_person_is_one_person(host: Host) -> None:
    """However often; another one makes two."""
    number = host.asked()
    host.says(ALICE, "approve", number)
    for _ in range(3):
        _refused(host, ALICE, number, "different people")
    assert host.says(BOB, "approve", number)["state"] == "approved"


def test_root_has_no_vote(host: Host) -> None:
    """It takes away; a person's yes counts."""
    number = host.asked(needs=1)
    _refused(host, ROOT_UID, number, "root administers")
    host.approved(number)
    assert host.says(ROOT_UID, "revoke", number)["state"] == "revoked"


@pytest.mark.parametrize("number", [2**31, 2**63, 2**64 - 1, -1, 0])
def test_a_number_that_no_request_has_is_an_answer(host: Host, number: int) -> None:
    """To whoever may look, by every question with a number; one that a request has is shown."""
    asked = host.asked()
    for what in ("approve", "reject", "revoke", "request", "preview"):
        with pytest.raises(UnknownRequestError):
            host.says(ALICE, what, number, seen="")
    with pytest.raises(UnknownRequestError):
        host.service.shown(number)
    assert host.service.shown(asked)["request"] == asked


@pytest.mark.parametrize("lifetime_s", [2**31, 2**62, 2**63 - 1])
def test_an_end_that_no_calendar_has_is_refused(host: Host, lifetime_s: int) -> None:
    """So that whoever has a vote leaves nothing that can't be listed any more; 68 years are taken."""
    number = host.asked(needs=1)
    _refused(host, ALICE, number, "at most", lifetime_s=lifetime_s)
    host.approved(number, lifetime_s=2**31 - 1)
    assert list_lines(host.service.listed(closed=False), closed=False, place="here")


def test_who_is_no_approver_has_no_vote(host: Host) -> None:
    """Whatever else they are; nor do they say no for the others."""
    number = host.asked()
    for what in ("approve", "reject"):
        with pytest.raises(RefusedError, match=r"uid 4711 has no vote"):
            host.says(4711, what, number)
    assert host.says(CAROL, "reject", number)["state"] == "rejected"


def test_who_tries_what_they_may_not_is_on_record(host: Host) -> None:
    """A vote, a narrowing, an import: by whom, why, about what; a flood of them is counted."""
    number = host.asked()
    _refused(host, 4711, number, "no vote")
    _refused(host, ASKER, number, "asked for it")
    _refused(host, BOB, number, "doesn't ask for", without=("network.connect:elsewhere:1",))
    with pytest.raises(ConfigError):
        host.service.decide(Peer(1, CAROL, frozenset()), DecideApproval("import", 0), b"no signed yes")
    for _ in range(200):
        _refused(host, 4711, number, "no vote")
    host.says(ALICE, "approve", number)
    host.service.finish()
    tried = [record for record in host.records() if str(record["event"]).startswith("approval_refused")]
    assert [(record["actor"], record["action"], record["approval"]) for record in tried] == [
        ("uid 4711", "approvals.approve", f"approval {number}"),
        (f"uid {ASKER}", "approvals.approve", f"approval {number}"),
        (f"uid {BOB}", "approvals.approve", f"approval {number}"),
        (f"uid {CAROL}", "approvals.import", None),
        ("uid 4711", "approvals.approve", f"approval {number}"),
    ]
    assert [record["count"] for record in tried] == [1, 1, 1, 1, 200]
    assert "no vote" in str(tried[0]["reason"])
    assert {record["decision"] for record in tried} == {"denied"}
    assert [record["actor"] for record in host.records() if record["event"] == "approval_voted"] == [f"uid {ALICE}"]


def test_what_was_narrowed_is_not_widened(host: Host) -> None:
    """Not by the next yes, not by a file that asks for more; narrower still is taken, and that is what starts."""
    number = host.asked()
    host.says(ALICE, "approve", number, without=WITHOUT)
    _refused(host, BOB, number, "doesn't ask for", without=WITHOUT)
    wider = MANIFEST.replace("/srv/logs/**", "/srv/**").encode()
    decision = DecideApproval("approve", number, seen=str(host.service.shown(number)["review"]))
    with pytest.raises(RefusedError, match="not included"):
        host.service.decide(Peer(1, BOB, frozenset()), decision, wider)
    with pytest.raises(RefusedError, match="not included"):
        host.service.decide(Peer(1, BOB, frozenset()), decision, MANIFEST.encode())
    less = MANIFEST.split("[capabilities.network]")[0].replace("/srv/logs/**", "/srv/logs/app/*.log").encode()
    host.service.decide(Peer(1, BOB, frozenset()), decision, less)
    started = host.start()
    assert [(grant.action, grant.pattern_text) for grant in started.grants] == [
        ("filesystem.read", "/srv/logs/app/*.log")
    ]
    assert started.approval == f"approval {number}"


def test_an_upgrade_gets_nothing_back_that_was_narrowed_away(host: Host) -> None:
    """Another version that asks for the whole again is another request, and shown as wider than what was granted.

    Until it is answered nothing of it starts; narrowed likewise, it starts with that.
    """
    host.approved(without=WITHOUT)
    (host.component / "Component.toml").write_text(MANIFEST.replace('"1.0.0"', '"1.1.0"'))
    number = host.asked()
    since = cast("dict[str, object]", host.service.shown(number)["since"])
    assert since["wider"] == ["network.connect:api.example.com:443"]
    host.approved(number, without=WITHOUT)
    assert [grant.action for grant in host.start().grants] == ["filesystem.read"]


def test_bytes_that_change_while_they_are_approved_are_not_approved(host: Host) -> None:
    """Exchanged back and forth by one process while others approve what they have seen of the good ones, in a race.

    Whatever starts has the bytes that both have seen; and those do start.
    """
    good, words = host.question().subject.package, host.component / "words.txt"
    over, started = threading.Event(), list[str]()
    starter = host.another()

    def review(uid: int) -> None:
        mine = host.another()
        while not over.wait(0.01):
            for each in cast("list[Document]", mine.service.listed(closed=False)["requests"]):
                with contextlib.suppress(ConfigError):
                    number = cast("int", each["request"])
                    if mine.service.shown(number)["package"] == good:
                        mine.says(uid, "approve", number)

    reviewers = [threading.Thread(target=review, args=(uid,)) for uid in (ALICE, BOB)]
    for each in reviewers:
        each.start()
    try:
        for turn in range(8):
            words.write_text("hello" if turn % 2 else f"evil {turn}")
            package = host.question().subject.package
            with contextlib.suppress(AwaitingApprovalError):
                starter.start()
                started.append(package)
        words.write_text("hello")
        until = time.monotonic() + 30
        while good not in started and time.monotonic() < until:
            with contextlib.suppress(AwaitingApprovalError):
                starter.start()
                started.append(good)
    finally:
        over.set()
        for each in reviewers:
            each.join()
    assert set(started) == {good}


def test_what_changed_since_it_was_shown_is_not_approved(host: Host) -> None:
    """The digest of what was reviewed decides: a narrowing in between, or another number; shown anew, it is."""
    number = host.asked()
    seen = str(host.service.shown(number)["review"])
    host.says(ALICE, "approve", number, without=WITHOUT)
    _refused(host, BOB, number, "isn't what was reviewed", seen=seen)
    (host.component / "words.txt").write_text("other bytes")
    changed = host.asked()
    assert changed != number
    _refused(host, BOB, changed, "isn't what was reviewed", seen=seen)
    _refused(host, BOB, number, "withdrawn")
    _refused(host, BOB, changed, "isn't what was reviewed", seen="")
    host.approved(changed)
    host.start()


@pytest.mark.parametrize("file", ["Component.toml", "reporter.wasm", "words.txt", "one-more.txt"])
def test_replaced_bytes_are_not_approved(host: Host, file: str) -> None:
    """One byte of anything that belongs to the package asks again; the old bytes are still approved."""
    host.approved()
    before = host.start()
    path = host.component / file
    old = path.read_bytes() if path.exists() else None
    path.write_bytes((old or b"") + b"\n")
    host.asked()
    if old is None:
        path.unlink()
    else:
        path.write_bytes(old)
    assert host.start() == before


def test_another_set_asks_again(host: Host) -> None:
    """The same bytes with another parameter, or granted less: another request."""
    host.approved()
    question = host.question()
    subjects = [
        question.subject,
        subject(*question.subject.asked[:1], package=question.subject.package),
        subject(*question.subject.asked, package=question.subject.package, instance="acme"),
    ]
    with host.store.open() as kept:
        assert [kept.of_subject(each.key) is not None for each in subjects] == [True, False, False]


def test_what_a_file_grants_is_judged_as_it_is(host: Host) -> None:
    """`--grant FILE` may name other patterns than the manifest: a reviewer reads how dangerous those are."""
    manifest = load_manifest(str(host.component))
    bound = bind(manifest, {}, Variables(str(host.component), str(host.state / "data"), str(host.state / "tmp")))
    wider = (replace(bound.grants[0], action="filesystem.write", pattern_text="/etc/"),)
    (ask,) = question_of(bound, wider, Needed()).facts.asks
    assert (ask.danger, ask.resource) == ("critical", "/etc/")
    assert "create, change and delete /etc and everything beneath" in ask.sentence
    (as_written,) = question_of(bound, bound.grants[:1], Needed()).facts.asks
    assert as_written.danger == "medium"


def test_a_rule_that_became_stricter_asks_again(host: Host) -> None:
    """An approval by fewer people than the rules take by now is none; by the rules of the day it starts."""
    number = host.asked(needs=1)
    host.settings = Settings(host.settings.directories)
    host.service = ApprovalService(host.store, host.settings, Roles(1000, {}, {}, frozenset({ASKER, ALICE, BOB})))
    host.says(ALICE, "approve", number)
    host.start(needs=1)
    assert host.asked(needs=2) != number


def test_an_approval_for_one_start_starts_once(host: Host) -> None:
    """A second start asks anew, also of a store that was closed meanwhile."""
    number = host.asked()
    host.says(ALICE, "approve", number, once=True)
    host.says(BOB, "approve", number)
    assert host.start().approval == f"approval {number}"
    again = host.asked()
    assert again != number
    _refused(host, ALICE, number, "expired")
    host.approved(again)
    host.start()
    host.start()


def test_a_clock_that_is_set_back_revives_no_approval(host: Host) -> None:
    """What was over stays over; while it holds it starts."""
    number = host.asked()
    host.says(ALICE, "approve", number, lifetime_s=3600)
    host.says(BOB, "approve", number)
    host.now_s += 3599
    host.start()
    host.now_s += 1
    host.asked()
    host.now_s = START_S
    assert host.asked() != number
    assert cast("int", host.service.listed(closed=True)["clock_behind_s"]) >= 3600


def test_a_clock_that_is_set_back_keeps_nothing_running(host: Host) -> None:
    """What a run has seen to be over by a clock that nobody sets is over; before that, time stands still."""
    number = host.asked()
    host.says(ALICE, "approve", number, lifetime_s=3600)
    host.says(BOB, "approve", number)
    by = host.start().reliance
    assert by.until_s is not None
    boot_ns = by.until_boot_ns - 3600 * 10**9
    host.now_s = START_S - 86_400
    assert by.left_ns(host.now_s, boot_ns + 3599 * 10**9) > 0
    host.start()
    assert by.left_ns(host.now_s, boot_ns + 3600 * 10**9) <= 0
    with host.store.open() as kept:
        kept.note_time(by.until_s)
        request = kept.request(number)
        assert request is not None
        assert kept.settled(request).state is State.EXPIRED
    assert host.asked() != number


def test_narrowing_takes_away_only(host: Host) -> None:
    """Nothing wider, nothing unseen, nothing that isn't approved, by nobody without a vote; the next start has less."""
    number = host.asked()
    with pytest.raises(RefusedError, match="isn't approved: approve less"):
        host.says(ALICE, "narrow", number, without=WITHOUT)
    host.approved(number)
    seen = str(host.service.shown(number)["review"])
    for manifest in (MANIFEST.replace("/srv/logs/**", "/srv/**"), MANIFEST.replace("api.example", "**.example")):
        decision = DecideApproval("narrow", number, seen)
        with pytest.raises(RefusedError, match="not included in what it asks for"):
            host.service.decide(Peer(1, ALICE, frozenset()), decision, manifest.encode())
    for words, uid, more in (
        ("has no vote", 4711, {"without": WITHOUT}),
        ("isn't what was reviewed", ALICE, {"without": WITHOUT, "seen": "0" * 64}),
        ("doesn't ask for", ALICE, {"without": ("filesystem.write:/etc/**",)}),
        ("nothing would be left", ALICE, {"without": (*WITHOUT, "filesystem.read:/srv/logs/**")}),
        ("nothing would be taken away", ALICE, {}),
    ):
        with pytest.raises(RefusedError, match=words):
            host.says(uid, "narrow", number, **more)
    assert len(host.start().grants) == 2
    assert host.says(ROOT_UID, "narrow", number, without=WITHOUT, seen=seen)["state"] == "approved", "it takes away"
    assert [grant.action for grant in host.start().grants] == ["filesystem.read"]
    _refused(host, ALICE, number, "approved already")
    with pytest.raises(RefusedError, match="isn't what was reviewed"):
        host.says(BOB, "narrow", number, without=("filesystem.read:/srv/logs/**",), seen=seen)


def test_time_that_was_taken_away_is_not_given_back(host: Host) -> None:
    """A narrowing shortens it, and no later one prolongs it; while it holds it starts."""
    number = host.approved()
    host.says(ALICE, "narrow", number, lifetime_s=100)
    with pytest.raises(RefusedError, match="nothing would be taken away"):
        host.says(BOB, "narrow", number, lifetime_s=3600)
    host.says(BOB, "narrow", number, lifetime_s=3600, without=WITHOUT)
    host.now_s += 99
    assert host.start().reliance.until_s == START_S + 100
    host.now_s += 1
    assert host.asked() != number


def test_what_was_refused_is_not_asked_again_by_itself(host: Host) -> None:
    """A start says who has said no and why; who asked, or an admin, asks anew."""
    number = host.asked()
    host.says(ALICE, "reject", number, reason="why the network?")
    with pytest.raises(NotApprovedError, match="why the network"):
        host.start()
    with pytest.raises(RefusedError, match="didn't ask"):
        host.says(CAROL, "request", number, seen="")
    again = host.says(ASKER, "request", number, seen="")["request"]
    assert host.asked() == again
    host.approved(cast("int", again))
    host.start()


def test_what_was_revoked_does_not_start(host: Host) -> None:
    """From that moment on; before it does."""
    number = host.approved()
    host.start()
    host.says(CAROL, "revoke", number, reason="a hole was found")
    with pytest.raises(NotApprovedError, match="a hole was found"):
        host.start()


def test_a_downgrade_to_what_was_approved_once_is_not_approved(host: Host) -> None:
    """Approving the new version supersedes the old one: it would be asked for anew."""
    first = host.approved()
    (host.component / "words.txt").write_text("version two")
    second = host.approved()
    assert second != first
    host.start()
    (host.component / "words.txt").write_text("hello")
    assert host.asked() not in (first, second)
    assert host.service.shown(first)["state"] == "superseded"


ESCAPES = "\x1b[2J\x1b[1;1H it asks for nothing \x1b]0;title\x07\x9b1m\u202egnp\u2066\r\n  yes by uid 1001"


def test_no_text_of_anybodys_acts_on_the_terminal(host: Host) -> None:
    """Names, reasons, versions, directories and rules are shown in one line each, with what they hold made visible."""
    number = host.asked()
    host.says(ALICE, "approve", number, reason=ESCAPES)
    document = host.service.shown(number)
    forged = json.loads(json.dumps(document))
    for key in ("component", "version", "directory", "trust"):
        forged[key] = ESCAPES
    for ask in forged["asks"]:
        ask.update(sentence=ESCAPES, rationale=ESCAPES, resource=ESCAPES, action=ESCAPES)
    forged["rules"] = forged["undeclared"] = [ESCAPES]
    forged["ended"] = {"how": "rejected", "by": ESCAPES, "at": "2027-01-01T00:00:00Z", "reason": ESCAPES}
    since = {"wider": [ESCAPES], "narrower": [ESCAPES], "same": 1, "request": 1, "version": ESCAPES}
    since |= {
        "state": "approved",
        "changed": [{"effect": "wider", "kind": "env", "what": ESCAPES, "old": ESCAPES, "new": ESCAPES}],
    }
    assert "\x1b" in json.loads(json.dumps(document))["yes"][0]["reason"]
    for shown in (document, forged, {**forged, "since": since}):
        in_list = list_lines({"requests": [shown]}, closed=True, place=ESCAPES)
        for line in (*review_lines(shown, whole=False), *outcome_lines("approve", shown), *in_list):
            assert line.isprintable(), line


def _asked_on_a_terminal(typed_before: bytes, typed_after: bytes, left_s: Callable[[], float]) -> bytes:
    """Ask on a terminal of its own, on which something was typed before the question; return the answer."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from supervisor.cli.confirm import confirm; "
        "sys.stdin.read(0); print('ready', file=sys.stderr, flush=True); "
        "import os; os.read(int(sys.argv[2]), 1); print('answer', confirm('Approve this? '), file=sys.stderr)"
    )
    master, slave = pty.openpty()
    go_reader, go_writer = os.pipe()
    root = str(Path(__file__).resolve().parents[2])
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-c", program, root, str(go_reader)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=(go_reader,),
            start_new_session=True,
        ) as process:
            os.close(slave)
            shown = b""
            sent = go = False
            try:
                while select.select([master], [], [], left_s())[0]:
                    try:
                        chunk = os.read(master, 4096)
                    except OSError:  # it has ended
                        break
                    shown += chunk
                    if b"ready" in shown and not go:
                        go = True
                        os.write(master, typed_before)
                        os.write(go_writer, b"g")
                    if b"Approve this?" in shown and not sent:
                        sent = True
                        os.write(master, typed_after)
            finally:
                process.kill()
    finally:
        for descriptor in (master, go_reader, go_writer):
            os.close(descriptor)
    return shown


def test_what_was_typed_before_the_question_is_no_answer(deadline) -> None:
    """A `y` that waits in the terminal approves nothing; one that is typed behind the question does."""
    assert b"answer False" in _asked_on_a_terminal(b"y\ny\ny\n", b"n\n", deadline.left_s)
    assert b"answer True" in _asked_on_a_terminal(b"n\n", b"y\n", deadline.left_s)


def test_a_database_that_was_edited_by_hand_approves_nothing(host: Host) -> None:
    """A vote that nobody gave: nothing starts, and what to do is said; as it was, it starts."""
    host.approved()
    path = host.state / "approvals" / "approvals.sqlite"
    shutil.copy(path, host.state / "copy")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE steps SET body = replace(body, '\"needs\":2', '\"needs\":1')")
    connection.close()
    with pytest.raises(DamagedError, match=r"aren't what was written here.*step 1 ") as refused:
        host.start()
    assert "have everything asked anew" in str(refused.value.hint)
    shutil.copy(host.state / "copy", path)
    host.start()


def test_ten_thousand_requests_hold_nobody_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that are over go, what is approved stays and starts; one person's open ones are bounded."""
    monkeypatch.setattr(ledger, "OPEN_OF_ONE_MAX", 5)
    host.approved()
    kept = host.state / "approvals"
    with sqlite3.connect(kept / "approvals.sqlite") as connection:
        seq, checksum, number = connection.execute(
            "SELECT seq, sum, request FROM steps ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        for _ in range(ledger.REQUESTS_MAX - 1):
            number += 1
            about = subject(component=f"c{number}")
            for step in (filed(about, expires_s=1), Lapsed(START_S + 1)):
                row = make_row(seq + 1, checksum, number, step, about.identity, about.key)
                seq, checksum = row.seq, row.sum
                values = (row.seq, row.request, row.kind, row.identity, row.subject, row.body, row.prev, row.sum)
                connection.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.close()
    (kept / "head").write_text(head_text(Head(seq, checksum, host.now_s)))
    host.now_s += 2
    host.start()
    with host.store.open() as opened:
        opened.file(filed(subject(component="new"), at_s=host.now_s, uid=CAROL))
        assert len(opened.current()) == 2
    with sqlite3.connect(kept / "approvals.sqlite") as connection:
        (left,) = connection.execute("SELECT COUNT(*) FROM steps WHERE kind = 'filed'").fetchone()
    connection.close()
    assert left == ledger.CLOSED_KEPT + 2
    with host.store.open() as opened:
        for turn in range(ledger.OPEN_OF_ONE_MAX):
            opened.file(filed(subject(component=f"flood-{turn}"), at_s=host.now_s))
        with pytest.raises(ledger.TooManyError):
            opened.file(filed(subject(component="flood"), at_s=host.now_s))
    host.start()


def test_a_flood_makes_nobody_forget_a_no(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was rejected or taken back goes behind all that nobody has answered, however old it is."""
    monkeypatch.setattr(ledger, "REQUESTS_MAX", 6)
    monkeypatch.setattr(ledger, "CLOSED_KEPT", 2)
    number = host.asked()
    host.says(ALICE, "reject", number)
    other = subject(component="other", package="00" * 32)
    with host.store.open() as opened:
        unanswered = opened.file(filed(other, at_s=host.now_s)).number
        for index in range(10):  # each of which withdraws the one before
            opened.file(filed(subject(component="other", package=f"{index + 1:064x}"), at_s=host.now_s))
        assert opened.request(unanswered) is None
    with pytest.raises(NotApprovedError, match=f"request {number} was rejected"):
        host.start()


def test_manifests_as_long_as_may_be_fill_no_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """All together have a bound, which the oldest that are over make room for; what is approved stays and starts."""
    monkeypatch.setattr(ledger, "STEPS_MAX_BYTES", 400_000)
    monkeypatch.setattr(ledger, "STEPS_KEPT_BYTES", 200_000)
    host.approved()

    def asked_ten_times(length: int) -> int:
        for index in range(10):
            how = filed(subject(component="other", package=f"{length + index:064x}"), at_s=host.now_s)
            with host.store.open() as opened:
                opened.file(replace(how, facts=replace(how.facts, manifest="#" * length)))
        with sqlite3.connect(host.state / "approvals" / "approvals.sqlite") as connection:
            (size_bytes,) = connection.execute("SELECT SUM(LENGTH(body)) FROM steps").fetchone()
        connection.close()
        return int(size_bytes)

    assert asked_ten_times(100) < 50_000
    assert len(host.service.listed(closed=True)["requests"]) == 11, "short ones all stay"  # type: ignore[arg-type]
    assert asked_ten_times(100_000) < 600_000
    host.start()


def test_a_component_that_is_asked_for_in_a_loop_is_one_request(host: Host) -> None:
    """The same asks once; ever other bytes leave one that waits."""
    number = host.asked()
    assert {host.asked() for _ in range(5)} == {number}
    for turn in range(5):
        (host.component / "words.txt").write_text(str(turn))
        host.asked()
    assert len(cast("list[object]", host.service.listed(closed=False)["requests"])) == 1
    assert len(cast("list[object]", host.service.listed(closed=True)["requests"])) == 6


def _hook(host: Host, text: str, mode: int = 0o755) -> str:
    path = host.state / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "trouble"),
    [
        ("exit 3", 0o755, "ended with 3"),
        ("sleep 600", 0o755, "took longer"),
        ("exit 0", 0o644, "no executable"),
        ("exit 0", 0o777, "writable by others"),
    ],
)
def test_a_hook_that_fails_changes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, text: str, mode: int, trouble: str
) -> None:
    """It hangs, dies, is none, or could be anybody's: it is on record, and the request waits as it would."""
    patient = notify.tell_reviewers
    monkeypatch.setattr(notify, "tell_reviewers", lambda *told: patient(*told, within_s=0.2))
    settings = Settings(host.settings.directories, approval_rules=RULES, approval_notify=_hook(host, text, mode))
    host.settings = settings
    number = host.asked()
    assert host.service.shown(number)["state"] == "pending"
    told = [event for event in _events(host) if event["event"] == "approval_told"]
    assert len(told) == 1
    assert trouble in str(told[0]["reason"])


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_hook_that_others_could_exchange_is_not_run(host: Host, mode: int) -> None:
    """Its own file may be as it should: who can rename above it could have another one run; otherwise it runs."""
    hook = _hook(host, "exit 0", 0o755)
    above = Path(hook).parent
    above.chmod(mode)
    assert f"lies in {above}" in notify.tell_reviewers(hook, {})
    above.chmod(0o755)
    assert notify.tell_reviewers(hook, {}) == ""


def test_a_hook_is_given_the_request(host: Host) -> None:
    """One JSON document on its standard input: the control of the above."""
    hook = _hook(host, f"exec cat > {host.state}/told")
    host.settings = Settings(host.settings.directories, approval_rules=RULES, approval_notify=hook)
    number = host.asked()
    document = json.loads((host.state / "told").read_text())
    assert (document["request"], document["component"], document["needs_approvers"]) == (number, "reporter", 2)
    assert document["review"] == host.service.shown(number)["review"]
    (told,) = (event for event in _events(host) if event["event"] == "approval_told")
    assert told["reason"] is None


def _events(host: Host) -> list[dict[str, object]]:
    lines = [line for path in sorted((host.state / "audit").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_directory_that_is_no_package_is_not_asked_for(host: Host) -> None:
    """A link out of it could be anything at the next start; without it, it is asked for."""
    (host.component / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="symbolic link"):
        host.start()
    (host.component / "link").unlink()
    host.asked()
