"""`airssys pack DIR`: a package as one file, which is the same wherever it is made."""

from __future__ import annotations

import argparse
import json

from supervisor.cli.problems import print_problems
from supervisor.config.toml_source import ConfigFileError
from supervisor.config.units import counted
from supervisor.manifest import load_manifest
from supervisor.terminal import visible

_EPILOG = """examples:
  airssys pack ./log-summary                         log-summary-1.0.0.tar.gz in this directory
  airssys pack . -o ../log-summary.tar.gz            from within it
  airssys pack ./log-summary --json | jq -r .digest

What belongs to a package: every file of the directory but .git and .airssys. Its signatures (Component.sig) come along.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `pack` command."""
    parser = subparsers.add_parser("pack", help="make one file of a component directory", epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", help="a directory with a Component.toml")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: NAME-VERSION.tar.gz, here)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Write the bundle, and say which package it is."""
    try:
        manifest = load_manifest(args.directory)
    except ConfigFileError as error:
        return print_problems(error, args.json)
    from supervisor.packages.bundle import ENDING, pack

    component = manifest.component
    output = args.output or f"{component.name}-{component.version}{ENDING}"
    bundle = pack(args.directory, manifest, output)
    if args.json:
        document = {
            "path": bundle.path,
            "size_bytes": bundle.size_bytes,
            "sha256": bundle.sha256,
            "digest": bundle.digest,
            "files": bundle.files,
            "signed": bundle.is_signed,
            "name": component.name,
            "version": component.version,
        }
        print(json.dumps(document, indent=2))
        return 0
    signed = ", its signatures with it" if bundle.is_signed else ""
    print(f"packed {visible(component.name)} {visible(component.version)}: {visible(output)}")
    print(f"  {counted(bundle.files, 'file')}, {bundle.size_bytes} bytes{signed}")
    print(f"  package {bundle.digest}")
    return 0
