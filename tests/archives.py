"""Archives by hand, byte for byte: what no honest program writes, too."""

from __future__ import annotations

import gzip

BLOCK = 512
END = bytes(2 * BLOCK)
MANIFEST = b"""schema = 1
[component]
name = "thing"
version = "1.0.0"
wasm = "thing.wasm"
"""
WASM = b"\0asm\x01\0\0\0"


def entry(
    name: bytes | str,
    data: bytes = b"",
    kind: bytes = b"0",
    *,
    size: int | bytes | None = None,
    mode: int = 0o644,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """Return a header and what follows; `size` is what the header claims, where that isn't the length of `data`."""
    encoded = name.encode() if isinstance(name, str) else name
    claimed = len(data) if size is None else size
    number = claimed if isinstance(claimed, bytes) else b"%011o\0" % claimed
    fields = (
        encoded.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        number,
        b"00000000000\0",
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        magic,
        bytes(64),
        b"0000000\0" * 2,
        prefix.ljust(155, b"\0"),
    )
    header = b"".join(fields).ljust(BLOCK, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[str, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    data = b""
    for key, value in records:
        body = b" " + key.encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return entry("PaxHeaders/x", data, kind)


def long_name(name: bytes) -> bytes:
    """Return GNU's header of a long name."""
    return entry("././@LongLink", name + b"\0", b"L", magic=b"ustar  \0")


def package(*more: bytes) -> bytes:
    """Return a tar archive that holds a package, and more behind its files."""
    return entry("Component.toml", MANIFEST) + entry("thing.wasm", WASM) + b"".join(more) + END


def packed(tar: bytes) -> bytes:
    """Return it as a .tar.gz."""
    return gzip.compress(tar, 6, mtime=0)
