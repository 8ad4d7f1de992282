"""What a run reports: exact counts from the audit records, stable keys, streams that aren't text."""

from __future__ import annotations

import base64
import json

import pytest

from ipc.messages import LayerReport
from supervisor.run.report import MAX_DENIALS, DecisionTally, RunReport
from supervisor.run.verdict import LimitReached, Verdict


def _record(**fields: object) -> dict[str, object]:
    return {
        "seq": 7,
        "instance": "i1",
        "action": "filesystem.read",
        "resource": "/x",
        "decision": "denied",
        "code": "A1203",
        "reason": "no grant covers it",
        "rule": "",
        "count": 1,
        "detail": None,
        **fields,
    }


def test_counts_are_exact_over_folded_records() -> None:
    """A folded record counts as many as it stands for."""
    tally = DecisionTally("i1")
    tally.note(_record())
    tally.note(_record(count=41))
    tally.note(_record(decision="allowed", resource="/y", count=1_000_000))
    assert (tally.allowed, tally.denied) == (1_000_000, 42)
    assert [denial.count for denial in tally.denials.values()] == [42]


@pytest.mark.parametrize(
    "record",
    [
        _record(instance="i2"),
        _record(instance=None),
        _record(action=""),
        _record(action=None),
        _record(decision="info"),
        _record(decision="performed"),
        {},
    ],
    ids=["another's", "nobody's", "no action", "null action", "information", "performed", "empty"],
)
def test_what_is_no_decision_of_this_run_is_not_counted(record: dict[str, object]) -> None:
    """Records of other instances, and those that aren't decisions, change nothing."""
    tally = DecisionTally("i1")
    tally.note(record)
    assert (tally.allowed, tally.denied, tally.denials, tally.fresh) == (0, 0, {}, [])


def test_each_distinct_denial_is_fresh_once() -> None:
    """A refusal is new when its action, resource or code is; a repetition isn't."""
    tally = DecisionTally("i1")
    for change in ({}, {}, {"resource": "/z"}, {"code": "A1101"}, {"action": "filesystem.write"}, {"reason": "other"}):
        tally.note(_record(**change))
    assert len(tally.fresh) == 4
    assert tally.denied == 6


def test_too_many_distinct_denials_are_still_counted() -> None:
    """The list is bounded, the count isn't."""
    tally = DecisionTally("i1")
    for number in range(MAX_DENIALS + 50):
        tally.note(_record(resource=f"/{number}"))
    assert len(tally.denials) == MAX_DENIALS
    assert tally.denied == MAX_DENIALS + 50


def test_the_nearest_grant_comes_from_the_detail() -> None:
    """`nearest` is taken where it is text, and is null where there is none."""
    tally = DecisionTally("i1")
    tally.note(_record(detail={"nearest": 'grant filesystem.read "/in/**" (x)'}))
    tally.note(_record(resource="/a", detail={"nearest": 5}))
    tally.note(_record(resource="/b", detail="odd"))
    assert [denial.to_json()["nearest"] for denial in tally.denials.values()] == [
        'grant filesystem.read "/in/**" (x)',
        None,
        None,
    ]


def _report(**changes: object) -> RunReport:
    tally = DecisionTally("i1")
    tally.note(_record())
    fields: dict[str, object] = {
        "verdict": Verdict("exited", 3),
        "duration_s": 1.23456789,
        "peak_memory_bytes": 4096,
        "tally": tally,
        "confinement": (LayerReport("seccomp", "enforced", "2 filters"),),
        "audit_log": "/var/log/audit",
        **changes,
    }
    return RunReport(**fields)  # type: ignore[arg-type]


def test_the_documents_keys_are_stable() -> None:
    """Programs rely on these keys, in the document and in each denial."""
    document = _report().to_json()
    assert list(document) == [
        *("exit_code", "outcome", "message", "code", "duration_s", "peak_memory_bytes", "storage", "cpu"),
        *("decisions", "denials", "limit", "confinement", "audit_log", "warden_restarts", "notes", "stdout", "stderr"),
    ]
    assert document["decisions"] == {"allowed": 0, "denied": 1}
    assert document["denials"] == [
        {
            "action": "filesystem.read",
            "resource": "/x",
            "code": "A1203",
            "reason": "no grant covers it",
            "rule": "",
            "nearest": None,
            "count": 1,
        }
    ]
    assert document["limit"] is None
    assert document["duration_s"] == 1.234568
    assert document["confinement"] == [{"layer": "seccomp", "status": "enforced", "detail": "2 filters"}]


def test_a_limit_is_told_in_parts() -> None:
    """`limit` names the limit, its code, bound, use and unit."""
    reached = LimitReached("memory", "A2001", 64, 65, "bytes")
    document = _report(verdict=Verdict("limit", 75, "m", "A2001", reached)).to_json()
    assert document["limit"] == {"name": "memory", "code": "A2001", "limit": 64, "usage": 65, "unit": "bytes"}


@pytest.mark.parametrize("data", [b"", b"text\n", "ä€😀".encode(), b"\xff\x00", b"\xed\xa0\x80", b"\x1b]0;x\x07"])
def test_streams_are_exact(data: bytes) -> None:
    """The bytes of a stream can be had back from the document: as text where they are UTF-8, else from the twin."""
    document = json.loads(json.dumps(_report(stdout=data, stderr=data).to_json()))
    for name in ("stdout", "stderr"):
        twin = document.get(f"{name}_base64")
        assert (base64.b64decode(twin) if twin is not None else document[name].encode()) == data
        assert isinstance(document[name], str)


def test_hostile_text_stays_within_its_string() -> None:
    """A resource with quotes, newlines, controls and lone surrogates is one JSON string and no raw control."""
    tally = DecisionTally("i1")
    tally.note(_record(resource='/"},{\n\x1b]0;x\x07\u2028\udcff'))
    text = json.dumps(_report(tally=tally).to_json())
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["denials"][0]["resource"] == '/"},{\n\x1b]0;x\x07\u2028\udcff'
