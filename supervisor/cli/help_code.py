"""`airssys help CODE`: the page of a denial, limit or error code, from the code's own table."""

from __future__ import annotations

import argparse
import json
import sys

EX_USAGE = 64


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `help` command."""
    parser = subparsers.add_parser("help", help="explain a denial or error code", epilog="example: airssys help A1203")
    parser.add_argument("code", nargs="?", help="a code such as A1203; without one, all codes are listed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one code's page, or the list."""
    from ipc.codes import CODES

    if args.code is None:
        if args.json:
            print(json.dumps({code: entry.title for code, entry in sorted(CODES.items())}, indent=2))
        else:
            for code, entry in sorted(CODES.items()):
                print(f"{code}  {entry.title}")
        return 0
    page = CODES.get(args.code.upper())
    if page is None:
        print(f"airssys: no code {args.code!r}; `airssys help` lists them", file=sys.stderr)
        return EX_USAGE
    if args.json:
        fields = {"code": page.code, "title": page.title, "explanation": page.explanation, "advice": page.advice}
        print(json.dumps(fields, indent=2))
        return 0
    print(f"{page.code}: {page.title}\n\n{page.explanation}\n\nWhat to do: {page.advice}")
    return 0
