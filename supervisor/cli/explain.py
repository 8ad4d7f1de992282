"""`airssys explain TARGET ACTION RESOURCE`: would this be allowed, by which rule, and if not, what came nearest.

`airssys explain --event SEQ` answers the same of what is in the audit log (`supervisor.cli.explain_event`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from ipc.policy.capability import FILE_ACTIONS, is_action
from ipc.policy.decision import Allow, Decision, compile_policy
from ipc.policy.rules import NOT_GRANTED
from supervisor.cli.targets import open_target
from supervisor.grants.remedy import what_would_allow
from supervisor.manifest import not_enforced
from supervisor.manifest.component_view import ComponentView, UsageError, parse_assignments, view_component
from supervisor.terminal import visible

EX_NOPERM = 77
_EPILOG = """examples:
  airssys explain ./log-summary filesystem.read /var/log/app/a.log --set logs=/var/log/app
  airssys explain ./log-summary filesystem.write out.json
  airssys explain ./fetcher network.connect 'GET https://api.example.com/v1/items'
  airssys explain log-summary filesystem.read /srv/a.log      of what is installed under that name
  airssys explain --event 48211             why that was decided, by the policy that was in force then

Exit: 0 allowed, 77 denied, 64 wrong usage. The answer is the policy's, with everything granted that the manifest asks
for; where it allows, the operating system may still refuse (missing file, ownership). With --event: 0 explained, 65 no
such event or its policy isn't kept, 73 the log can't be read.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `explain` command."""
    parser = subparsers.add_parser(
        "explain",
        help="say whether an action would be allowed, and by which rule",
        epilog=_EPILOG,
        usage="airssys explain TARGET ACTION RESOURCE [options]\n       airssys explain --event SEQ [options]",
    )
    parser.add_argument("target", metavar="TARGET", help="a directory with a Component.toml, or an installed NAME")
    parser.add_argument("action", metavar="ACTION", help="such as filesystem.read")
    parser.add_argument("resource", metavar="RESOURCE", help="a path of this host, or a name in the action's own form")
    parser.add_argument("--event", action=_Event, metavar="SEQ", help="the number of a record of the audit log")
    parser.add_argument("--audit-log", metavar="DIR", help="where the log is (with --event)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


class _Event(argparse.Action):
    """The number of a record, which stands in place of the three words; `nargs="?"` would split those at an option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        """Check the number, and require no words any more."""
        text = str(values)
        if not (text.isascii() and text.isdecimal() and len(text) < 17 and int(text)):
            parser.error(f"argument {option_string}: expected the number of a record, got {text!r}")
        for action in parser._get_positional_actions():
            action.required = False
        setattr(namespace, self.dest, int(text))


def run(args: argparse.Namespace) -> int:
    """Print the decision; 0 where it is allowed, 77 where it is not."""
    if args.event is not None:
        from supervisor.cli.explain_event import run_event

        if args.target is not None or args.set:
            raise UsageError("--event stands alone: the component and the policy are those of the record")
        return run_event(args)
    if args.audit_log is not None:
        raise UsageError("--audit-log is for --event SEQ")
    if not is_action(args.action):
        verbs = "filesystem.read, filesystem.write, filesystem.list, network.connect, … or custom.NAME.ACTION"
        raise UsageError(f"{args.action!r} is no action", hint=f"actions are {verbs}")
    with open_target(args.target, None, args.config) as target:
        view = view_component(target.path, parse_assignments(args.set), args.config, target.instance)
    resource = resolve_resource(args.action, args.resource, os.getcwd())
    decision = compile_policy(view.document()).decide(args.action, resource)
    notes = _notes(args, view, resource)
    if args.json:
        print(json.dumps(_to_json(args.action, args.resource, resource, decision, notes), indent=2))
    else:
        print("\n".join(visible(line) for line in [*_lines(args.action, resource, decision), *notes]))
    return 0 if isinstance(decision, Allow) else EX_NOPERM


def resolve_resource(action: str, resource: str, cwd: str) -> str:
    """Return the name that would be decided on: for a file the real path of the object, symbolic links resolved."""
    if action not in FILE_ACTIONS:
        return resource
    if not resource or "\0" in resource:
        raise UsageError(f"{resource!r} is no path")
    return os.path.realpath(os.path.join(cwd, resource))


def _notes(args: argparse.Namespace, view: ComponentView, resource: str) -> list[str]:
    notes = []
    if args.action in FILE_ACTIONS:
        asked = os.path.normpath(os.path.join(os.getcwd(), args.resource))
        if asked != resource:
            notes.append(f"  {asked} is really {resource}, and that is what is decided on")
    if view.unset:
        notes.append(
            f"  parameters without a value: {', '.join(view.unset)} (--set NAME=VALUE); their grants match nothing here"
        )
    family = args.action.rpartition(".")[0]
    if family.startswith("custom."):
        capability = family.removeprefix("custom.")
        serving = [each for each in view.settings.providers if capability in each.capabilities]
        does = f"the provider {serving[0].name} ({serving[0].program}) does it" if serving else "no provider serves it"
        notes.append(f"  under `airssys up`, where {does} on this host")
        return notes
    missing = [
        key for key in not_enforced(view.manifest) if key.startswith("capabilities.") and f".{family}." in f"{key}."
    ]
    if missing:
        notes.append(f"  not enforced by this version, so `airssys run` refuses it: {', '.join(missing)}")
    return notes


def _lines(action: str, resource: str, decision: Decision) -> list[str]:
    if isinstance(decision, Allow):
        return [f"allowed {action} {resource}", f"  by {decision.rule}"]
    lines = [f"denied {action} {resource} [{decision.code}]", f"  {decision.reason}", f"  rule: {decision.rule}"]
    if decision.nearest:
        lines.append(f"  nearest: {decision.nearest}")
    if decision.code in NOT_GRANTED and action in FILE_ACTIONS:
        table, verb = action.split(".")
        lines.append(f"  to allow: [capabilities.{table}] {verb} in Component.toml")
    elif decision.code in NOT_GRANTED and action.startswith("custom."):
        lines.append(f"  to allow: {what_would_allow(decision.code, action, resource, decision.rule, '')}")
    return lines


def _to_json(action: str, asked: str, resource: str, decision: Decision, notes: list[str]) -> dict[str, object]:
    allowed = isinstance(decision, Allow)
    return {
        "action": action,
        "asked": asked,
        "resource": resource,
        "allowed": allowed,
        "rule": decision.rule,
        "code": None if isinstance(decision, Allow) else decision.code,
        "reason": None if isinstance(decision, Allow) else decision.reason,
        "nearest": None if isinstance(decision, Allow) else decision.nearest,
        "notes": [note.strip() for note in notes],
    }
