"""What a reviewer reads: all of it, or what differs from what was granted last; and who said what."""

from __future__ import annotations

import argparse
import re

from approvals_to_test import ALICE, BOB, CONNECT, MANIFEST, READ, START_S, facts, filed, request, subject, taken, vote

from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals.request import Ask, Rejected, Request, Revoked
from supervisor.approvals.review import document_of, last_approved
from supervisor.approvals.steps import file_request
from supervisor.cli.approvals_view import list_lines, outcome_lines
from supervisor.cli.approvals_where import in_place, where_words
from supervisor.cli.review_view import review_lines
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories

SETTINGS = Settings(default_directories({}, 1000))
HOSTS = Grant("filesystem.read", "/etc/hosts", "Component.toml")


def _approved(granted: tuple[Grant, ...] | None = None) -> Request:
    one = request(number=9)
    half = taken(one, vote(one, ALICE, granted=granted))
    return taken(half, vote(half, BOB))


def _newer(manifest: str, *grants: Grant) -> Request:
    new = facts(manifest, "1.1.0")
    asks = (*new.asks, Ask("medium", "filesystem.read", "/etc/hosts", "read the file /etc/hosts", True, "names"))
    return file_request(12, replace(filed(subject(*grants, package="00" * 32)), facts=replace(new, asks=asks)))


def _lines(one: Request, last: Request | None, whole: bool = False) -> str:
    return "\n".join(review_lines(_document(one, last), whole))


def _document(one: Request, last: Request | None) -> dict[str, object]:
    return document_of(one, [] if last is None else [last], SETTINGS, START_S)


def test_the_first_time_all_of_it_is_shown() -> None:
    """The most dangerous first, with the name by which it can be left out, why, and which rule wants approvers."""
    said = _lines(request(), None)
    assert said.index("connect to api.example.com:443") < said.index("read everything beneath /srv/logs")
    assert 'its reason: "to report"' in said
    assert "danger: whatever it knows can leave this machine there" in said
    assert "its reason: none given" in said
    assert "network.connect:api.example.com:443" in said
    assert "needs     2 approvers" in said
    assert "rule      airssys.toml:3" in said
    assert f"--yes {request().review[:12]}" in said


def test_of_a_change_only_the_difference_is_shown() -> None:
    """What it could do more, in words; what else; and how much is the same."""
    manifest = (
        MANIFEST.replace("1.0.0", "1.1.0").replace('"]\n[cap', '", "/etc/hosts"]\n[cap')
        + '[limits]\ntimeout = "1min"\n'
    )
    new = _newer(manifest, READ, CONNECT, HOSTS)
    document = _document(new, _approved())
    since = document["since"]
    assert isinstance(since, dict)
    assert (since["request"], since["wider"], since["narrower"], since["same"]) == (
        9,
        ["filesystem.read:/etc/hosts"],
        [],
        2,
    )
    said = _lines(new, _approved())
    assert "since request 9 (1.0.0, approved)" in said
    assert "read the file /etc/hosts" in said
    assert 'its reason: "names"' in said
    assert "connect to" not in said
    assert said.index("limits.timeout: no limit → 1min") > said.index("it could do less")
    assert "version: 1.0.0 → 1.1.0" in said
    assert "connect to" in _lines(new, _approved(), whole=True)


def test_what_was_left_out_last_is_asked_for_more() -> None:
    """The difference is to what was granted, not to what was asked then."""
    new = _newer(MANIFEST, READ, CONNECT)
    document = _document(new, _approved((READ,)))
    assert document["since"]["wider"] == ["network.connect:api.example.com:443"]  # type: ignore[index]
    same = _document(new, _approved())
    assert same["since"]["wider"] == []  # type: ignore[index]
    assert "nothing more than was granted then" in _lines(new, _approved())


def test_another_directory_is_no_difference() -> None:
    """A version that lies elsewhere asks for its own files, as the one before did."""
    own = [Grant("filesystem.read", f"/opt/{version}/*.txt", "") for version in ("v1", "v2")]
    old = replace(request(number=9), filed=replace(filed(subject(own[0])), facts=replace(facts(), directory="/opt/v1")))
    old = replace(old, granted=(own[0],), approved_s=START_S)
    new = file_request(12, replace(filed(subject(own[1])), facts=replace(facts(), directory="/opt/v2")))
    assert _document(new, old)["since"]["wider"] == []  # type: ignore[index]
    elsewhere = file_request(12, filed(subject(own[1])))
    assert _document(elsewhere, old)["since"]["wider"] != []  # type: ignore[index]


def test_a_manifest_that_can_not_be_read_any_more_is_compared_by_its_grants() -> None:
    """An older version's form is no reason to show nothing."""
    new = _newer("not TOML at all", READ, CONNECT, HOSTS)
    since = _document(new, _approved())["since"]
    assert isinstance(since, dict)
    assert (since["wider"], since["changed"]) == (["filesystem.read:/etc/hosts"], [])


def test_what_is_narrowed_is_marked() -> None:
    """What is left out says so; what is tightened shows what is granted in its place."""
    one = request()
    half = taken(one, vote(one, ALICE, granted=(Grant("filesystem.read", "/srv/logs/app/*.log", ""),)))
    said = _lines(half, None)
    assert said.count("[left out]") == 2
    assert "(narrowed) filesystem.read:/srv/logs/app/*.log" in said
    assert f"by uid {ALICE}" in said
    assert "needs     1 approver;" in said
    line, *_ = outcome_lines("approve", _document(half, None))
    assert "needs 1 more approver" in line


def test_what_the_rest_allows_is_not_gone() -> None:
    """Reading allows to list: who leaves only the listing out is told; with the reading left out, too, it is gone."""
    listing = Grant("filesystem.list", "/srv/logs/", "Component.toml")
    told = replace(facts().asks[1], action=listing.action, resource=listing.pattern_text)
    about = replace(filed(subject(READ, listing)), facts=replace(facts(), asks=(told, facts().asks[1])))
    without_listing, without_both = (replace(file_request(1, about), granted=granted) for granted in ((READ,), ()))
    assert "[left out, but the rest allows it]" in _lines(without_listing, None)
    assert _lines(without_both, None).count("[left out]") == 2


def test_methods_are_part_of_what_is_granted() -> None:
    """The same URL with fewer methods isn't what was asked."""
    asked = Grant("network.connect", "https://api.example.com", "", methods=("GET", "POST"))
    fewer = replace(asked, methods=("GET",))
    about = replace(
        filed(subject(asked)), facts=replace(facts(), asks=(replace(facts().asks[0], resource=asked.pattern_text),))
    )
    one = file_request(1, about)
    for granted, whole in (((fewer,), False), ((asked,), True)):
        (first, *_) = _document(replace(one, granted=granted), None)["asks"]  # type: ignore[misc]
        assert first["granted"] is whole


def test_an_ending_says_who_and_why() -> None:
    """And offers no approval any more."""
    said = _lines(taken(request(), Rejected(START_S, BOB, "too broad")), None)
    assert re.search(rf"rejected  .* by uid {BOB}: too broad", said)
    assert "to approve it" not in said


def test_the_last_approved_one_is_found() -> None:
    """By when it was approved; not itself, not another component's; none where it was taken back since."""
    first, second = _approved(), replace(_approved(), number=10)
    later = replace(second, approved_s=START_S + 500)
    other = replace(first, number=11, filed=filed(subject(component="other")), approved_s=START_S + 900)
    assert last_approved([first, later, other, request()], request()) is later
    assert last_approved([later], later) is None
    revoked = taken(later, Revoked(START_S + 600, BOB, "a hole"))
    assert last_approved([first, revoked], request()) is None
    said = _lines(request(), revoked)
    assert "since request" not in said
    assert f"request 10 of it was revoked by uid {BOB} at" in said
    assert "a hole" in said


def test_each_command_that_is_named_finds_the_request_again() -> None:
    """Who asked by a socket is told commands with that socket; a hint that doesn't know it is completed."""
    where = where_words(argparse.Namespace(socket="/srv/a b/control.sock", state_dir="/srv/state", config=None))
    assert where == " --socket '/srv/a b/control.sock'"
    assert where_words(argparse.Namespace(socket=None, state_dir="/srv/s", config="c.toml")) == (
        " --state-dir /srv/s --config c.toml"
    )
    document = _document(request(), None)
    lines = [*review_lines(document, whole=False, where=where), *outcome_lines("reject", document, where)]
    lines += list_lines({"requests": [document]}, closed=False, place="here", where=where)
    commands = [line for line in lines if "airssys approvals " in line]
    assert len(commands) == 6
    assert all(where in line for line in commands), commands
    assert in_place("look at it: airssys approvals show 9 --whole", where) == (
        f"look at it: airssys approvals show 9{where} --whole"
    )
    assert in_place("by key: airssys approvals export, sign, import", where) == (
        "by key: airssys approvals export, sign, import"
    )
    assert in_place(None, where) is None


def test_the_list_says_until_when() -> None:
    """What waits has an end, and so has an approval for a time; one without says nothing there."""
    ends = _document(request(), None)
    ever = {**_document(_approved(), None), "due_at": None}
    heading, one, other, *_ = list_lines({"requests": [ends, ever]}, closed=False, place="here")
    at = heading.index("UNTIL (UTC)")
    assert one[at : at + 16] == str(ends["due_at"])[:16].replace("T", " ")
    assert not other[at : at + 16].strip()
