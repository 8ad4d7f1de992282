"""`[approvals]` of airssys.toml: which starts take how many people, and who is told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipc.struct import Struct
from supervisor.config import units
from supervisor.config.approval_settings import ApprovalRule, AutomaticApproval
from supervisor.config.quota_reader import read_quota
from supervisor.config.toml_reader import Check, Section
from supervisor.manifest import checks

if TYPE_CHECKING:
    from supervisor.config.approval_settings import Signer

APPROVERS_MAX = 100
SAME_OR_NARROWER = "same-or-narrower"


class Approvals(Struct, frozen=True):
    """What the section says."""

    rules: tuple[ApprovalRule, ...]
    signers: tuple[Signer, ...]
    automatic: tuple[AutomaticApproval, ...]
    notify: str | None


def read_approvals(section: Section, check_family: Check) -> Approvals:
    """Return what it says; what is wrong is noted in the document."""
    rules = tuple(_rule(each, check_family) for each in section.array_of_sections("rules"))
    notify = section.optional_text("notify", checks.check_absolute_path)
    signers: tuple[Signer, ...] = ()
    of_signers = section.array_of_sections("signers")
    if of_signers:
        # Only here: on most hosts nobody signs, and then nothing of it is imported.
        from supervisor.approvals.signers import read_signers

        signers = read_signers(of_signers)
    automatic = tuple(_automatic(each, signers) for each in section.array_of_sections("automatic"))
    section.finish()
    return Approvals(rules, signers, automatic, notify or None)


def _automatic(section: Section, signers: tuple[Signer, ...]) -> AutomaticApproval:
    change = section.choice("change", (SAME_OR_NARROWER,), default=SAME_OR_NARROWER, required=True)
    signer = section.text("signer", required=True)
    if signer and all(each.identity != signer for each in signers):
        section.problem("signer", "an identity of [[approvals.signers]]", f'"{signer}"')
    source = str(section.document.source.origin((*section.path, "change")))
    section.finish()
    return AutomaticApproval(change, signer, source)


def _rule(section: Section, check_family: Check) -> ApprovalRule:
    when = section.texts("when", check_family, needed="the actions that need approval")
    over = read_quota(section.section("over"))
    review_ns = section.quantity("review", units.parse_duration_ns) or 0
    expires_ns = section.quantity("expires", units.parse_duration_ns)
    if expires_ns is not None and expires_ns <= max(review_ns, 10**9):
        least = "more than the review" if review_ns else "more than a second"
        section.problem("expires", least, units.format_duration(expires_ns))
    rule = ApprovalRule(
        when=when,
        approvers=section.integer("approvers", minimum=1, maximum=APPROVERS_MAX) or 1,
        broad=section.boolean("broad", default=False),
        over=over,
        review_ns=review_ns,
        expires_ns=expires_ns,
        source=str(section.document.source.origin((*section.path, "when"))),
    )
    section.finish()
    return rule
