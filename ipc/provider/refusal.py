"""How a provider in Python answers with an error of its own words."""

from __future__ import annotations

from ipc.provider.protocol import ERRORS


class Refusal(Exception):  # noqa: N818 # an outcome: it becomes the component's error value
    """It isn't done; the component gets the error `kind` (one of `protocol.ERRORS`) with this reason."""

    def __init__(self, kind: str, reason: str) -> None:
        """Keep both; ValueError for a kind that there isn't."""
        if kind not in ERRORS:
            raise ValueError(f"{kind!r}: an error is one of {', '.join(ERRORS)}")
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
