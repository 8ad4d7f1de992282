"""Properties of the audit: escapes are reversible, counts add up whatever happens."""

import json
from collections import Counter

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.audit.event import (
    _LIMITS,
    GENESIS_HASH,
    NAME_LIMIT_BYTES,
    SUPERVISOR,
    TEXT_FIELDS,
    AuditEvent,
    Origin,
    _is_plain,
    _plain_map,
    exact,
    parse_line,
    stamp,
)
from ipc.audit.folding import REPEATED_SUFFIX, Folder, key_of
from ipc.audit.protocol import check_depth, pack_event, unpack_event
from ipc.audit.text import bounded, escape, to_bytes, unescape
from ipc.errors import PeerProtocolError

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@given(ANY_TEXT)
def test_escaping_is_reversible_and_harmless(text: str) -> None:
    """For every Python string, surrogates and all."""
    assert unescape(escape(text)) == text
    assert escape(text).isprintable()


@given(ANY_TEXT, st.integers(90, 200))
def test_bounded_text_fits_and_can_be_encoded(text: str, limit_bytes: int) -> None:
    """The bound holds in bytes, and the result always travels."""
    short = bounded(text * 5, limit_bytes)
    assert len(short.encode("utf-8", "surrogateescape")) <= max(limit_bytes, 100)
    assert bounded(short, 4096) == short


@given(st.binary(max_size=300))
def test_every_file_name_survives_wire_and_log(name: bytes) -> None:
    """A name of any bytes comes back exactly, through the stream and through the line."""
    resource = name.decode("utf-8", "surrogateescape")
    event = unpack_event(pack_event(AuditEvent("e", resource=resource)))
    line = stamp(event, SUPERVISOR, seq=1, time_ns=1, host="h", prev=GENESIS_HASH).line
    assert line.count(b"\n") == 1
    assert to_bytes(str(exact(parse_line(line))["resource"])) == name


WORDS = st.one_of(st.text(st.characters(max_codepoint=0x17F), max_size=20), ANY_TEXT)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
MAPS = st.none() | st.dictionaries(WORDS, WORDS, max_size=4) | st.dictionaries(WORDS, PLAIN, max_size=4)


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


@given(st.lists(WORDS, min_size=16, max_size=16), MAPS, MAPS, st.integers(1, 2**63 - 1), WORDS)
def test_a_line_is_what_json_makes_of_its_fields(
    words: list[str], quota: object, detail: object, count: int, producer: str
) -> None:
    """Byte for byte, whichever way it was put together: what verify reads is no other format than before."""
    fields = dict(zip(TEXT_FIELDS, words, strict=True))
    event = AuditEvent(**fields, quota=quota, detail=detail, count=count).within_bounds()
    record = stamp(event, Origin(producer, "ab", 7), seq=1, time_ns=1, host="h", prev=GENESIS_HASH)
    values = {key: value if value != "" or key == "producer" else None for key, value in record.to_map().items()}
    line = json.dumps(_escaped(values), ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
    assert record.line == line.encode("ascii")


@given(st.lists(WORDS, min_size=16, max_size=16), st.sampled_from(TEXT_FIELDS), st.integers(0, 5000))
def test_every_text_is_bounded_by_itself(words: list[str], long: str, length: int) -> None:
    """The look at all texts at once decides nothing that a look at each wouldn't."""
    fields = dict(zip(TEXT_FIELDS, words, strict=True)) | {long: "x" * length}
    bounds = AuditEvent(**fields).within_bounds()
    for name, text in fields.items():
        assert getattr(bounds, name) == bounded(text, _LIMITS.get(name, NAME_LIMIT_BYTES))


@given(st.dictionaries(WORDS, st.text(max_size=400), max_size=6), st.integers(100, 3000))
def test_a_map_that_seems_short_is(mapping: dict[str, object], limit_bytes: int) -> None:
    """What is taken for within its bounds at a glance is left as it is by the careful look too."""
    if _is_plain(mapping, limit_bytes):
        assert _plain_map(mapping, limit_bytes) == mapping


@given(st.dictionaries(st.sampled_from((*TEXT_FIELDS, "detail")), PLAIN, max_size=4), st.data())
def test_nothing_gets_past_the_scan(fields: dict[str, object], data: st.DataObject) -> None:
    """What the scan refuses is refused with the quick look before it too, however the bytes were altered."""
    packed = bytearray(msgpack.packb({"event": "e", **fields}, unicode_errors="surrogatepass"))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_depth(bytes(packed), 5, "test")
    except PeerProtocolError:
        with pytest.raises(PeerProtocolError):
            unpack_event(bytes(packed))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), st.integers(0, 5), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.integers(0, 15), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.just(0)),
        st.tuples(st.just("flush"), st.integers(0, 2), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 4))
def test_counts_add_up_whatever_happens(steps: list[tuple[str, int, int]], max_windows: int) -> None:
    """For any interleaving, time and eviction, the counts in the records are the happenings, kind by kind."""
    folder = Folder(window_ns=10, max_windows=max_windows)
    now_ns = 0
    noted: Counter[str] = Counter()
    written: Counter[str] = Counter()
    open_since: dict[str, int] = {}

    def write(events: tuple[AuditEvent, ...]) -> None:
        for event in events:
            written[event.resource] += event.count

    for kind, number, count in steps:
        if kind == "note":
            event = AuditEvent("opened", resource=str(number), decision="allowed", count=count)
            noted[event.resource] += count
            records = folder.note(event, now_ns)
            write(records)
            if any(not r.event.endswith(REPEATED_SUFFIX) for r in records):
                open_since[event.resource] = now_ns
            # What was folded silently had its kind recorded individually within this very window.
            assert now_ns - open_since[event.resource] < 10
        elif kind == "wait":
            now_ns += number
        elif kind == "due":
            write(folder.due(now_ns))
        else:
            write(folder.flush())
        assert len(folder) <= max_windows
    write(folder.flush())
    assert written == noted
    assert folder.next_due_ns() is None


@given(st.lists(st.integers(0, 3), max_size=30))
def test_a_failed_record_is_not_folded_away(kinds: list[int]) -> None:
    """When recording fails nothing was begun: the next of its kind is tried again as the first."""
    folder = Folder()
    for kind in kinds:
        assert not folder.repeat(key_of(AuditEvent("e", resource=str(kind))), 0)
    assert folder.flush() == ()


def test_two_people_are_not_counted_as_one() -> None:
    """What one may not, and then another, are two records, each with its own name."""
    folder = Folder()
    refused = [AuditEvent("control_refused", action="control.down", actor=f"uid {uid}") for uid in (1001, 1002, 1001)]
    assert [folder.note(event, 0) for event in refused] == [(refused[0],), (refused[1],), ()]
    assert [(event.actor, event.count) for event in folder.flush()] == [("uid 1001", 1)]
