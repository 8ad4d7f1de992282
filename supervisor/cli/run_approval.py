"""A start of a component directory that takes an approval, or has nobody whom it could ask."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ipc.errors import AuditError, ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals.asking import (
    Approved,
    Question,
    decide_by_approval,
    question_of,
    refusal_event,
)
from supervisor.approvals.errors import AwaitingApprovalError, NobodyGrantedError
from supervisor.approvals.reliance import Reliance, current
from supervisor.approvals.rules import Needed, needed
from supervisor.approvals.running import Held
from supervisor.approvals.store import ApprovalStore
from supervisor.approvals.subject import named
from supervisor.config import places
from supervisor.config.host_policy import ResolvedQuota
from supervisor.config.settings import Settings
from supervisor.host.host import Host
from supervisor.host.identity import actor
from supervisor.manifest import BoundManifest
from supervisor.report import shell_quoted
from supervisor.terminal import visible
from supervisor.trust.level import TrustLevel

if TYPE_CHECKING:
    from supervisor.approvals.evidence import Evidence
    from supervisor.cli.start import Start
    from supervisor.cli.targets import InstalledPackage
    from supervisor.trust.judge import JudgedDirectory

NOBODY_VOTES: Final = "name people in [control] approvers of airssys.toml"


def approved_grants(
    host: Host,
    settings: Settings,
    bound: BoundManifest,
    quota: ResolvedQuota,
    granted: Sequence[Grant],
    judged: JudgedDirectory | None,
    installed: InstalledPackage | None,
    start: Start,
) -> Approved | None:
    """Return what is approved, None where no rule wants an approval of this; raises AwaitingApprovalError.

    `judged` is what the reviewers are told of trust; it changes nothing in what is needed.
    """
    wanted = needed(settings.approval_rules, named(granted, bound.variables), quota)
    if wanted is None:
        return None
    try:
        question = question_about(bound, granted, wanted, judged, installed)
        return _decide(host, settings, question, bound, installed, start)
    except AwaitingApprovalError as error:
        host.record(refusal_event(error, actor()))
        if not _somebody_has_a_vote(settings):
            error.hint = f"nobody has a vote here: {NOBODY_VOTES}"
        elif os.getuid() == 0 and settings.control.approvers and not start.supervised:
            error.hint = f"{error.hint}; approvers answer by --socket of airssys up, or of airssys approvals serve"
        raise


def approval_without_terminal(
    host: Host,
    settings: Settings,
    bound: BoundManifest,
    judged: JudgedDirectory | None,
    installed: InstalledPackage | None,
    start: Start,
) -> Approved | str:
    """Return what is approved where nobody can be asked now; else what became of asking for it, in lines."""
    try:
        return approval_by_whoever_votes(host, settings, bound, judged, installed, start)
    except NobodyGrantedError:
        return ""
    except AwaitingApprovalError as error:
        return f"\n  {visible(error.message)}\n  {visible(error.hint or '')}"
    except ConfigError as error:
        return f"\n  nor can an approval be asked for: {visible(error.message)}"


def approval_by_whoever_votes(
    host: Host,
    settings: Settings,
    bound: BoundManifest,
    judged: JudgedDirectory | None,
    installed: InstalledPackage | None,
    start: Start,
) -> Approved:
    """Return what is approved; raises AwaitingApprovalError, or NobodyGrantedError where nobody could approve it."""
    if not _somebody_has_a_vote(settings):
        raise NobodyGrantedError("nobody granted what it asks for, and nobody has a vote here", hint=NOBODY_VOTES)
    question = question_about(bound, bound.grants, Needed(), judged, installed)
    return _decide(host, settings, question, bound, installed, start)


def question_about(
    bound: BoundManifest,
    granted: Sequence[Grant],
    wanted: Needed,
    judged: JudgedDirectory | None,
    installed: InstalledPackage | None,
) -> Question:
    """Return what a start asks; raises ConfigError where that isn't the package that was `judged`."""
    trust: TrustLevel = "unknown" if judged is None else judged.decision.level
    if installed is None:
        question = question_of(bound, granted, wanted, trust)
        contents = None if judged is None else judged.contents
        if contents is not None and contents.digest != question.subject.package:
            directory = visible(bound.manifest.directory)
            raise ConfigError(f"{directory}: changed while it was found out whether it is trusted", hint="try again")
        return question
    own = installed.installed
    question = question_of(bound, granted, wanted, trust, own.instance, installed.package.contents)
    return replace(question, signers=own.signers)


def _somebody_has_a_vote(settings: Settings) -> bool:
    from supervisor.control.roles import own_roles

    roles = own_roles(settings.control)
    named = roles.approving_users or roles.approving_groups or settings.approval_signers
    return os.getuid() != 0 or bool(named)


def _decide(
    host: Host,
    settings: Settings,
    question: Question,
    bound: BoundManifest,
    installed: InstalledPackage | None,
    start: Start,
) -> Approved:
    options = host.options
    store = ApprovalStore(options.state_directory, options.audit_directory, host.record)
    found_by_default = places.state_directory(None, os.environ, settings) == options.state_directory
    where = "" if found_by_default else f" --state-dir {shell_quoted(options.state_directory)}"

    def hold(reliance: Reliance) -> Reliance:
        if start.supervised:
            return reliance
        held = Held(store.directory, reliance)
        host.at_end(held.close)
        return replace(reliance, descriptor=held.descriptor)

    def gather() -> Evidence:
        # Only here: most starts file nothing.
        from supervisor.approvals.gathering import gather_evidence

        record = None if installed is None else installed.installed
        package, wasm_sha256 = question.subject.package, question.facts.wasm_sha256
        state, interrupted = options.state_directory, start.interrupted
        return gather_evidence(bound.manifest, package, wasm_sha256, record, settings, state, interrupted)

    own = bound.variables
    return decide_by_approval(store, question, settings, where, os.getuid(), own, hold, gather, start.standing)


def note_over(host: Host, reliance: Reliance) -> None:
    """Have it on record that an approval was over when its run was ended for that: whatever the clock says since."""
    store = ApprovalStore(host.options.state_directory, host.options.audit_directory, host.record)
    # Where that can't be, whoever looks at it next does it by the clock.
    with contextlib.suppress(ConfigError, AuditError), store.open() as ledger:
        request = ledger.request(reliance.number)
        if request is not None:
            ledger.note_time(current(reliance).until_s or 0)
            ledger.settled(request)
