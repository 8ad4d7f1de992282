"""Archives (.tar, .tar.gz), as a stream of names and bytes. Takes bytes, returns values; writes nothing anywhere.

Written for what a package can be, and strict: regular files and directories, names in one form, sums that are right,
an end where the archive says so. What two programs could read differently is refused. POSIX pax and ustar (IEEE Std
1003.1, pax), GNU long names (tar's manual, "Basic Tar Format"), gzip with one member (RFC 1952).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

from ipc.struct import Struct

BLOCK_BYTES: Final = 512
CHUNK_BYTES: Final = 1 << 18
EXTENDED_MAX_BYTES: Final = 1 << 16
NAME_MAX_BYTES: Final = 4_000
SIZE_MAX_BYTES: Final = 2**62
"""More than any file has; what a package may have is far less, and not judged here."""
_ZEROS: Final = bytes(BLOCK_BYTES)
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
_OTHERS: Final = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK": "zip",
    b"\x1f\x9d": "compress",
}
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"K": "a link",
}
_UTF8: Final = "ISO-IR 10646 2000 UTF-8"

Read = Callable[[int], bytes]


class ArchiveError(Exception):
    """Nothing that is taken; the text says what and why."""


class Entry(Struct, frozen=True):
    """A regular file, or a directory; `path` without a leading `./` and without a directory's last `/`."""

    path: str
    is_directory: bool
    size_bytes: int


class ByteStream:
    """The archive's bytes, unpacked as they are asked for, and never more of them than `max_bytes`."""

    def __init__(self, read: Read, max_bytes: int) -> None:
        """`read` returns up to so many bytes of the file, b"" at its end."""
        self._read = read
        self._left_bytes = max_bytes
        self._packed = b""
        while len(self._packed) < 6 and (more := read(6)):
            self._packed += more
        self._gunzip = zlib.decompressobj(_GZIP_WINDOW) if self._packed.startswith(_GZIP) else None
        form = next((name for magic, name in _OTHERS.items() if self._packed.startswith(magic)), "")
        if form:
            raise ArchiveError(f"it is packed with {form}\na package is a .tar.gz or a .tar")

    def exactly(self, size_bytes: int) -> bytes:
        """Return so many bytes; raises ArchiveError where the archive ends before."""
        parts = []
        while size_bytes:
            part = self.some(size_bytes)
            if not part:
                raise ArchiveError("it is cut short")
            parts.append(part)
            size_bytes -= len(part)
        return b"".join(parts)

    def some(self, max_bytes: int) -> bytes:
        """Return at least one byte, b"" at the end; raises ArchiveError for a sum that is wrong, or too much."""
        data = self._unpacked(max_bytes) if self._gunzip is not None else self._plain(max_bytes)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ArchiveError("it unpacks to more than a package may have")
        return data

    def _plain(self, max_bytes: int) -> bytes:
        if self._packed:
            data, self._packed = self._packed[:max_bytes], self._packed[max_bytes:]
            return data
        return self._read(max_bytes)

    def _unpacked(self, max_bytes: int) -> bytes:
        assert self._gunzip is not None
        while not self._gunzip.eof:
            packed = self._packed or self._read(CHUNK_BYTES)
            if not packed:
                raise ArchiveError("it is cut short")
            try:
                data = self._gunzip.decompress(packed, max_bytes)
            except zlib.error:
                raise ArchiveError("it is damaged: gzip can't read on") from None
            self._packed = self._gunzip.unconsumed_tail
            if data:
                return data
        if self._gunzip.unused_data or self._packed or self._read(1):
            raise ArchiveError("something follows behind the end of the archive")
        return b""


class TarReader:
    """Goes through an archive once: `next_entry`, then all of `chunks`, and so on."""

    def __init__(self, stream: ByteStream, headers_max: int) -> None:
        """Read from the stream, no more than so many headers."""
        self._stream = stream
        self._headers_left = headers_max

    def next_entry(self) -> Entry | None:
        """Return the next file or directory, None at the end; raises ArchiveError."""
        while True:
            entry = self._entry()
            if entry is None or entry.path not in ("", "."):
                return entry
            if not entry.is_directory:
                raise ArchiveError("a file without a name")

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield the bytes of a file, whose size is that of the entry."""
        left = entry.size_bytes
        while left:
            chunk = self._stream.exactly(min(left, CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
        self._padding(entry.size_bytes)

    def _entry(self) -> Entry | None:
        path: str | None = None
        size_bytes: int | None = None
        extended: set[bytes] = set()
        while True:
            header = self._header()
            if header is None:
                if extended:
                    raise ArchiveError("it ends with a name that belongs to nothing")
                return None
            kind = header[156:157]
            if kind in (b"x", b"g", b"L"):
                if kind in extended:
                    raise ArchiveError("an entry has two extended headers of one kind")
                records = self._extended(header)
                if kind == b"g":
                    _refuse_global(_pax(records))
                    continue
                extended.add(kind)
                if kind == b"L":
                    if not records.endswith(b"\0"):  # where it ends otherwise is read differently
                        raise ArchiveError("a long name without an end")
                    path = _once(path, _text(_until_nul(records)))
                    continue
                pax = _pax(records)
                if "path" in pax:
                    path = _once(path, pax["path"])
                if "size" in pax:
                    size_bytes = _decimal(pax["size"])
                continue
            # With another name the header's own may be the beginning of that, cut in the middle of a character.
            path = _own_name(header) if path is None else path
            own_size_bytes = _number(header[124:136])
            return _judged(kind, path, own_size_bytes if size_bytes is None else size_bytes)

    def _header(self) -> bytes | None:
        """Return the next header whose sum is right; None at the end, after which there are zeros only."""
        self._headers_left -= 1
        if self._headers_left < 0:
            raise ArchiveError("it has more entries than a package may have")
        block = self._stream.exactly(BLOCK_BYTES)
        if block == _ZEROS:
            if self._stream.exactly(BLOCK_BYTES) != _ZEROS:
                raise ArchiveError("something follows behind the end of the archive")
            while more := self._stream.some(CHUNK_BYTES):
                if more.strip(b"\0"):
                    raise ArchiveError("something follows behind the end of the archive")
            return None
        if block[257:265] not in (_POSIX, _GNU):
            raise ArchiveError("this is no tar archive of a form that is read (ustar, pax, GNU)")
        if _number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            raise ArchiveError("it is damaged: a header's sum is wrong")
        return block

    def _extended(self, header: bytes) -> bytes:
        size_bytes = _number(header[124:136])
        if size_bytes > EXTENDED_MAX_BYTES:
            raise ArchiveError(f"an extended header of {size_bytes} bytes, at most {EXTENDED_MAX_BYTES} are read")
        data = self._stream.exactly(size_bytes)
        self._padding(size_bytes)
        return data

    def _padding(self, size_bytes: int) -> None:
        self._stream.exactly(-size_bytes % BLOCK_BYTES)


def _judged(kind: bytes, path: str, size_bytes: int) -> Entry:
    is_directory = kind == b"5"
    if not is_directory and kind not in (b"0", b"\0"):
        what = _REFUSED.get(kind, "an entry of an unknown kind")
        raise ArchiveError(f"{path[:200]}: {what}\na package holds files and directories only")
    if is_directory:
        if size_bytes:
            raise ArchiveError(f"{path[:200]}: a directory with a content of its own")
        path = path.removesuffix("/")
    if size_bytes > SIZE_MAX_BYTES:
        raise ArchiveError(f"{path[:200]}: larger than any file")
    return Entry(path.removeprefix("./"), is_directory, size_bytes)


def _own_name(header: bytes) -> str:
    """Return the name in the header itself; POSIX's form has a prefix, where GNU's has times that are seldom used."""
    name = _until_nul(header[:100])
    prefix = _until_nul(header[345:500])
    if prefix and header[257:265] == _GNU:
        raise ArchiveError("a name that could have something in front")
    return _text(prefix + b"/" + name if prefix else name)


def _until_nul(field: bytes) -> bytes:
    name, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise ArchiveError("a name with a NUL in it")
    return name


def _text(data: bytes) -> str:
    if len(data) > NAME_MAX_BYTES:
        raise ArchiveError("a name that is too long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ArchiveError(f"{data[:200].decode(errors='backslashreplace')}: its name is not UTF-8") from None


def _once(before: str | None, path: str) -> str:
    if before is not None:
        raise ArchiveError("an entry with two names")
    return path


def _number(field: bytes) -> int:
    """Return a number: octal digits, or base 256 behind a first bit that is set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40:
            raise ArchiveError("a number below zero")
        return value
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if digits.strip(b"01234567"):
        raise ArchiveError("it is damaged: a number isn't one")
    return int(digits, 8) if digits else 0


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ArchiveError("it is damaged: a size isn't a number")
    return int(text)


def _pax(records: bytes) -> dict[str, str]:
    """Return the keys of an extended header that change what a file is; raises ArchiveError for a sparse file's."""
    found: dict[str, str] = {}
    while records:
        digits, blank, _ = records[:8].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = records[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or length > len(records) or not equals or not value.endswith(b"\n"):
            raise ArchiveError("it is damaged: an extended header isn't one")
        records = records[length:]
        if key.startswith(b"GNU.sparse."):
            raise ArchiveError("a sparse file\na package holds files and directories only")
        if key in (b"path", b"size", b"hdrcharset"):
            name = key.decode()
            if name in found:
                raise ArchiveError("an entry with two names or sizes")
            found[name] = _text(value[:-1])
    if found.get("hdrcharset", _UTF8) != _UTF8:
        raise ArchiveError("names that aren't UTF-8")
    return found


def _refuse_global(records: dict[str, str]) -> None:
    if records:
        raise ArchiveError("a name or size for all entries at once")
