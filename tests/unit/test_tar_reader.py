"""Archives as a stream of names and bytes: what is taken, and what is refused by name. Each refusal has its control."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zlib

import pytest
from archives import BLOCK, END, MANIFEST, WASM, entry, long_name, package, packed, pax

from worker.tar_reader import EXTENDED_MAX_BYTES, ArchiveError, ByteStream, TarReader

FIRST = (("Component.toml", MANIFEST), ("thing.wasm", WASM))


def read(data: bytes, max_bytes: int = 1 << 24, headers_max: int = 1_000) -> list[tuple[str, bytes | None]]:
    """Return every file with its bytes, and every directory with None."""
    reader = TarReader(ByteStream(io.BytesIO(data).read, max_bytes), headers_max)
    found: list[tuple[str, bytes | None]] = []
    while (each := reader.next_entry()) is not None:
        found.append((each.path, None if each.is_directory else b"".join(reader.chunks(each))))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packing", ["", "gz"])
def test_what_pythons_own_library_writes_is_read(form: int, packing: str) -> None:
    """All three forms of tar, with long names where the form has them, packed and not."""
    files = {"Component.toml": MANIFEST, "a/b.wasm": bytes(700), f"{'d' * 90}/{'e' * 60}": b"x", "empty": b""}
    if form != tarfile.USTAR_FORMAT:
        files |= {f"{'f' * 200}/{'g' * 200}": b"y", "ä/ö": b"z"}
    buffer = io.BytesIO()
    with tarfile.open(None, f"w:{packing}", buffer, format=form) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            header = tarfile.TarInfo(f"./{name}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
        directory = tarfile.TarInfo("./dir/")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
    assert read(buffer.getvalue()) == [*files.items(), ("dir", None)]


def test_harmless_extensions_are_read_past() -> None:
    """Times, owners and extended attributes change nothing; a global comment is what forges put in front."""
    harmless = pax(("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"a\nb"), ("uid", b"0"))
    tar = pax(("comment", b"0123"), kind=b"g") + harmless + package()
    assert read(tar) == list(FIRST)
    assert read(packed(tar)) == list(FIRST)


def test_modes_and_set_id_bits_are_dropped() -> None:
    """An entry says nothing of a mode: whatever the header's, it is a file."""
    assert read(package(entry("x", b"1", mode=0o6777)))[2:] == [("x", b"1")]


def test_a_size_that_is_written_otherwise_is_read() -> None:
    """GNU's base 256 and pax's decimal are numbers, too."""
    tar = package(entry("x", b"123", size=b"\x80" + bytes(10) + b"\x03"), pax(("size", b"2")) + entry("y", b"45"))
    assert read(tar)[2:] == [("x", b"123"), ("y", b"45")]


REFUSED = {
    "symbolic link": (entry("x", kind=b"2", link=b"/etc/passwd"), "x: a symbolic link"),
    "hard link": (entry("x", kind=b"1", link=b"thing.wasm"), "x: a hard link"),
    "character device": (entry("x", kind=b"3"), "x: a character device"),
    "block device": (entry("x", kind=b"4"), "x: a block device"),
    "fifo": (entry("x", kind=b"6"), "x: a FIFO"),
    "contiguous": (entry("x", kind=b"7"), "unknown kind"),
    "sparse": (entry("x", kind=b"S", magic=b"ustar  \0"), "a sparse file"),
    "sparse by pax": (pax(("GNU.sparse.major", b"1")) + entry("x", b"1"), "a sparse file"),
    "volume": (entry("x", kind=b"V", magic=b"ustar  \0"), "unknown kind"),
    "long link": (entry("x", b"y", kind=b"K", magic=b"ustar  \0"), "a link"),
    "nul in a name": (entry(b"a\0b", b"1"), "NUL"),
    "nul in a long name": (long_name(b"a\0b") + entry("x", b"1"), "NUL"),
    "a long name without an end": (entry("x", b"name", b"L", magic=b"ustar  \0") + entry("x"), "without an end"),
    "not utf-8": (entry(b"\xff", b"1"), "not UTF-8"),
    "other characters": (pax(("hdrcharset", b"BINARY")) + entry("x"), "aren't UTF-8"),
    "two names": (long_name(b"a") + pax(("path", b"b")) + entry("x"), "two names"),
    "two extended headers": (pax(("path", b"b")) + pax(("path", b"c")) + entry("x"), "two extended headers"),
    "two paths in one": (pax(("path", b"b"), ("path", b"c")) + entry("x"), "two names"),
    "a path for all": (pax(("path", b"b"), kind=b"g") + entry("x"), "all entries at once"),
    "a header for nothing": (pax(("path", b"b")), "belongs to nothing"),
    "no name": (entry("./", b"1"), "without a name"),
    "a directory with bytes": (entry("d/", kind=b"5", size=512) + bytes(512), "a content of its own"),
    "larger than any file": (entry("x", size=b"\x80" + b"\xff" * 11), "larger than any file"),
    "larger by pax": (pax(("size", b"9" * 19)) + entry("x"), "larger than any file"),
    "below zero": (entry("x", size=b"\xff" * 12), "below zero"),
    "a nul before a number": (entry("x", b"1", size=b"\0" + b"0000000001\0"), "a number isn't one"),
    "a prefix in a form that has none": (entry("x", magic=b"ustar  \0", prefix=b"y"), "in front"),
    "a mixed form": (entry("x", magic=b"ustar 00"), "no tar archive"),
    "no number": (entry("x", size=b"12345678z\0\0\0"), "a number isn't one"),
    "no decimal": (pax(("size", b"-1")) + entry("x"), "a size isn't a number"),
    "a name without end": (pax(("path", b"x" * 5_000)) + entry("x"), "too long"),
    "an extended header without end": (entry("x", kind=b"x", size=EXTENDED_MAX_BYTES + 1), "are read"),
    "no records": (entry("x", b"nonsense", b"x") + entry("x"), "an extended header isn't one"),
    "a record beyond its end": (entry("x", b"99 a=b\n", b"x") + entry("x"), "an extended header isn't one"),
    "a record of nothing": (entry("x", b"0 a=b\n", b"x") + entry("x"), "an extended header isn't one"),
}


@pytest.mark.parametrize("trick", REFUSED)
def test_what_is_refused(trick: str) -> None:
    """Each is refused by name, packed or not; the same archive without it is read."""
    more, why = REFUSED[trick]
    for data in (package(more), packed(package(more))):
        with pytest.raises(ArchiveError, match=why):
            read(data)
    assert read(packed(package())) == list(FIRST)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"\x1f\x8b", "cut short"),
        (package()[:-1024], "cut short"),
        (package()[:700], "cut short"),
        (packed(package())[:-1], "cut short"),
        (packed(package())[:-8] + bytes(8), "damaged"),
        (packed(package()) + b"x", "follows behind"),
        (packed(package()) + packed(package()), "follows behind"),
        (package(END, entry("late", b"1")), "follows behind"),
        (package() + bytes(BLOCK) + b"x", "follows behind"),
        (package()[:-512] + entry("late", b"1"), "follows behind"),
        (b"BZh91AY&SY" + bytes(600), "packed with bzip2"),
        (b"\xfd7zXZ\0" + bytes(600), "packed with xz"),
        (b"PK\x03\x04" + bytes(600), "packed with zip"),
        (b"x" * 1024, "no tar archive"),
        (packed(b"x" * 1024), "no tar archive"),
        (package().replace(b"Component.toml", b"Component.tomm", 1), "damaged"),
    ],
)
def test_what_is_no_whole_archive(data: bytes, why: str) -> None:
    """Cut, damaged, continued behind its end, or another thing altogether."""
    with pytest.raises(ArchiveError, match=why):
        read(data)


def test_padding_of_zeros_is_no_content() -> None:
    """Archives are padded to whole records: zeros at their end say nothing."""
    assert read(package() + bytes(20 * BLOCK)) == list(FIRST)


def test_a_bomb_stops_at_the_bound() -> None:
    """A hundred MiB of zeros in a hundred kB: it stops at what was allowed, and holds little of it in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = entry("Component.toml", MANIFEST) + entry("x", size=100 << 20)
    bomb = packer.compress(head) + packer.compress(bytes(100 << 20)) + packer.compress(END) + packer.flush()
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="unpacks to more"):
            read_away(bomb, 10 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    read_away(bomb, 101 << 20)


def read_away(data: bytes, max_bytes: int) -> None:
    """Read an archive and keep nothing of it."""
    reader = TarReader(ByteStream(io.BytesIO(data).read, max_bytes), 100)
    while (each := reader.next_entry()) is not None:
        for _ in reader.chunks(each):
            pass


def test_entries_without_end_stop_at_the_bound() -> None:
    """A million directories, or extended headers alone, are more than is read."""
    for more in (entry("d/", kind=b"5"), pax(("mtime", b"1"), kind=b"g")):
        with pytest.raises(ArchiveError, match="more entries"):
            read(package(more * 100), headers_max=50)
        read(package(more * 10), headers_max=50)
