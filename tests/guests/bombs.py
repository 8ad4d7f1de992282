"""WebAssembly that only a program can write: modules that are small on disk and dear to compile, load or keep.

As a script: `python bombs.py NAME > out.wasm`, with the names of the functions below. A test imports it by its path:
`spec_from_file_location("bombs", path)`. Every module is valid preview 1 (it exports `memory` and `_start`) unless its
function says otherwise.
"""

import sys

I32, I64 = 0x7F, 0x7E


def leb(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _section(number: int, body: bytes) -> bytes:
    return bytes([number]) + leb(len(body)) + body


def _vector(items: list[bytes]) -> bytes:
    return leb(len(items)) + b"".join(items)


def _name(text: str) -> bytes:
    return leb(len(text.encode())) + text.encode()


def _body(code: bytes, local_types: bytes = b"\x00") -> bytes:
    inner = local_types + code + b"\x0b"
    return leb(len(inner)) + inner


def module(bodies: list[bytes], *, memory_pages: int = 1) -> bytes:
    """A module of functions of type `() -> ()`; the last one is `_start`."""
    return (
        b"\0asm\1\0\0\0"
        + _section(1, _vector([b"\x60\x00\x00"]))
        + _section(3, _vector([b"\x00"] * len(bodies)))
        + _section(5, _vector([b"\x00" + leb(memory_pages)]))
        + _section(7, _vector([_name("memory") + b"\x02\x00", _name("_start") + b"\x00" + leb(len(bodies) - 1)]))
        + _section(10, _vector(bodies))
    )


def many_functions(count: int = 400_000) -> bytes:
    """Three bytes a function on disk, thousands in the compiler: takes gigabytes (1.2 MB on disk)."""
    return module([_body(b"")] * count)


def wide_function(statements: int = 400_000) -> bytes:
    """One function with a very long body: seconds of one thread and most of a gigabyte (6.8 MB on disk)."""
    step = b"\x20\x00\x42\x07\x7e\x42\x0d\x7c\x21\x00"  # local 0 = local 0 * 7 + 13
    store = b"\x41\x00\x20\x00\x37\x03\x00"
    return module([_body((step + store) * statements, _vector([b"\x01" + bytes([I64])]))])


def branch_tables(tables: int = 300, targets: int = 50_000) -> bytes:
    """br_table after br_table with many targets each: the control-flow graph is far larger than the bytes suggest."""
    table = b"\x02\x40\x41\x00\x0e" + leb(targets) + b"\x00" * targets + b"\x00\x0b"
    return module([_body(table)] * tables)


def nested_blocks(depth: int = 50_000) -> bytes:
    """Blocks within blocks, for a validator or compiler that recurses."""
    return module([_body(b"\x02\x40" * depth + b"\x0b" * depth)])


def many_locals(count: int = 50_000, functions: int = 50_000) -> bytes:
    """Each function declares as many locals as are allowed: takes minutes, in little memory (400 kB on disk)."""
    return module([_body(b"", _vector([leb(count) + bytes([I64])]))] * functions)


def many_types(count: int = 900_000) -> bytes:
    """So many types that only the module's tables are large; little is left to compile."""
    kinds = [
        b"\x60" + _vector([bytes([I32 - (n >> bit & 3)]) for bit in range(0, 20, 2)]) + b"\x00" for n in range(4096)
    ]
    return (
        b"\0asm\1\0\0\0"
        + _section(1, _vector([b"\x60\x00\x00"] + [kinds[n % 4096] for n in range(count)]))
        + _section(3, _vector([b"\x00"]))
        + _section(5, _vector([b"\x00\x01"]))
        + _section(7, _vector([_name("memory") + b"\x02\x00", _name("_start") + b"\x00\x00"]))
        + _section(10, _vector([_body(b"")]))
    )


def truncated(length: int = 100) -> bytes:
    """The beginning of a valid module: not valid itself."""
    return many_functions(100)[:length]


def long_names(length: int = 50_000) -> bytes:
    """An import with a very long name full of control characters and a terminal's escape sequences: not linkable."""
    nasty = ("\x1b]0;owned\x07\x1b[2K\r\n\u202e" * (length // 12))[:length]
    return (
        b"\0asm\1\0\0\0"
        + _section(1, _vector([b"\x60\x00\x00"]))
        + _section(2, _vector([_name(nasty) + _name("system") + b"\x00\x00"]))
        + _section(3, _vector([b"\x00"]))
        + _section(5, _vector([b"\x00\x01"]))
        + _section(7, _vector([_name("memory") + b"\x02\x00", _name("_start") + b"\x00\x01"]))
        + _section(10, _vector([_body(b"")]))
    )


BOMBS = {
    function.__name__: function
    for function in (
        many_functions,
        wide_function,
        branch_tables,
        nested_blocks,
        many_locals,
        many_types,
        truncated,
        long_names,
    )
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BOMBS:
        sys.exit(f"usage: bombs.py {'|'.join(BOMBS)} [NUMBER...] > out.wasm")
    sys.stdout.buffer.write(BOMBS[sys.argv[1]](*map(int, sys.argv[2:])))
