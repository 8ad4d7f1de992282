"""`airssys install SOURCE`: a component from where it is, into the store, under its name."""

from __future__ import annotations

import argparse

from supervisor.packages.installed import parse_name

_EPILOG = """examples:
  airssys install ./log-summary                        a directory with a Component.toml
  airssys install ./log-summary --as log-summary@acme  under a name of its own beside the other
  airssys install log-summary-1.0.0.tar.gz             an archive (airssys pack makes one)
  airssys install git+https://git.example.com/plugins.git@v1.0.0#log-summary
  airssys install oci://registry.example.com/plugins/log-summary:1.0.0
  airssys run log-summary                              asks what it may, once, then runs

Its files are copied, compiled and kept under their digest; where they came from is recorded by this command, and
nothing that a package says of its own origin is believed. Where the name is installed already it is an upgrade: the
difference is shown, and a wider version takes a yes. Exit: 65 bad input, 77 refused or not granted.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `install` command."""
    from supervisor.cli.installing import add_install_options

    parser = subparsers.add_parser("install", help="install a component under its name", epilog=_EPILOG)
    parser.add_argument(
        "source", metavar="SOURCE", help="DIR, FILE.tar.gz, git+https://HOST/PATH@REV#SUBDIR, oci://HOST/NAME:TAG"
    )
    parser.add_argument("--as", dest="called", metavar="NAME@INSTANCE", help="as which instance (default: as none)")
    add_install_options(parser)


def run(args: argparse.Namespace) -> int:
    """Install it."""
    from supervisor.cli.installing import install, places_of

    called = None if args.called is None else parse_name(args.called)
    return install(args, places_of(args), args.source, called)
