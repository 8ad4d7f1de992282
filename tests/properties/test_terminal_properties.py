"""Properties of the terminal filter and of `visible`, for bytes and text that nobody thought of."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from supervisor.terminal import TerminalFilter, visible

_SGR = re.compile(rb"\x1b\[[0-9;:]{0,32}m")
_PIECES = st.sampled_from(
    [
        *(
            b"\x1b",
            b"[",
            b"]",
            b"52;c;",
            b"\x07",
            b"\x9b",
            b"\xc2",
            b"\xe2",
            b"\x80",
            b"\xae",
            b"\x81",
            b"\xa6",
            b"\xf0",
        ),
        *(b"\x1b[31m", b"\x1b[", b";", b"1", b"m", b"J", b"\xd8", b"\x9c", b"\n", b"text", b"\x90", "ä€😀".encode()),
    ]
)
STREAMS = st.one_of(st.binary(max_size=80), st.lists(_PIECES, max_size=30).map(b"".join))


def _filtered(chunks: list[bytes]) -> bytes:
    terminal = TerminalFilter()
    return b"".join(terminal.feed(chunk) for chunk in chunks) + terminal.finish()


@given(STREAMS)
def test_nothing_but_colour_is_obeyed(data: bytes) -> None:
    """Every ESC that is left begins a colour; no other control is left but newline, return and tab; all is UTF-8."""
    rest = _SGR.sub(b"", _filtered([data])).decode()
    assert "\x1b" not in rest
    for character in rest:
        assert character in "\n\r\t" or unicodedata.category(character) != "Cc"
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }


@given(STREAMS, st.lists(st.integers(0, 300), max_size=6))
def test_cuts_change_nothing(data: bytes, places: list[int]) -> None:
    """However a stream is cut into chunks, the same comes out."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert _filtered(chunks) == _filtered([data])


@given(st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cf", "Cs")), max_size=60))
def test_text_passes(text: str) -> None:
    """Text without control and format characters is unchanged, lines and tabs included."""
    data = (text + "\r\n\t").encode()
    assert _filtered([data]) == data


@given(STREAMS)
def test_filtering_twice_is_filtering_once(data: bytes) -> None:
    """What came out is harmless: filtering it again changes nothing but the closing reset."""
    once = _filtered([data])
    assert _filtered([once]) in (once, once + b"\x1b[0m")


@given(st.text(alphabet=st.characters(), max_size=60))
def test_visible_is_one_harmless_line(text: str) -> None:
    """What `visible` returns is one line without any control, separator, bidi or surrogate character, and stays so."""
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert all(unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert not any(
        unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI"} for c in shown
    )
    assert visible(shown) == shown
    shown.encode()


def _read_back(shown: str) -> str:
    def restore(match: re.Match[str]) -> str:
        code = int(match.group(1) or match.group(2) or match.group(3), 16)
        return chr(code)

    return re.sub(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})", restore, shown)


@given(st.text(alphabet=st.characters(blacklist_characters="\\", blacklist_categories=("Cs",)), max_size=60))
def test_visible_can_be_read_back(text: str) -> None:
    """Nothing is lost: from text without backslashes, what was escaped can be read back."""
    assert _read_back(visible(text)) == text
