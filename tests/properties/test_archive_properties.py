"""Properties of reading archives: what is written is read back, anything else is refused or is a package."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

from archives import END, entry, long_name, package, pax
from hypothesis import given
from hypothesis import strategies as st

from ipc.errors import PeerProtocolError
from ipc.package_stream import HEAD_BYTES, pack_head, unpack_head
from supervisor.packages.source import Source, parse_source, show_source
from supervisor.usage_error import UsageError
from worker.git_answers import GitError, read_references, read_tree
from worker.tar_reader import ArchiveError, ByteStream, TarReader

MOST_BYTES = 1 << 16
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
FORMS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
BASE = package(pax(("path", b"a" * 120), ("mtime", b"1.5")) + entry("x", b"y" * 700), entry("d/", kind=b"5"))
MIXED = package(
    pax(("path", b"a" * 120), ("mtime", b"1.5")) + entry("x", b"y" * 700),
    long_name(b"l" * 130) + entry("l" * 99, b"z", magic=b"ustar  \0"),
    entry("q", b"1", prefix=b"pre"),
    entry("b", b"123", size=b"\x80" + bytes(10) + b"\x03"),
)
HEADERS = [at for at in range(0, len(MIXED), 512) if MIXED[at + 257 : at + 262] == b"ustar"]
HEADER_BYTES = st.builds(
    int.__add__,
    st.sampled_from(HEADERS),
    st.integers(0, 99) | st.integers(124, 135) | st.integers(156, 264) | st.integers(345, 499),
)


def resummed(data: bytes) -> bytes:
    """Return an archive whose headers have the sums that they need."""
    made = bytearray(data)
    for at in HEADERS:
        made[at + 148 : at + 156] = b" " * 8
        made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    return bytes(made)


def read(data: bytes) -> list[tuple[str, bytes]]:
    """Return the files of an archive."""
    reader = TarReader(ByteStream(io.BytesIO(data).read, MOST_BYTES), 200)
    found = []
    while (each := reader.next_entry()) is not None:
        content = b"".join(reader.chunks(each))
        if not each.is_directory:
            found.append((each.path, content))
    return found


@given(st.dictionaries(PATHS, st.binary(max_size=1_200), max_size=6), FORMS)
def test_what_another_program_writes_is_read_back(files: dict[str, bytes], form: int) -> None:
    """Whatever the names and sizes, in both forms that can hold them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for path, data in files.items():
            header = tarfile.TarInfo(path)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    assert read(buffer.getvalue()) == [(path.removeprefix("./"), data) for path, data in files.items()]


@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 2 * len(BASE))
)
def test_a_damaged_archive_is_refused_or_read(changes: list[tuple[int, int]], length: int) -> None:
    """Any change anywhere leads to files within the bound, or to a refusal that is told; never to anything else."""
    data = bytearray(BASE)
    for at, value in changes:
        data[at] = value
    found: list[tuple[str, bytes]] = []
    with suppress(ArchiveError):
        found = read(bytes(data[:length]))
    assert sum(len(content) for _, content in found) <= MOST_BYTES


@given(st.lists(st.tuples(HEADER_BYTES, st.sampled_from(b"\0 0157Lxg./\x80\xff") | st.integers(0, 255)), max_size=4))
def test_what_is_read_is_what_another_program_reads(changes: list[tuple[int, int]]) -> None:
    """An archive with changed headers, and sums that are right, is refused, or has the same files for Python's library.

    Where that gives up, or takes a header that it doesn't understand for the end, there is nothing to compare.
    """
    data = bytearray(MIXED)
    for at, value in changes:
        data[at] = value
    with_sums = resummed(bytes(data))
    try:
        ours = read(with_sums)
        with tarfile.open(fileobj=io.BytesIO(with_sums)) as archive:
            files = [(each.name, archive.extractfile(each)) for each in archive.getmembers() if each.isreg()]
            theirs = [(name.removeprefix("./"), file.read()) for name, file in files if file is not None]
    except (ArchiveError, tarfile.TarError, ValueError):
        return
    assert ours[: len(theirs)] == theirs or any(path.endswith("/") for path, _ in ours)


@given(st.binary(max_size=300).map(lambda body: body.ljust(512, b"\0")), st.sampled_from([b"x", b"g", b"L"]))
def test_any_extended_header_is_refused_or_read(body: bytes, kind: bytes) -> None:
    """Records that nobody thought of."""
    with suppress(ArchiveError):
        assert len(read(entry("x", body.rstrip(b"\0"), kind) + entry("y", b"1") + END)) <= 1


@given(st.text(max_size=60) | st.from_regex(r"git\+(https|ssh|file)://[a-z@:/.#%~-]{0,40}", fullmatch=True))
def test_a_source_is_refused_or_shown_as_itself(text: str) -> None:
    """What is taken for a source is read from what is shown of it as the same."""
    try:
        source: Source = parse_source(text)
    except UsageError:
        return
    assert parse_source(show_source(source)) == source


@given(st.binary(max_size=400))
def test_whatever_git_says_is_read_or_refused(data: bytes) -> None:
    """Neither bytes nor text of any kind end in anything but an answer."""
    read_references(data)
    with suppress(GitError):
        assert all(file.size_bytes >= 0 for file in read_tree(data))


@given(st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES))
def test_any_head_is_one_or_garbage(data: bytes) -> None:
    """A head that is read is one that could have been written."""
    try:
        head = unpack_head(data)
    except PeerProtocolError:
        return
    assert pack_head(head.kind, "x" * head.text_bytes, head.size_bytes)[:HEAD_BYTES] == data
