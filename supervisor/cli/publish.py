"""`airssys publish DIR oci://HOST/NAME:TAG`: a package, with its signatures, into a registry."""

from __future__ import annotations

import argparse
import json
import os
import sys

from supervisor.config.units import format_size
from supervisor.manifest import load_manifest
from supervisor.packages.oci_manifest import read_oci_reference
from supervisor.packages.publish_oci import publish_oci
from supervisor.terminal import visible

_EPILOG = """examples:
  airssys publish ./log-summary oci://registry.example.com/team/log-summary:1.0.0
  airssys publish ./log-summary oci://localhost:5000/log-summary:1.0.0 --json | jq -r .digest

Sign it first, if it shall be signed: Component.sig is published with it. What the registry has already isn't sent.
Credentials are those of `docker login`. TLS always, but for a registry on this machine.
Exit: 65 where DIR is no component, 69 where the registry can't be asked or refuses.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `publish` command."""
    parser = subparsers.add_parser("publish", help="push a component into an OCI registry", epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", help="a directory with a Component.toml")
    parser.add_argument("reference", metavar="oci://HOST/NAME:TAG", help="where to, and under which tag")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Check that it is a component, and publish it."""
    reference = read_oci_reference(args.reference)
    manifest = load_manifest(args.directory)
    shows = sys.stderr.isatty() and not args.json

    def progress(name: str, size_bytes: int) -> None:
        if shows:
            print(f"  {visible(name)} ({format_size(size_bytes)})", file=sys.stderr)

    published = publish_oci(os.path.realpath(args.directory), reference, progress, manifest.digest)
    component = manifest.component
    if args.json:
        document = {
            "name": component.name,
            "version": component.version,
            "reference": str(published.reference),
            "digest": published.digest,
            "package_digest": published.package_digest,
            "sent_bytes": published.sent_bytes,
        }
        print(json.dumps(document, indent=2))
        return 0
    print(f"published {component.name} {component.version}: {published.reference}")
    print(f"  by its digest, which never names another: oci://{reference.name}@{published.digest}")
    return 0
