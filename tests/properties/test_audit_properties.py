"""Properties of the audit: escapes are reversible, counts add up whatever happens."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.audit.event import GENESIS_HASH, SUPERVISOR, AuditEvent, exact, parse_line, stamp
from ipc.audit.folding import REPEATED_SUFFIX, Folder, key_of
from ipc.audit.protocol import pack_event, unpack_event
from ipc.audit.text import bounded, escape, to_bytes, unescape

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
