"""The amounts that a component may use, as a manifest asks for them and as a host sets them."""

from typing import Final

from ipc.struct import Struct


class Quota(Struct, frozen=True):
    """`[quota]`; None where nothing is written, `units.UNLIMITED` for `"unlimited"`."""

    storage_bytes: int | None = None
    message_rate_per_s: int | None = None
    network_bandwidth_bytes_per_s: int | None = None
    cpu_time_ns_per_s: int | None = None
    memory_bytes: int | None = None


NO_QUOTA: Final = Quota()
