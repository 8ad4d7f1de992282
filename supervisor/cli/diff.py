"""`airssys diff OLD NEW`: what a component could do more in its new version, what less, and what else is different."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.cli.targets import Target, open_target
from supervisor.code.compilation import Program
from supervisor.config import places
from supervisor.config.host_policy import resolve_quota
from supervisor.config.settings import Settings
from supervisor.config.settings_files import load_settings
from supervisor.config.toml_source import read_toml_bytes
from supervisor.config.units import counted
from supervisor.manifest import Manifest, Request, load_manifest, parse_manifest
from supervisor.manifest.asks import describe_ask
from supervisor.manifest.component_view import ComponentView, UsageError, view_manifest
from supervisor.manifest.diff import Change, ManifestDiff, Version, compare
from supervisor.report import paint
from supervisor.terminal import visible

EX_WIDER = 1
_EPILOG = """examples:
  airssys diff ./log-summary-1.0 ./log-summary-1.1          before you let a new version in
  airssys diff old/Component.toml new/Component.toml        the manifests alone
  airssys diff log-summary ./log-summary-1.1                what is installed, and what would take its place
  airssys diff ./old ./new --json | jq '.wider[].what'

Exit: 0 the same, narrower, or different only in what gives it nothing; 1 wider; 65 bad input. What can't be proven to
be covered by the old version counts as wider; so do new environment variables, secrets, mounts and imports, and a new
name.
"""


class Side(Struct, frozen=True):
    """One of the two, as read."""

    view: ComponentView
    wasm_sha256: str | None
    wasm_path: str | None


class Comparison(Struct, frozen=True):
    """Two versions, what is different, and what wasn't compared."""

    old: Side
    new: Side
    found: ManifestDiff
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return it as a person reads it."""
        return _lines(self.old, self.new, self.found, self.notes)

    def to_json(self) -> dict[str, object]:
        """Return it under stable keys."""
        return _to_json(self.old, self.new, self.found, self.notes)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `diff` command."""
    parser = subparsers.add_parser("diff", help="say what a new version of a component could do more", epilog=_EPILOG)
    parser.add_argument("old", metavar="OLD", help="an installed NAME, a component directory, or a manifest")
    parser.add_argument("new", metavar="NEW", help="the same, of the new version")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml, for quotas that aren't written")


def run(args: argparse.Namespace) -> int:
    """Print the differences; 1 where the new version could do more."""
    settings = load_settings(args.config, os.environ, os.geteuid())
    with open_target(args.old, None, args.config) as old, open_target(args.new, None, args.config) as new:
        state = places.state_directory(None, os.environ, settings)
        compared = compare_versions(read_side(old, settings), read_side(new, settings), settings, state)
    print(json.dumps(compared.to_json(), indent=2) if args.json else "\n".join(compared.lines()))
    return EX_WIDER if compared.found.wider else 0


def compare_versions(old: Side, new: Side, settings: Settings, state: str) -> Comparison:
    """Compare two versions as this host would run them."""
    notes: list[str] = []
    imports = _imports(old, new, notes, state)
    found = compare(_version(old, imports[0], settings), _version(new, imports[1], settings))
    return Comparison(old, new, found, tuple(notes))


def read_manifest(path: str) -> tuple[Manifest, bool]:
    """Read the manifest of a directory, or the one that is named; whether its program belongs to it."""
    if os.path.isdir(path):
        return load_manifest(path), True
    if not os.path.exists(path):
        raise ConfigError(f"{visible(path)}: no such file or directory")
    if path.endswith(".wasm"):
        raise UsageError(f"{visible(path)}: a bare program has no manifest", hint="airssys show tells what it imports")
    directory = os.path.dirname(os.path.realpath(path))
    return parse_manifest(read_toml_bytes(path, path), file=path, directory=directory), False


def read_side(target: Target, settings: Settings) -> Side:
    """Read one of the two: a directory, a manifest alone, or what is installed."""
    manifest, with_program = read_manifest(target.path)
    view = view_manifest(manifest, {}, settings, target.instance)
    if not with_program:
        return Side(view, None, None)
    program = Program.open(manifest.wasm_path)
    program.close()
    return Side(view, program.sha256, manifest.wasm_path)


def _imports(old: Side, new: Side, notes: list[str], state: str) -> Sequence[tuple[str, ...] | None]:
    """What both programs import, as confined processes found it; the same bytes import the same."""
    if old.wasm_path is None or new.wasm_path is None:
        notes.append("the imports of the programs were not compared: a manifest alone was named")
        return None, None
    if old.wasm_sha256 == new.wasm_sha256:
        return (), ()
    from supervisor.code.inspect import inspect_wasm

    found = []
    for path in (old.wasm_path, new.wasm_path):
        summary = inspect_wasm(path, state)
        if summary.error:
            raise ConfigError(f"{visible(path)}: {summary.error}")
        found.append(summary.imports)
    return found


def _version(side: Side, imports: tuple[str, ...] | None, settings: Settings) -> Version:
    quota = resolve_quota(side.view.manifest, settings, side.view.instance).quota
    return Version(side.view.manifest, quota, side.wasm_sha256, imports)


_Words = Mapping[Request, tuple[int, str, str]]


def _words_of(view: ComponentView) -> _Words:
    """How dangerous each capability is (number and word), and what it means, as `airssys check` says it."""
    pairs = zip(view.manifest.requests(), view.bound.grants, strict=True)
    asks = ((request, describe_ask(request, grant, view.bound, view.unset)) for request, grant in pairs)
    return {request: (int(ask.danger), ask.danger.word, ask.sentence) for request, ask in asks}


def _lines(old: Side, new: Side, found: ManifestDiff, notes: Sequence[str]) -> list[str]:
    components = [side.view.manifest.component for side in (old, new)]
    names = [f"{component.name} {component.version}" for component in components]
    lines = [visible(f"{names[0]} → {names[1]}: {found.verdict}")]
    for title, colour, changes, view in (
        ("it could do more:", "31", found.wider, new.view),
        ("it could do less:", "32", found.narrower, old.view),
        ("also different:", "0", found.changed, new.view),
    ):
        if changes:
            words = _words_of(view)
            described = sorted((_line(change, words) for change in changes), key=lambda pair: -pair[0])
            lines += ["", paint(title, colour, sys.stdout), *(line for _, line in described)]
    kept = len(found.same)
    lines += ["", f"the same: {counted(kept, 'capability', 'capabilities')}"]
    return [*lines, *notes]


def _line(change: Change, words: _Words) -> tuple[int, str]:
    if change.request is not None:
        danger, word, sentence = words[change.request]
        place = f"  ({change.what}, line {change.line})"
        return danger, visible(f"  {word:<8}  {sentence}{place}")
    old, new = ("nothing" if side is None else side for side in (change.old, change.new))
    if change.kind == "limit":
        old, new = ("no limit" if side is None else side for side in (change.old, change.new))
    what = change.what if change.kind in ("limit", "other", "name", "capability") else f"{change.kind} {change.what}"
    # Behind the capabilities: none of these opens anything by itself.
    return -1, visible(f"  {what}" if change.kind == "import" else f"  {what}: {old} → {new}")


def _to_json(old: Side, new: Side, found: ManifestDiff, notes: Sequence[str]) -> dict[str, object]:
    def side_of(side: Side) -> dict[str, object]:
        manifest = side.view.manifest
        return {
            "name": manifest.component.name,
            "version": manifest.component.version,
            "manifest_sha256": manifest.digest,
            "wasm_sha256": side.wasm_sha256,
        }

    def changes_of(changes: Sequence[Change], view: ComponentView) -> list[dict[str, object]]:
        documents: list[dict[str, object]] = []
        words = _words_of(view)
        for change in changes:
            _, danger, sentence = words[change.request] if change.request is not None else (0, None, None)
            documents.append(
                {
                    "kind": change.kind,
                    "what": change.what,
                    "old": change.old,
                    "new": change.new,
                    "line": change.line or None,
                    "danger": danger,
                    "sentence": sentence,
                }
            )
        return documents

    return {
        "verdict": found.verdict,
        "old": side_of(old),
        "new": side_of(new),
        "wider": changes_of(found.wider, new.view),
        "narrower": changes_of(found.narrower, old.view),
        "changed": changes_of(found.changed, new.view),
        "same": changes_of(found.same, new.view),
        "notes": list(notes),
    }
