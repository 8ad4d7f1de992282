"""`[[approvals.automatic]]`: what a rule approves by itself, of what somebody who is named has signed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.machine import Refusal, State
from supervisor.approvals.narrowing import why_wider
from supervisor.approvals.request import Request, Voted
from supervisor.approvals.review import comparable, is_open, manifest_changes
from supervisor.config.approval_settings import AutomaticApproval, Signer
from supervisor.config.settings import Settings
from supervisor.packages.directory import read_directory, read_signatures
from supervisor.signing.package_signatures import verified_signers

_SEMVER: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


def approve_by_rule(
    ledger: Ledger, request: Request, settings: Settings, needs: int, keys: tuple[str, ...] | None
) -> Request:
    """Return an open request once a rule has approved it; as it is where none does.

    `keys` are those whose signatures of the package held when it was installed; None for what lies in a directory with
    its signatures. What somebody has said no to is for people alone, also when it was asked anew.
    """
    if not is_open(request) or max(request.needs, needs) > 1 or request.votes:
        return request
    found = ledger.approved(request.subject.identity)
    last = None if found is None else ledger.settled(found)
    if last is None or why_not_newer(last, request, settings) or ledger.kept.refused_s(request.subject.key) is not None:
        return request
    signer = rule = None
    keys = _signers_of(request) if keys is None else keys
    for rule in settings.approval_automatic:
        signer = named_signer(rule, keys, settings.approval_signers, ledger.now_s)
        if signer is not None:
            break
    if rule is None or signer is None:
        return request
    after = ledger.take(request, rule_vote(rule, signer, request, last, ledger.now_s))
    return request if isinstance(after, Refusal) else ledger.settled(after)


def why_not_newer(last: Request, request: Request, settings: Settings) -> str:
    """Return why a request isn't a newer version of what is approved that could do nothing more; empty where it is.

    What more is, the review of a request says (`supervisor.approvals.review`), and `airssys diff`: quotas, limits,
    environment and mounts count like capabilities. These are compared with what was granted, which may be less than
    what was asked.
    """
    if last.state is not State.APPROVED:
        return f"request {last.number} is {last.state}"
    old, new = (precedence(each.filed.facts.version) for each in (last, request))
    if old is None or new is None or new <= old:
        return "it is no newer version"
    granted, asked = comparable(last.granted, last.filed.facts), comparable(request.subject.asked, request.filed.facts)
    return why_wider(granted, asked) or _why_more(last, request, settings)


def _why_more(last: Request, request: Request, settings: Settings) -> str:
    changes = manifest_changes(last, request, settings)
    if changes is None:
        return "this version can't read one of the two manifests"
    return next((f"{each.kind} {each.what} is wider" for effect, each in changes if effect == "wider"), "")


def named_signer(rule: AutomaticApproval, keys: Sequence[str], signers: Sequence[Signer], now_s: int) -> Signer | None:
    """Return the signer whom a rule names, if one of these keys is theirs and counts now."""
    own = (each for each in signers if each.identity == rule.signer and not each.state(now_s))
    return next((each for each in own if each.key.text in keys), None)


def rule_vote(rule: AutomaticApproval, signer: Signer, request: Request, last: Request, now_s: int) -> Voted:
    """Return the yes of a rule: within the limits of what was approved last."""
    return Voted(
        at_s=now_s,
        uid=None,
        seen=request.review,
        needs=1,
        once=last.once,
        until_s=last.due_s,
        reason=f"asks for nothing more than request {last.number}, signed by {signer.key.fingerprint}",
        rule=f"automatic {rule.source}, signer {rule.signer}",
    )


def precedence(version: str) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]] | None:
    """Return by what versions are ordered (semver.org, 11); None for what is none."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        return None
    parts = [] if match[4] is None else match[4].split(".")
    # A number is less than a name, and a version before it is ready is less than the one that is.
    rest = tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)
    return (int(match[1]), int(match[2]), int(match[3])), match[4] is None, rest


def _signers_of(request: Request) -> tuple[str, ...]:
    """Return whose signature of exactly this package holds; none where it isn't there any more."""
    directory = request.filed.facts.directory
    try:
        contents = read_directory(directory)
        if contents.digest != request.subject.package:
            return ()
        return tuple(key.text for key in verified_signers(contents, read_signatures(directory)))
    except (ConfigError, OSError):
        return ()
