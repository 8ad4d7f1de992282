"""What goes wrong with the audit log, told apart by whether it can come back."""

from __future__ import annotations

from ipc.errors import AuditError


class AuditLogError(AuditError):
    """The log can't take records. `hint` is the command that helps; `fatal`: only a new process may try again."""

    def __init__(self, message: str, *, hint: str = "", fatal: bool = False) -> None:
        """Keep the sentence, the hint and whether this is the end."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fatal = fatal
