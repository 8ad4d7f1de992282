"""msgspec's structs: what every value and message of ours is made of. Import them from here.

A class of msgspec's is made in 30 µs, a frozen dataclass in 1 ms, and three processes of a run make a hundred each
(docs/adr/0007). msgspec takes typing_extensions where it is installed, which on Python 3.11 gives it nothing that
`typing` doesn't have, and costs each of these processes 25 ms. What it has for other formats, for looking into types
and for UUIDs (whose module asks which platform this is) is left out: 5 ms and half a megabyte of each process.
"""

from __future__ import annotations

import types

from ipc.imports import import_hollow, import_without


class _NoUUID:
    """What msgspec compares types with."""


with (
    import_without("typing_extensions"),
    import_hollow("uuid", UUID=_NoUUID, SafeUUID=types.SimpleNamespace(unknown=None)),
    import_hollow("msgspec.inspect", "msgspec.json", "msgspec.toml", "msgspec.yaml"),
):
    from msgspec import DecodeError, Struct, ValidationError, convert, field, to_builtins
    from msgspec.msgpack import Decoder as MsgpackDecoder
    from msgspec.structs import asdict, force_setattr, replace

__all__ = [
    "DecodeError",
    "MsgpackDecoder",
    "Struct",
    "ValidationError",
    "asdict",
    "convert",
    "field",
    "force_setattr",
    "replace",
    "to_builtins",
]
