"""`airssys explain --event SEQ`: a record of the audit log, and what the policy that was in force says of it."""

from __future__ import annotations

import argparse
import json
import os
import sys

from ipc.audit.errors import AuditLogError
from ipc.errors import ConfigError
from ipc.policy.decision import Allow
from supervisor.audit.event_view import EventView, explain_record, text_of
from supervisor.audit.policy_archive import read_policy
from supervisor.audit.query import record_at
from supervisor.config.places import audit_directory, state_directory
from supervisor.config.settings_files import load_settings
from supervisor.report import paint
from supervisor.terminal import visible


class NoSuchEventError(ConfigError):
    """The log has no record with that number."""


def run_event(args: argparse.Namespace) -> int:
    """Print the explanation of one record."""
    directory = args.audit_log
    if directory is None:
        settings = load_settings(args.config, os.environ, os.geteuid())
        directory = audit_directory(state_directory(None, os.environ, settings), settings)
    try:
        found = record_at(directory, args.event)
    except OSError as error:
        hint = "name another with --audit-log DIR; a log begins with the first `airssys run`"
        reason = os.strerror(error.errno or 0)
        raise AuditLogError(f"no audit log can be read in {directory}: {reason}", hint=hint) from None
    if found is None:
        raise NoSuchEventError(
            f"the log in {directory} has no event {args.event}", hint="what there is: airssys audit tail"
        )
    digest = text_of(found.record, "policy")
    view = explain_record(found.record, read_policy(directory, digest) if digest else None)
    if args.json:
        print(json.dumps(view.to_json(), indent=2))
    else:
        print("\n".join(_lines(view)))
    return 0


def _lines(view: EventView) -> list[str]:
    event = view.event

    def text(key: str) -> str:
        return visible(text_of(event, key))

    count = event["count"]
    times = f", {count} times" if isinstance(count, int) and count > 1 else ""
    of = f" of {text('component')} ({text('instance')})" if text("component") else ""
    lines = [f"event {event['seq']}: {text('event')}{of}, {text('time')[:19].replace('T', ' ')} UTC{times}"]
    if text("action"):
        code = f" [{text('code')}]" if text("code") else ""
        colour = "31" if text("decision") == "denied" else "0"
        lines.append(paint(f"{text('decision')} {text('action')} {text('resource')}{code}", colour, sys.stdout))
    detail = event["detail"]
    if isinstance(detail, dict) and isinstance(detail.get("asked"), str):
        lines.append(f"  it asked for {visible(detail['asked'])}")
    for label, key in (("", "reason"), ("rule: ", "rule"), ("granted by: ", "approval")):
        if text(key):
            lines.append(f"  {label}{text(key)}")
    return [*lines, *(visible(line) for line in _policy_lines(view))]


def _policy_lines(view: EventView) -> list[str]:
    lines = []
    if view.decision is not None:
        lines.append(f"the policy that was in force ({view.policy[:12]}…, of {view.identity}):")
        if isinstance(view.decision, Allow):
            lines.append(f"  allows it, by {view.decision.rule}")
        else:
            lines.append(f"  refuses it [{view.decision.code}]: {view.decision.reason}")
            lines.append(f"  rule: {view.decision.rule}")
            if view.decision.nearest:
                lines.append(f"  nearest: {view.decision.nearest}")
    if view.to_allow:
        lines.append(f"  to allow: {view.to_allow}")
    return [*lines, *(f"  {note}" for note in view.notes)]
