"""What the broker says to its supervisor."""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Final

from ipc.channel import Channel
from ipc.errors import LocalProtocolError

_MAIL_MAX: Final = 10_000


class Mail:
    """What is said to the supervisor, in order; nobody waits for it."""

    def __init__(self, channel: Channel) -> None:
        """Speak over this channel, which somebody else reads."""
        self.channel = channel
        self.waiting: deque[tuple[object, int]] = deque()

    def send(self, message: object, descriptor: int = -1) -> None:
        """Say something, with a descriptor that is closed afterwards."""
        if len(self.waiting) >= _MAIL_MAX:
            raise LocalProtocolError("the supervisor reads nothing any more")
        self.waiting.append((message, descriptor))
        self.flush()

    def flush(self) -> None:
        """Send what waits and fits in."""
        while self.waiting and select.select([], [self.channel], [], 0)[1]:
            message, descriptor = self.waiting.popleft()
            self.channel.send(message, () if descriptor < 0 else (descriptor,))
            if descriptor >= 0:
                os.close(descriptor)
