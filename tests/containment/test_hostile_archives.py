"""Archives that were made to get out, unpacked as `airssys install` does it: a confined process reads, we write.

Each is refused and leaves nothing; the same archive without the trick is a package.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import END, MANIFEST, WASM, entry, long_name, package, packed, pax

from ipc.errors import ConfigError
from supervisor.packages import archive
from supervisor.packages.contents import Contents
from supervisor.packages.fetch import fetch
from supervisor.packages.source import ArchiveSource

pytestmark = pytest.mark.any_user

FORTY_TWO_TB = 42 * 10**12


def bomb(size_bytes: int) -> bytes:
    """Return an archive with one file of zeros, which takes a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(package(entry("zeros", size=size_bytes))[: -len(END)])]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size_bytes >> 20)]
    return b"".join((*parts, packer.compress(END), packer.flush()))


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "symbolic link": (lambda: package(entry("x", kind=b"2", link=b"/etc/passwd")), "x: a symbolic link"),
    "write through a link": (
        lambda: package(entry("d", kind=b"2", link=b"/tmp"), entry("d/airssys-was-here", b"1")),
        "d: a symbolic link",
    ),
    "hard link": (lambda: package(entry("x", kind=b"1", link=b"/etc/passwd")), "x: a hard link"),
    "parent": (lambda: package(entry("../../../../tmp/airssys-was-here", b"1")), "not a plain path"),
    "parent by an extended header": (
        lambda: package(pax(("path", b"../airssys-was-here")) + entry("x", b"1")),
        "not a plain path",
    ),
    "parent by a long name": (lambda: package(long_name(b"a/../../airssys-was-here") + entry("x")), "not a plain path"),
    "absolute": (lambda: package(entry("/tmp/airssys-was-here", b"1")), "not a plain path"),
    "case": (lambda: package(entry("THING.wasm", WASM)), "the same name as THING.wasm"),
    "forms of a character": (
        lambda: package(entry("é", b"1"), entry("e\u0301", b"2")),
        "the same name as",
    ),
    "nul": (lambda: package(entry(b"good\0../evil", b"1")), "NUL"),
    "nul by an extended header": (
        lambda: package(pax(("path", b"good\0evil")) + entry("x", b"1")),
        "can't be shown",
    ),
    "escape codes": (lambda: package(entry("\x1b[2J\x1b[1;1Hall is well", b"1")), "can't be shown"),
    "device": (lambda: package(entry("null", kind=b"3")), "null: a character device"),
    "fifo": (lambda: package(entry("pipe", kind=b"6")), "pipe: a FIFO"),
    "42 TB": (
        lambda: package(entry("huge", size=b"\x80" + FORTY_TWO_TB.to_bytes(11, "big"))),
        "larger than 2 GiB",
    ),
    "42 TB by an extended header": (
        lambda: package(pax(("size", str(FORTY_TWO_TB).encode())) + entry("huge", b"1")),
        "larger than 2 GiB",
    ),
    "sparse": (
        lambda: package(pax(("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"99999999999")) + entry("x", b"1")),
        "a sparse file",
    ),
    "bomb": (lambda: bomb(96 << 20), "unpacks to more than a package may have"),
    "headers without end": (
        lambda: package(pax(("mtime", b"1"), kind=b"g") * (archive.HEADERS_MAX + 1)),
        "more entries",
    ),
    "twice": (lambda: package(entry("thing.wasm", b"other")), "the same name as thing.wasm"),
    "file and directory": (lambda: package(entry("thing.wasm/x", b"1")), "the same name"),
    "git's directory": (lambda: package(entry(".git/hooks/post-checkout", b"1")), "no part of a package"),
    "signature of another kind": (
        lambda: package(entry("Component.sig", kind=b"2", link=b"/etc/shadow")),
        "a symbolic link",
    ),
    "behind the end": (lambda: package() + entry("late", b"1") + END, "follows behind the end"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_is_refused_and_leaves_nothing(attack: str, short_dir: Path) -> None:
    """It is named, nothing is written anywhere; without the trick it is a package."""
    make, why = ATTACKS[attack]
    data = make()
    place = short_dir / "hostile.tar.gz"
    place.write_bytes(data if data.startswith(b"\x1f\x8b") else packed(data))
    destination = short_dir / "destination"
    destination.mkdir()
    with pytest.raises(ConfigError, match=why) as refused:
        fetch(ArchiveSource(str(place)), str(destination))
    assert "\x1b" not in str(refused.value)
    assert os.listdir(destination) == []
    assert sorted(os.listdir(short_dir)) == ["destination", "hostile.tar.gz"]
    assert not os.path.lexists("/tmp/airssys-was-here")


def test_an_honest_archive_is_a_package(short_dir: Path) -> None:
    """The control of all of these, with a large file beneath the bounds and a name that needs an extended header."""
    name = "ä" * 60
    place = short_dir / "honest.tar.gz"
    large = entry("large", bytes(40 << 20))
    place.write_bytes(
        packed(package(pax(("path", name.encode())) + entry("x", b"1"), large, entry("bin", mode=0o6755)))
    )
    destination = short_dir / "destination"
    destination.mkdir()
    fetched = fetch(ArchiveSource(str(place)), str(destination))
    assert [each.path for each in fetched.contents.files] == ["Component.toml", "bin", "large", "thing.wasm", name]
    assert (destination / "Component.toml").read_bytes() == MANIFEST
    assert (destination / "bin").stat().st_mode & 0o7111 == 0
    assert fetched.provenance.url == str(place)
    assert fetched.provenance.kind == "archive"


def test_a_link_that_is_exchanged_meanwhile_names_no_other_place(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose bytes they are is where they were read, not where a link leads afterwards; one that stays is followed."""
    theirs, trusted, link = (short_dir / name for name in ("theirs.tar.gz", "trusted.tar.gz", "link.tar.gz"))
    theirs.write_bytes(packed(package(entry("evil", b"1"))))
    trusted.write_bytes(packed(package()))
    link.symlink_to(theirs)
    unpack = archive.unpack_archive

    def unpack_slowly(path: str, destination: str) -> tuple[Contents, bytes, str]:
        found = unpack(path, destination)
        link.unlink()
        link.symlink_to(trusted)
        return found

    monkeypatch.setattr(archive, "unpack_archive", unpack_slowly)
    for place, names in (
        (theirs, ["Component.toml", "evil", "thing.wasm"]),
        (trusted, ["Component.toml", "thing.wasm"]),
    ):
        destination = short_dir / place.name.removesuffix(".tar.gz")
        destination.mkdir()
        fetched = fetch(ArchiveSource(str(link)), str(destination))
        assert [each.path for each in fetched.contents.files] == names
        assert fetched.provenance.url == str(place)
