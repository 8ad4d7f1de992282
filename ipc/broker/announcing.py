"""What a warden and the broker tell each other over their channel, before a worker is connected.

Apart from the other orders: every warden knows them, and one without a broker needs nothing else of it.
"""

from __future__ import annotations

from ipc.messages import Message


class Connecting(Message, frozen=True):
    """Warden → broker: this worker is about to be given a connected socket."""

    instance: str


class Expected(Message, frozen=True):
    """Broker → warden: its key may shake hands now; `allowed` is False for one that is unknown or has a connection."""

    instance: str
    allowed: bool
