"""`airssys schema component|host|wit|header`: what editors, generators and compilers need of us, as text."""

from __future__ import annotations

import argparse
import json
import os

_EPILOG = """examples:
  airssys schema component > component.schema.json     an editor that knows TOML schemas completes and checks with it
  airssys schema host
  airssys schema wit > wit/airssys-core.wit            what an actor is built against, in any language
  airssys schema header > actor.h                      the same as a C header, without any library

JSON Schemas are of draft 2020-12, made from the readers themselves. They know keys, types, choices and names; `airssys
check` and `airssys config check` know more: patterns, quantities, and what contradicts what.
"""
_FILES = {"wit": "airssys-core.wit", "header": "c/actor.h"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `schema` command."""
    parser = subparsers.add_parser(
        "schema", help="print the JSON Schema of a file of ours, or what an actor is built against", epilog=_EPILOG
    )
    parser.add_argument(
        "which",
        choices=("component", "host", *_FILES),
        metavar="component|host|wit|header",
        help="Component.toml, airssys.toml, the world of actors, or its C header",
    )
    parser.add_argument("--json", action="store_true", help="as always; for errors, too")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    if args.which in _FILES:
        print(world_text(_FILES[args.which]), end="")
        return 0
    from supervisor.config.schema import component_schema, host_schema

    print(json.dumps(component_schema() if args.which == "component" else host_schema(), indent=2))
    return 0


def world_text(name: str) -> str:
    """Return a file of `wit/`: from this package where it is installed, else from the checkout that it is in."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "wit", name)
    path = installed if os.path.exists(installed) else os.path.join(os.path.dirname(package), "wit", name)
    with open(path, encoding="utf-8") as stream:
        return stream.read()
