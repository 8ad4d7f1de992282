"""`airssys grants list|forget`: what was said yes to and is remembered, and taking it back."""

from __future__ import annotations

import argparse
import json
import os
import re

from ipc.errors import ConfigError
from supervisor.config.places import state_directory
from supervisor.config.settings_files import load_settings
from supervisor.grants.store import GrantStore, RememberedGrant
from supervisor.manifest.component_view import UsageError
from supervisor.terminal import visible

MIN_DIGEST_CHARACTERS = 6
_EPILOG = """examples:
  airssys grants list                      what is remembered, for which component, since when
  airssys grants forget log-summary        every answer for this component: it is asked again
  airssys grants forget 3f9a51             the one whose key or digest begins so (at least six digits)
  airssys grants forget --all

A yes is remembered for exactly these bytes of manifest and program and exactly what was asked.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `grants` command with its own two."""
    parser = subparsers.add_parser("grants", help="list and forget what was granted and is remembered", epilog=_EPILOG)
    commands = parser.add_subparsers(dest="grants_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="what is remembered", epilog="example: airssys grants list --json")
    forgetting = commands.add_parser(
        "forget", help="ask again", epilog="example: airssys grants forget log-summary 3f9a51"
    )
    forgetting.add_argument(
        "which", nargs="*", metavar="NAME|DIGEST", help="a component's name, or how a digest begins"
    )
    forgetting.add_argument("--all", action="store_true", help="everything that is remembered")
    for command in (listing, forgetting):
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--state-dir", metavar="DIR", help="where it is kept (or $AIRSSYS_STATE)")
        command.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


class NotRememberedError(ConfigError):
    """Nothing is remembered under that name or digest."""


def run(args: argparse.Namespace) -> int:
    """List, or forget."""
    store = open_store(args.state_dir, args.config)
    remembered = () if store is None else store.remembered_grants()
    if args.grants_command == "forget":
        return _forget(args, store, remembered)
    if args.json:
        print(json.dumps({"grants": [to_json(each) for each in remembered]}, indent=2))
        return 0
    if not remembered:
        print("nothing is remembered")
        return 0
    for each in remembered:
        print("\n".join(_lines(each)))
    return 0


def open_store(state_dir: str | None, config: str | None) -> GrantStore | None:
    """Return the store, None where nothing was ever remembered: reading makes no directory."""
    settings = load_settings(config, os.environ, os.geteuid())
    directory = os.path.join(state_directory(state_dir, os.environ, settings), "grants")
    return GrantStore(directory) if os.path.isdir(directory) else None


def _forget(args: argparse.Namespace, store: GrantStore | None, remembered: tuple[RememberedGrant, ...]) -> int:
    if args.all == bool(args.which):
        raise UsageError("forget what?", hint="name components or the beginnings of digests, or say --all")
    chosen = (
        remembered if args.all else tuple(dict.fromkeys(each for text in args.which for each in find(remembered, text)))
    )
    forgotten = [each for each in chosen if store is not None and store.forget(each.key)]
    if args.json:
        print(json.dumps({"forgotten": [to_json(each) for each in forgotten]}, indent=2))
        return 0
    for each in forgotten:
        print(f"forgotten: {visible(each.component or 'unknown')} {each.key[:12]}")
    print(f"{len(forgotten)} forgotten; what runs already goes on with what it was granted")
    return 0


def find(remembered: tuple[RememberedGrant, ...], text: str) -> tuple[RememberedGrant, ...]:
    """Return what was remembered for a component, else under a digest that begins so; raises ConfigError for none.

    A digest that several answers share (one program, asked twice) means all of them.
    """
    named = tuple(each for each in remembered if each.component == text)
    if named:
        return named
    if re.fullmatch(rf"[0-9a-f]{{{MIN_DIGEST_CHARACTERS},64}}", text):
        found = tuple(
            each
            for each in remembered
            if any(digest.startswith(text) for digest in (each.key, each.wasm_sha256, each.manifest_sha256))
        )
        if len({(each.component, each.wasm_sha256) for each in found}) > 1:
            raise UsageError(f"{text}: several digests begin so", hint="write more of it: airssys grants list")
        if found:
            return found
    hint = "what there is: airssys grants list"
    raise NotRememberedError(f"nothing is remembered for {visible(text)}", hint=hint)


def to_json(each: RememberedGrant) -> dict[str, object]:
    """Return one yes under stable keys."""
    return {
        "component": each.component or None,
        "key": each.key,
        "wasm_sha256": each.wasm_sha256 or None,
        "manifest_sha256": each.manifest_sha256 or None,
        "granted_at": each.granted_at or None,
        "grants": list(each.grants),
    }


def _lines(each: RememberedGrant) -> list[str]:
    program = f"  program {each.wasm_sha256[:12]}" if each.wasm_sha256 else ""
    when = each.granted_at.replace("T", " ").replace("Z", " UTC") or "at an unknown time"
    head = f"{each.component or 'an unknown component'}  {when}  key {each.key[:12]}{program}"
    return [visible(head), *(visible(f"  {grant}") for grant in each.grants)]
