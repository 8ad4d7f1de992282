"""What the supervisor makes of a reader that was taken over: it judges what is said, and waits for nobody for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipc.package_stream import END, FILE, ORIGIN, PIECE, REFUSED, pack_head, pack_piece
from supervisor.host.namespaces import isolated_python, spawn
from supervisor.packages.contents import PackageError
from supervisor.packages.reader_process import ReaderProcess, SourceUnavailableError
from supervisor.packages.writing import PackageWriter

pytestmark = pytest.mark.any_user

MANIFEST = pack_head(FILE, "Component.toml", 4) + pack_piece(b"ab") + pack_piece(b"cd")


def listen(said: bytes, destination: Path, then: str = "", timeout_s: float = 20) -> tuple[str, PackageWriter]:
    """Let a process say this, and then do something more; return the origin it named, and what was written."""
    stream, output = os.pipe2(os.O_CLOEXEC)
    code = f"import os, signal, time\nos.write({output}, bytes.fromhex('{said.hex()}'))\n{then}"
    reader = ReaderProcess(spawn(isolated_python(code), (output,)), stream, timeout_s)
    os.close(output)
    writer = PackageWriter(str(destination))
    try:
        return reader.write_package(writer), writer
    finally:
        reader.close()


def test_an_honest_reader(tmp_path: Path) -> None:
    """The control: a file in two pieces, an origin, an end."""
    origin, writer = listen(MANIFEST + pack_head(ORIGIN, "c b") + pack_head(END), tmp_path)
    assert origin == "c b"
    assert [each.path for each in writer.finish()[0].files] == ["Component.toml"]
    assert (tmp_path / "Component.toml").read_bytes() == b"abcd"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (pack_head(FILE, "../x", 1) + pack_piece(b"x"), "plain path"),
        (pack_head(FILE, "/etc/passwd", 1) + pack_piece(b"x"), "plain path"),
        (pack_head(FILE, "x", 42 * 10**12), "larger than 2 GiB"),
        (MANIFEST + MANIFEST, "the same name"),
        (b"Z" + bytes(10), "what no reader says"),
        (b"F\xff\xff" + bytes(8), "what no reader says"),
        (pack_head(PIECE, "", 5) + b"12345", "what no reader says"),
        (pack_head(FILE, "x", 4) + pack_piece(b"12345"), "what no reader says"),
        (pack_head(FILE, "x", 4) + pack_head(PIECE), "what no reader says"),
        (pack_head(FILE, "x", 4) + pack_head(END), "what no reader says"),
        (pack_head(FILE, "x", 4) + pack_piece(b"1"), "ended without a word"),
        (b"", "ended without a word"),
        (pack_head(REFUSED, "because\nso"), "because"),
        (pack_head(FILE, "x", 4) + pack_piece(b"1") + pack_head(REFUSED, "because\nso", 65), "because"),
    ],
    ids=lambda value: value if isinstance(value, str) else "said",
)
def test_a_reader_that_lies(said: bytes, why: str, tmp_path: Path) -> None:
    """What no archive could have held isn't written, and what no reader says is no package."""
    destination = tmp_path / "destination"
    destination.mkdir()
    with pytest.raises(PackageError, match=why):
        listen(said, destination)
    assert os.listdir(tmp_path) == ["destination"]


def test_what_a_reader_says_is_made_harmless(tmp_path: Path) -> None:
    """Its last word reaches a terminal: escaped, and cut."""
    with pytest.raises(SourceUnavailableError) as refused:
        listen(pack_head(REFUSED, "\x1b[2J" + "x" * 4_000 + "\nhint\x07", 69), tmp_path)
    assert str(refused.value).startswith("\\x1b[2Jxxx")
    assert len(str(refused.value)) < 700
    assert "\x07" not in str(refused.value.hint)


def test_a_reader_that_dies_or_hangs(tmp_path: Path) -> None:
    """How it died is said; one that says nothing for too long is killed with what it started."""
    with pytest.raises(PackageError, match="ended by SIGSYS"):
        listen(b"", tmp_path, "os.kill(os.getpid(), 31)")
    with pytest.raises(SourceUnavailableError, match="too long"):
        listen(MANIFEST, tmp_path, "os.fork(); time.sleep(60)", timeout_s=0.5)
