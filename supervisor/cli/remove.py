"""`airssys remove NAME`: a name and its versions are gone; what it kept stays, unless that is to go too."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.packages.installed import ComponentName, Installed, choose_version, parse_name
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.cli.installing import Places
    from supervisor.packages.registry import Registry

_EPILOG = """examples:
  airssys remove log-summary                     every version of it, without its data
  airssys remove log-summary@acme --data         one instance, with its data
  airssys remove log-summary --version 1.0.0     one version, if it isn't the active one

What of it runs isn't removed: end it first. What was granted stays remembered for exactly its bytes: airssys grants.
Exit: 65 not installed, or something of it runs.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `remove` command."""
    from supervisor.cli.installing import add_place_options

    parser = subparsers.add_parser("remove", help="remove what is installed", epilog=_EPILOG)
    parser.add_argument("name", metavar="NAME", help="what is installed: NAME or NAME@INSTANCE")
    parser.add_argument("--version", dest="which", metavar="VERSION", help="this alone, or how its digest begins")
    parser.add_argument("--data", action="store_true", help="remove its ${data} as well")
    add_place_options(parser)


def run(args: argparse.Namespace) -> int:
    """Remove it, and say what stays."""
    from supervisor.cli.installing import places_of, recording
    from supervisor.cli.targets import open_registry
    from supervisor.host.identity import actor
    from supervisor.packages.installing import installed_event
    from supervisor.packages.store import InUseError, PackageStore

    if args.data and args.which is not None:
        raise ConfigError("--data is of all versions together", hint="leave out --version")
    where, called = places_of(args), parse_name(args.name)
    store = PackageStore(where.packages)
    with store.locked(), open_registry(where.state, called) as registry, recording(where) as record:
        gone = _chosen(registry, called, args.which)
        others = [each.digest for each in registry.all() if each not in gone]
        for each in gone:
            if each.digest not in others and store.is_used(each.digest):
                raise ConfigError(f"{called.text} {each.version} runs at the moment", hint="end what runs of it first")
        for each in gone:
            record(replace(installed_event("component_removed", each, None), actor=actor()))
        for digest in registry.remove(gone):
            with contextlib.suppress(InUseError):  # it was started a moment ago; its files go with the next change
                store.remove(digest)
    data = _data(args, where, called)
    if args.json:
        removed = [{"name": called.text, "version": each.version, "package": each.digest} for each in gone]
        print(json.dumps({"removed": removed, "data": data, "data_removed": bool(args.data and data)}, indent=2))
        return 0
    for each in gone:
        print(f"removed {called.text} {each.version}")
    if data and args.which is None:
        print(visible(f"removed its data: {data}" if args.data else f"its data stay: {data} (--data removes them too)"))
    return 0


def _chosen(registry: Registry, called: ComponentName, version: str | None) -> Sequence[Installed]:
    from supervisor.cli.targets import not_installed

    named = registry.named(called.name)
    versions = [each for each in named if each.instance == called.instance]
    if not versions:
        raise not_installed(called, [each.called.text for each in named])
    if version is None:
        return versions
    gone = choose_version(versions, version)
    if not gone:
        there = ", ".join(each.version for each in versions)
        raise ConfigError(f"{called.text} {visible(version)} is not installed", hint=f"there is {there}")
    if registry.active(called) in gone and len(gone) < len(versions):
        raise ConfigError(
            f"{called.text} {visible(version)} is the active one",
            hint=f"go to another one first: airssys rollback {called.text}",
        )
    return gone


def _data(args: argparse.Namespace, where: Places, called: ComponentName) -> str | None:
    """Return where its data are, None where there are none; removed where that is asked for."""
    from supervisor.config import places
    from supervisor.config.host_policy import data_directory
    from supervisor.host.clearing import remove_tree

    path = data_directory(places.with_data(where.settings, where.state), called.name, called.instance)
    if not os.path.isdir(path) or os.path.islink(path):
        return None
    if args.data:
        with contextlib.suppress(OSError):
            remove_tree(path)
    return path
