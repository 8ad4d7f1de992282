"""`airssys schema component|host`: JSON Schema of Component.toml and airssys.toml, for editors and generators."""

from __future__ import annotations

import argparse
import json

_EPILOG = """examples:
  airssys schema component > component.schema.json     an editor that knows TOML schemas completes and checks with it
  airssys schema host

Draft 2020-12, made from the readers themselves. It knows keys, types, choices and names; `airssys check` and
`airssys config check` know more: patterns, quantities, and what contradicts what.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `schema` command."""
    parser = subparsers.add_parser(
        "schema", help="print the JSON Schema of Component.toml or airssys.toml", epilog=_EPILOG
    )
    parser.add_argument(
        "which", choices=("component", "host"), metavar="component|host", help="Component.toml, or airssys.toml"
    )
    parser.add_argument("--json", action="store_true", help="as always; for errors, too")


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from supervisor.schema import component_schema, host_schema

    print(json.dumps(component_schema() if args.which == "component" else host_schema(), indent=2))
    return 0
