"""`airssys upgrade NAME [SOURCE]`: another version in the place of the active one, after a look at both."""

from __future__ import annotations

import argparse

from supervisor.packages.installed import parse_name

_EPILOG = """examples:
  airssys upgrade log-summary                      from where it was installed
  airssys upgrade log-summary ./log-summary-1.1.tar.gz     from elsewhere, where you say yes to that
  airssys upgrade log-summary --yes                a wider version, too, without a question
  airssys rollback log-summary                     back to what was active before

What was active stays installed. Where airssys up runs it, that takes the new version once it is approved, compiled and
healthy; until then, and if it isn't, the one before runs on. Upgrading again tries again.

Exit: 0 upgraded, or nothing newer is there; 65 bad input or not installed; 77 refused, wider and not granted, or the
version awaits approval where it runs; 1 it failed there; 75 it didn't take over within --wait.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `upgrade` command."""
    from supervisor.cli.installing import add_install_options

    parser = subparsers.add_parser("upgrade", help="install another version of what is installed", epilog=_EPILOG)
    parser.add_argument("name", metavar="NAME", help="what is installed: NAME or NAME@INSTANCE")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="from where (default: from where it was installed)")
    add_install_options(parser)


def run(args: argparse.Namespace) -> int:
    """Upgrade it."""
    from supervisor.cli.installing import install, places_of
    from supervisor.cli.targets import not_installed, open_registry

    where, called = places_of(args), parse_name(args.name)
    with open_registry(where.state, called) as registry:
        active = registry.active(called)
        if active is None:
            raise not_installed(called, [each.called.text for each in registry.named(called.name)])
    return install(args, where, args.source or active.source, called, upgrades=args.source is not None)
