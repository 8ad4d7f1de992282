"""`airssys rollback NAME [VERSION]`: a name means again what it meant before."""

from __future__ import annotations

import argparse
import time

from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.packages.installed import choose_version, parse_name, previous
from supervisor.terminal import visible

_EPILOG = """examples:
  airssys rollback log-summary             to the version that was active before
  airssys rollback log-summary 1.0.0       to one that is installed; airssys list log-summary names them
  airssys rollback log-summary 3f9a51      to the one whose package's digest begins so

A second rollback goes back to where the first one came from. Where airssys up runs it, that takes the version once it
is approved, compiled and healthy; until then, and if it isn't, the one before runs on.

Exit: 65 not installed, or nothing to go back to; 77 the package was changed in the store, or the version awaits
approval; 1 it failed where it runs; 75 it didn't take over within --wait.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `rollback` command."""
    from supervisor.cli.installing import add_place_options
    from supervisor.cli.taking_version import add_running_options

    parser = subparsers.add_parser("rollback", help="go back to another installed version", epilog=_EPILOG)
    parser.add_argument("name", metavar="NAME", help="what is installed: NAME or NAME@INSTANCE")
    parser.add_argument("which", metavar="VERSION", nargs="?", help="to which (default: what was active before)")
    add_running_options(parser)
    add_place_options(parser)


def run(args: argparse.Namespace) -> int:
    """Go back."""
    from supervisor.cli.installing import places_of, recording, tell_running
    from supervisor.cli.taking_version import take_version
    from supervisor.cli.targets import not_installed, open_registry, trust_of
    from supervisor.host.identity import actor
    from supervisor.packages.installed_view import installed_json
    from supervisor.packages.installing import installed_event
    from supervisor.packages.store import PackageStore

    where, called = places_of(args), parse_name(args.name)
    store = PackageStore(where.packages)
    with store.locked(), open_registry(where.state, called) as registry:
        named = registry.named(called.name)
        versions = [each for each in named if each.instance == called.instance]
        active = registry.active(called)
        if active is None:
            raise not_installed(called, [each.called.text for each in named])
        there = ", ".join(f"{each.version} ({each.digest[:12]})" for each in versions)
        if args.which is None:
            chosen = previous([each.digest for each in registry.history(called)], versions)
            if chosen is None:
                raise ConfigError(f"{called.text}: no other version of it was active", hint=f"there is {there}")
        else:
            found = choose_version(versions, args.which)
            if len(found) != 1:
                what = "is not installed" if not found else "means several packages"
                raise ConfigError(f"{called.text} {visible(args.which)} {what}", hint=f"there is {there}")
            chosen = found[0]
        if chosen.digest != active.digest:
            store.open(chosen.digest).close()
            with recording(where) as record:
                record(replace(installed_event("component_activated", chosen, active), actor=actor()))
            registry.activate(chosen, time.time_ns(), actor())
    document: dict[str, object] = {
        "active": installed_json(chosen, trust_of(chosen, where.settings)),
        "before": {"version": active.version, "package": active.digest},
    }
    if not args.json and chosen.digest == active.digest:
        print(f"{called.text} {chosen.version} is active already")
    elif not args.json:
        print(f"{called.text} is {chosen.version} again, in the place of {active.version}")
    return tell_running(args, document, take_version(args, where.state, called))
