"""What `airssys up` shows: a line for each thing that happens, and on a terminal a table of how everybody is."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Final

from ipc.audit.errors import AuditLogError
from supervisor.control.desk import component_status
from supervisor.control.status_view import COLOURS, status_row, table_lines
from supervisor.fleet.change_over import RESTS
from supervisor.fleet.change_over import Phase as ChangePhase
from supervisor.fleet.component_change import Change
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.lifecycle import Phase
from supervisor.fleet.member import Member
from supervisor.report import denial_lines, paint
from supervisor.run.report import DecisionTally
from supervisor.terminal import visible

DENIALS_MAX: Final = 20
"""So many different refusals of one component are shown; its status counts all."""
REDRAW_NS: Final = 250_000_000
REFRESH_NS: Final = 2_000_000_000
"""How often a table is drawn anew in which nothing but figures has changed."""


class Lines:
    """One line for each thing that happens, for a log or a pipe; with `as_json` a document each."""

    def __init__(self, quiet: bool, as_json: bool) -> None:
        """Print to stdout; `quiet` only what went wrong, to stderr."""
        self._quiet = quiet
        self._json = as_json
        self._denials: dict[str, int] = {}
        self._state = ""

    def say(self, line: str) -> None:
        """Print one line of our own."""
        if not self._quiet and not self._json:
            print(line, flush=True)

    def compiles_long(self, member: Member) -> None:
        """Tell that a component is still being compiled."""
        self.say(f"{member.name}: compiling; the result is kept")

    def warn(self, what: str) -> None:
        """Tell of something that is not well and concerns no component alone."""
        if self._json:
            print(json.dumps({"time": time.time(), "event": "warning", "message": what}), flush=True)
        elif self._quiet:
            print(f"airssys: {visible(what)}", file=sys.stderr, flush=True)
        else:
            self.say(paint(f"airssys: {visible(what)}", "33", sys.stdout))

    def trouble(self, trouble: AuditLogError | None) -> None:
        """Tell, from another thread, that nothing is allowed at the moment; and that it is again."""
        if trouble is None:
            print("airssys: the audit log can be written again; it goes on", file=sys.stderr, flush=True)
        else:
            text = f"airssys: {visible(trouble.message)}; nothing is allowed meanwhile\n  {visible(trouble.hint)}"
            print(text, file=sys.stderr, flush=True)

    def begin(self, fleet: Fleet) -> None:
        """Say how to look at it, and how to end it."""
        count = len(fleet.members)
        what = f"{count} component{'s' * (count != 1)}"
        self._state = fleet.host.options.state_directory
        self.say(f"airssys: {what}, state in {visible(self._state)}")

    def moved(self, member: Member, said: str) -> None:
        """Tell of another phase of a component."""
        if member.phase is Phase.DOWN:
            return  # compiled, and waits for the others to be
        if self._json:
            status = component_status(member)
            document: dict[str, object] = {
                "time": time.time(),
                "event": "phase",
                "component": member.name,
                "phase": member.phase,
                "instance": member.instance or None,
                "message": said or None,
            }
            if status.outcome:
                document |= {"outcome": status.outcome, "exit_code": status.exit_code, "code": status.code or None}
            print(json.dumps(document), flush=True)
            return
        if member.phase in (Phase.QUEUED, Phase.COMPILING):
            return  # for a moment, and nobody's news
        line = f"{member.name}: {member.phase}" + (f" {visible(said)}" if said else "")
        if member.phase is Phase.FAILED and self._quiet:
            print(f"airssys: {line}", file=sys.stderr, flush=True)
            return
        self.say(paint(line, COLOURS[member.phase], sys.stdout) if member.phase in COLOURS else line)

    def denied(self, member: Member, tally: DecisionTally) -> None:
        """Tell of what was refused, each different thing once."""
        fresh, tally.fresh = tally.fresh, []
        for denial in fresh:
            self._denials[member.name] = self._denials.get(member.name, 0) + 1
            head, why = denial_lines(denial, bare=False)[:2]
            told = head.removeprefix("airssys: ")
            member.log.note(f"{told} {why.strip()}")
            if self._json:
                record = {"time": time.time(), "event": "denied", "component": member.name, "denial": denial.to_json()}
                print(json.dumps(record), flush=True)
            elif self._denials[member.name] <= DENIALS_MAX:
                self.say(f"{member.name}: {told}")
                self.say(why)
            elif self._denials[member.name] == DENIALS_MAX + 1:
                place = f"--state-dir {visible(self._state)}"
                self.say(f"{member.name}: more denials: airssys audit query --component {member.name} {place}")

    def changed(self, change: Change, runs: Member) -> None:
        """Tell of a component that gets another version: that it has it, or why it hasn't."""
        words = change.words(runs)
        if change.phase is ChangePhase.HANDING_OVER:
            dev = ", in DEV MODE" if runs.plan.request.context.trust == "dev" else ""
            words = f"runs {runs.plan.words} now{dev}"
        elif change.phase not in RESTS or not words:
            return
        if self._json:
            document = {
                "time": time.time(),
                "event": "version",
                "component": change.name,
                "phase": change.phase,
                "version": change.version,
                "package": change.package,
                "runs": {"version": runs.plan.version, "package": runs.plan.package},
                "message": words,
            }
            print(json.dumps(document), flush=True)
        elif self._quiet and change.phase is not ChangePhase.HANDING_OVER:
            print(f"airssys: {change.name}: {visible(words)}", file=sys.stderr, flush=True)
        else:
            self.say(paint(f"{change.name}: {visible(words)}", "33", sys.stdout))

    def rests(self) -> None:
        """Say that nothing runs any more, and what that means."""
        self.say("airssys: nothing runs any more; Ctrl-C or airssys down ends this, --until-done would have")

    def leave(self) -> None:
        """Make room for what has stopped the start."""

    def next_ns(self) -> int:
        """Return when there is something to be drawn."""
        return 0

    def turn(self, fleet: Fleet) -> None:
        """Draw what is due."""

    def finish(self, fleet: Fleet) -> None:
        """Say that all is over."""
        failed = [member.name for member in fleet.members.values() if member.phase is Phase.FAILED]
        self.say(f"airssys: ended; failed: {', '.join(failed)}" if failed else "airssys: ended")


class LiveTable(Lines):
    """On a terminal: the lines, and below them always the table."""

    def __init__(self) -> None:
        """Draw to stdout."""
        super().__init__(quiet=False, as_json=False)
        self._drawn = 0
        self._changed = False
        self._drawn_ns = 0
        self._shows = False

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._erase()
        super().say(line)
        self._changed = True

    def compiles_long(self, member: Member) -> None:
        """Say so, and show the table from now on: who is being compiled, and since when."""
        super().compiles_long(member)
        self._shows = True

    def begin(self, fleet: Fleet) -> None:
        """Show the table from now on."""
        super().begin(fleet)
        self._shows = True

    def leave(self) -> None:
        """Take the table away: what stopped the start is told in its place."""
        self._erase()
        self._shows = False

    def next_ns(self) -> int:
        """Return when the table is to be drawn."""
        return self._drawn_ns + (REDRAW_NS if self._changed else REFRESH_NS)

    def turn(self, fleet: Fleet) -> None:
        """Draw the table where it is due."""
        now_ns = time.monotonic_ns()
        if self._shows and now_ns >= self.next_ns():
            self._erase()
            self._draw(fleet)
            self._drawn_ns, self._changed = now_ns, False

    def finish(self, fleet: Fleet) -> None:
        """Leave the last state of the table, and say that all is over."""
        self._erase()
        if self._shows:
            self._draw(fleet)
        self._drawn = 0
        self._shows = False
        Lines.say(self, "airssys: ended")

    def _draw(self, fleet: Fleet) -> None:
        try:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
            columns, rows = columns or 80, rows or 24
        except OSError:
            columns, rows = 80, 24
        now_ns = time.time_ns()
        lines = table_lines([status_row(component_status(member), now_ns) for member in fleet.members.values()])
        room = max(3, rows - 4)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more: airssys status"]
        if not fleet.stopping:
            lines.append("Ctrl-C ends all in order")
        # Cut, or a line that wraps would not be erased whole; then coloured, which takes no room.
        for line in lines:
            print(paint(line[: columns - 1], "2", sys.stdout))
        sys.stdout.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", flush=True)
            self._drawn = 0


def new_view(args: argparse.Namespace) -> Lines | LiveTable:
    """Return what shows it: a table where a person looks on."""
    if sys.stdout.isatty() and not (args.quiet or args.json) and os.environ.get("TERM", "dumb") != "dumb":
        return LiveTable()
    return Lines(args.quiet, args.json)
