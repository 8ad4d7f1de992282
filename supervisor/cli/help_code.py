"""`airssys help CODE`: the page of a denial, limit or error code, from the code's own table."""

from __future__ import annotations

import argparse
import json

_EPILOG = """examples:
  airssys help A1203              what it means, and what to do
  airssys help --list             every code with its title
  airssys help --list --json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `help` command."""
    parser = subparsers.add_parser("help", help="explain a denial or error code such as A1203", epilog=_EPILOG)
    parser.add_argument("code", nargs="?", help="a code such as A1203; without one, all codes are listed")
    parser.add_argument("--list", action="store_true", help="every code with its title")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one code's page, or the list."""
    from ipc.codes import CODES, find_code
    from supervisor.cli.main import COMMANDS
    from supervisor.usage_error import UsageError

    if args.list and args.code is not None:
        raise UsageError("--list lists all codes; leave it out for the page of one")
    if args.code is None:
        if args.json:
            print(json.dumps({code: entry.title for code, entry in sorted(CODES.items())}, indent=2))
        else:
            print("\n".join(f"{code}  {entry.title}" for code, entry in sorted(CODES.items())))
        return 0
    page = find_code(args.code)
    if page is None:
        if args.code in COMMANDS:
            raise UsageError(f"{args.code} is a command and no code", hint=f"airssys {args.code} --help")
        raise UsageError(f"no code {args.code!r}", hint="`airssys help --list` lists them")
    if args.json:
        fields = {"code": page.code, "title": page.title, "explanation": page.explanation, "advice": page.advice}
        print(json.dumps(fields, indent=2))
        return 0
    print(f"{page.code}: {page.title}\n\n{page.explanation}\n\nWhat to do: {page.advice}")
    return 0
