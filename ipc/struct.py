"""msgspec's structs: what every value and message of ours is made of. Import them from here.

A class of msgspec's is made in 30 µs, a frozen dataclass in 1 ms, and three processes of a run make a hundred each
(docs/adr/0007). msgspec takes typing_extensions where it is installed, which on Python 3.11 gives it nothing that
`typing` doesn't have, and costs each of these processes 25 ms.
"""

from __future__ import annotations

from ipc.imports import import_without

with import_without("typing_extensions"):
    from msgspec import Struct, ValidationError, convert, field, to_builtins
    from msgspec.structs import asdict, force_setattr, replace

__all__ = ["Struct", "ValidationError", "asdict", "convert", "field", "force_setattr", "replace", "to_builtins"]
