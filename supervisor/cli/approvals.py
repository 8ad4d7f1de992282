"""`airssys approvals list|show|approve|reject|revoke|narrow|request`: what waits for an answer, and the answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.approvals.service import Document
from supervisor.cli import approvals_help as epilogs
from supervisor.cli.approval_words import maps, terms_of
from supervisor.cli.approvals_arguments import duration_s, number_of
from supervisor.cli.approvals_desks import Desk, desk_of
from supervisor.cli.approvals_offhost import (
    export,
    import_lines,
    print_manifest,
    read_import,
    register_offhost,
    show_file,
    sign_file,
)
from supervisor.cli.approvals_view import list_lines, narrowing_lines, outcome_lines
from supervisor.cli.approvals_where import in_place, where_words
from supervisor.cli.confirm import NoTerminalError, confirm, on_terminal
from supervisor.cli.review_view import OPEN, review_lines
from supervisor.config import places
from supervisor.config.settings_files import load_settings
from supervisor.config.toml_source import read_toml_bytes
from supervisor.config.units import counted
from supervisor.control.messages import DecideApproval
from supervisor.usage_error import UsageError

_PREVIEWS: Final = {"approve": "preview", "narrow": "preview-narrow"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `approvals` command with its own."""
    parser = subparsers.add_parser("approvals", help="see and answer what waits for approval", epilog=epilogs.EPILOG)
    commands = parser.add_subparsers(dest="approvals_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="what waits, and what is approved", epilog=epilogs.LIST_EPILOG)
    listing.add_argument("--all", action="store_true", help="what was answered or is over, too")
    show = commands.add_parser("show", help="one request, to be reviewed", epilog=epilogs.SHOW_EPILOG)
    approve = commands.add_parser("approve", help="say yes", epilog=epilogs.APPROVE_EPILOG)
    reject = commands.add_parser("reject", help="say no", epilog=epilogs.REJECT_EPILOG)
    revoke = commands.add_parser("revoke", help="take an approval back", epilog=epilogs.REVOKE_EPILOG)
    narrow = commands.add_parser("narrow", help="take a part of an approval back", epilog=epilogs.NARROW_EPILOG)
    anew = commands.add_parser("request", help="ask anew for what was refused", epilog=epilogs.REQUEST_EPILOG)
    register_offhost(commands)
    commands.add_parser("serve", help="answer approvers who can't open the state", epilog=epilogs.SERVE_EPILOG)
    for command in (show, approve, reject, revoke, narrow, anew):
        kind, form = ("ID|FILE", _number_or_file) if command is show else ("ID", number_of)
        told = "the number of the request" + (", or a file of `export` or `sign`" if command is show else "")
        command.add_argument("number", metavar=kind, type=form, help=told)
    for command in (show, approve):
        command.add_argument("--whole", action="store_true", help="all of it, not only what is different")
    show.add_argument("--manifest", action="store_true", help="its Component.toml, to make one for --narrow of it")
    for command in (approve, narrow):
        command.add_argument(
            "--narrow", metavar="FILE", help="a copy of its Component.toml that asks for less: grant that"
        )
        command.add_argument(
            "--without",
            action="append",
            default=[],
            metavar="ACTION:PATTERN",
            help="leave out one thing; may be repeated",
        )
        command.add_argument("--expires", metavar="DURATION", type=duration_s, help="how long it holds, such as 30d")
        command.add_argument("--yes", metavar="DIGEST", help="don't ask: how the digest begins that was reviewed")
    approve.add_argument("--once", action="store_true", help="for one start")
    for command in (approve, reject, revoke, narrow):
        command.add_argument("--reason", default="", metavar="TEXT", help="why, for the record and for who asked")
    for name, command in commands.choices.items():
        if name == "sign":
            continue
        if name not in ("serve", "export"):
            command.add_argument("--json", action="store_true", help="print one JSON document")
        if name != "serve":
            command.add_argument("--socket", metavar="PATH", help="ask the supervisor with this control socket")
        command.add_argument("--state-dir", metavar="DIR", help="where they are kept (or $AIRSSYS_STATE)")
        command.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


def _number_or_file(text: str) -> int | str:
    return number_of(text) if text.isdecimal() else text


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    if args.approvals_command == "serve":
        from supervisor.cli.approvals_serve import serve

        settings = load_settings(args.config, os.environ, os.getuid())
        return serve(settings, places.state_directory(args.state_dir, os.environ, settings), _say)
    if args.approvals_command == "sign":
        return sign_file(args)
    if args.approvals_command == "show" and isinstance(args.number, str):
        return show_file(args)
    where = where_words(args)
    try:
        return _answer(args, desk_of(args), where)
    except ConfigError as error:
        error.hint = in_place(error.hint, where)
        raise


def _answer(args: argparse.Namespace, desk: Desk, where: str) -> int:
    match args.approvals_command:
        case "list":
            document = desk.listed(args.all)
            _print(args, document, list_lines(document, args.all, desk.place, where))
        case "show":
            document = desk.shown(args.number)
            if args.manifest:
                print_manifest(document)
            else:
                lines = review_lines(document, args.whole, where=where)
                if os.getuid() == 0 and document["state"] in OPEN:
                    lines.append("root has no vote: who has says so by --socket, or by key (export, sign, import)")
                _print(args, document, lines)
        case "approve" | "narrow":
            return _approve(args, desk, where)
        case "export":
            export(args.output, desk.shown(args.number))
        case "import":
            document = desk.decided(DecideApproval("import", 0), read_import(args.file))
            _print(args, document, import_lines(document))
        case what:
            document = desk.decided(DecideApproval(what, args.number, reason=getattr(args, "reason", "")), b"")
            _print(args, document, outcome_lines(what, document, where))
    return 0


def _say(text: str) -> None:
    print(f"airssys: {text}", file=sys.stderr, flush=True)


def _print(args: argparse.Namespace, document: Document, lines: list[str]) -> None:
    print(json.dumps(document, indent=2) if args.json else "\n".join(lines))


def _approve(args: argparse.Namespace, desk: Desk, where: str) -> int:
    """Show what would be, ask, and have it done: an approval, or that a part of one is taken back."""
    what = args.approvals_command
    if what == "narrow" and not (args.narrow or args.without or args.expires):
        raise UsageError(
            "what is to be taken away?", hint="name it: --without ACTION:PATTERN, --narrow FILE, --expires"
        )
    narrow = b"" if args.narrow is None else read_toml_bytes(args.narrow, args.narrow)
    decision = DecideApproval(
        what=what,
        number=args.number,
        seen=args.yes or "",
        without=tuple(args.without),
        lifetime_s=args.expires or 0,
        once=what == "approve" and args.once,
        reason=args.reason,
    )
    if args.yes is None:
        # What is wrong with the request or the options is told first: that a terminal would help is told last.
        would_be = desk.decided(replace(decision, what=_PREVIEWS[what]), narrow)
        if not on_terminal():
            raise NoTerminalError(
                f"there is no terminal to ask on, and nothing is {what.removesuffix('e')}ed unseen",
                hint=f"review it (airssys approvals show {args.number}{where}), then name its digest: --yes DIGEST",
            )
        if what == "approve":
            lines = review_lines(would_be, args.whole or bool(narrow or args.without), True, where)
            question = _question(args.number, would_be)
            refused = (
                f"airssys: not approved: request {args.number} waits as before\n"
                f"  to refuse it: airssys approvals reject {args.number}{where} --reason TEXT"
            )
        else:
            lines = narrowing_lines(would_be)
            question, refused = "Take this away?", "airssys: nothing was taken away"
        print("\n".join(lines), file=sys.stderr)
        if not confirm(f"\n{question} [y/N] "):
            print(refused, file=sys.stderr)
            return NoTerminalError.exit_code
        # What was shown is what is approved: where it is another one by now, it is refused.
        decision = replace(decision, seen=str(would_be["review"]))
    after = desk.decided(decision, narrow)
    _print(args, after, outcome_lines(what, after, where))
    return 0


def _question(number: int, would_be: Document) -> str:
    """Return what is asked: to say yes to how much of it, and for how long."""
    asks = [ask for ask in maps(would_be, "asks") if ask["danger"]]
    left = sum(1 for ask in asks if not ask["granted"])
    whole = f"without {left} of {counted(len(asks), 'capability', 'capabilities')}" if left else "all that it asks for"
    return f"Approve request {number}, {whole}{terms_of(would_be)}?"
