"""What `[approvals]` of airssys.toml says, as values: the rules, and whose signed yes counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipc.struct import Struct
from supervisor.config.key_validity import why_not_valid
from supervisor.config.quota import NO_QUOTA, Quota

if TYPE_CHECKING:
    from supervisor.signing.keys import PublicKey


class ApprovalRule(Struct, frozen=True):
    """What takes an approval, by how many people, within which times. Every condition that is written has to hold."""

    when: tuple[str, ...]
    approvers: int
    broad: bool = False
    """Only patterns that cover more than a person can oversee (`supervisor.approvals.rules.is_broad`)."""
    over: Quota = NO_QUOTA
    """Only components that may use more than one of these."""
    review_ns: int = 0
    """The least time between request and approval."""
    expires_ns: int | None = None
    """How long a request waits for its answer."""
    source: str = ""
    """Where the rule is written."""


class AutomaticApproval(Struct, frozen=True):
    """A newer version that asks for nothing more, signed by who is named, is approved by this rule alone."""

    change: str
    signer: str
    """The identity of one of the signers."""
    source: str
    """Where the rule is written."""


class Signer(Struct, frozen=True):
    """A key, whose it is, and from when to when (UTC, in seconds) it counts; `uid` says that this is a user here."""

    index: int
    key: PublicKey
    identity: str
    uid: int | None = None
    valid_after_s: int | None = None
    valid_before_s: int | None = None
    revoked: bool = False

    def state(self, now_s: int) -> str:
        """Return why the key counts for nothing now; empty where it counts."""
        return why_not_valid(self.revoked, self.valid_after_s, self.valid_before_s, now_s)
