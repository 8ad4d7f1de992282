"""A start that waits for people, or that they have said no to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ipc.errors import ConfigError

if TYPE_CHECKING:
    from supervisor.approvals.request import Request


class AwaitingApprovalError(ConfigError):
    """It doesn't run before people have said yes; `request` says to what."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM
    kind: ClassVar[str] = "awaiting_approval"

    def __init__(self, request: Request, message: str, hint: str) -> None:
        """Keep the request."""
        super().__init__(message, hint=hint)
        self.request = request


class NotApprovedError(AwaitingApprovalError):
    """People have said no."""

    kind: ClassVar[str] = "not_approved"


class NobodyGrantedError(ConfigError):
    """It isn't granted what it asks, and there is nobody who could be asked."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


def several(errors: Sequence[AwaitingApprovalError]) -> AwaitingApprovalError:
    """Return one error for several components that are started together."""
    if len(errors) == 1:
        return errors[0]
    message = "\n".join(error.message for error in errors)
    return type(errors[0])(errors[0].request, message, errors[0].hint or "")
