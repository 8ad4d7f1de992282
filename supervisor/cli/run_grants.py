"""What a component is granted, and by whose word: approvals, flags, where it is from, an earlier yes, who is asked."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from ipc.policy.capability import Grant
from ipc.struct import Struct
from supervisor.cli.confirm import confirm, on_terminal
from supervisor.cli.start import ALONE, Start
from supervisor.code.compilation import Program
from supervisor.config.host_policy import ResolvedQuota
from supervisor.config.settings import Settings
from supervisor.grants.store import GrantStore, lasting_grants, read_package, request_key
from supervisor.host.host import Host
from supervisor.manifest import BoundManifest, ParameterValue
from supervisor.manifest.asks import describe_asks
from supervisor.terminal import folded, visible

if TYPE_CHECKING:
    from supervisor.approvals.asking import Approved
    from supervisor.approvals.reliance import Reliance
    from supervisor.cli.targets import InstalledPackage
    from supervisor.trust.judge import JudgedDirectory


_ON_A_SCREEN: Final = 20
_SHOWN_AGAIN: Final = 5


class GrantDecision(Struct, frozen=True):
    """What is granted, who said so, for which program's bytes (sha256; empty: any), and by which approval."""

    granted: tuple[Grant, ...]
    approval: str
    program_sha256: str = ""
    reliance: Reliance | None = None


def decide_grants(
    args: argparse.Namespace,
    host: Host,
    bound: BoundManifest,
    parameters: dict[str, ParameterValue],
    settings: Settings,
    quota: ResolvedQuota,
    judged: JudgedDirectory | None = None,
    installed: InstalledPackage | None = None,
    start: Start = ALONE,
) -> GrantDecision | None:
    """Return what is granted; None means refused.

    Of what is trusted nobody is asked: it is granted what it asks for. What its program will have to be is known
    of what is `installed`.
    """
    manifest = bound.manifest
    if not bound.grants:
        return GrantDecision((), "nothing asked")
    granted = bound.grants
    if args.grant not in (None, "asked"):
        from supervisor.grants.file import read_grant_file

        granted = read_grant_file(args.grant, manifest, parameters, bound.variables, os.getcwd(), os.path.realpath)
    if settings.approval_rules:
        from supervisor.cli.run_approval import approved_grants

        approved = approved_grants(host, settings, bound, quota, granted, judged, installed, start)
        if approved is not None:
            return _by_approval(approved)
    if args.grant is not None:
        return GrantDecision(granted, f"--grant {os.path.basename(args.grant)}")
    if judged is not None and judged.trusted:
        return GrantDecision(bound.grants, judged.decision.approval)
    program_sha256 = "" if installed is None else installed.program_sha256
    if not program_sha256:
        program = Program.open(manifest.wasm_path)
        program.close()
        program_sha256 = program.sha256
    lasting = lasting_grants(bound.grants, bound.variables.tmp)
    package = "" if installed is not None else read_package(bound.variables.component, bound.grants)
    key = request_key(manifest.digest, program_sha256, lasting, package)
    store = GrantStore(os.path.join(host.options.state_directory, "grants"))
    if store.remembered(key):
        return GrantDecision(bound.grants, "remembered", program_sha256)
    if not start.asks:
        from supervisor.cli.run_approval import approval_by_whoever_votes

        return _by_approval(approval_by_whoever_votes(host, settings, bound, judged, installed, start))
    if not on_terminal():
        from supervisor.cli.run_approval import approval_without_terminal

        found = approval_without_terminal(host, settings, bound, judged, installed, start)
        if not isinstance(found, str):
            return _by_approval(found)
        print(f"airssys: {manifest.component.name} asks for:", file=sys.stderr)
        _print_words(bound)
        _print_untrusted(judged)
        print(
            "airssys: not granted, and there is no terminal to ask on\n"
            f"  grant what it asks with --grant asked, or less with --grant FILE{found}",
            file=sys.stderr,
        )
        return None
    print(f"{manifest.component.name} {manifest.component.version} asks for:", file=sys.stderr)
    _print_words(bound)
    _print_untrusted(judged)
    if not confirm("Grant this? [y/N] ", host.signals):
        print("airssys: not granted; nothing was run", file=sys.stderr)
        return None
    store.remember(key, manifest.component.name, lasting, program_sha256, manifest.digest)
    return GrantDecision(bound.grants, "asked", program_sha256)


def _by_approval(approved: Approved) -> GrantDecision:
    return GrantDecision(approved.grants, approved.approval, approved.wasm_sha256, approved.reliance)


def _print_untrusted(judged: JudgedDirectory | None) -> None:
    """Say why it is asked about, on a host that trusts some."""
    if judged is not None:
        for words in (judged.decision.reason, *judged.notes):
            print(f"airssys: not trusted: {visible(words)}", file=sys.stderr)


def _print_words(bound: BoundManifest) -> None:
    asks = describe_asks(bound.manifest, bound)
    for ask in asks:
        why = f" - {ask.rationale}" if ask.rationale else ""
        _print_line(f"  [{ask.danger.word}] {ask.sentence}{why}")
    if len(asks) > _ON_A_SCREEN:
        # What stood first has left the screen by now: whoever packed it could have meant that.
        _print_line(f"airssys: these are {len(asks)}; the most dangerous of them once more:")
        for ask in asks[:_SHOWN_AGAIN]:
            _print_line(f"  [{ask.danger.word}] {ask.sentence}")


def _print_line(text: str) -> None:
    """Print a line of which somebody else has written a part."""
    line = visible(text)
    if sys.stderr.isatty():
        line = folded(line, os.get_terminal_size(sys.stderr.fileno()).columns or 80)
    print(line, file=sys.stderr)
