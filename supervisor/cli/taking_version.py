"""A running supervisor takes the version that a name means now: it is told, and what comes of it is waited for."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.cli.run import duration
from supervisor.control.client import SOCKET_NAME, Address, ControlClient, NobodyAnswersError, find_socket
from supervisor.control.messages import TakeVersion, VersionChange
from supervisor.fleet.change_over import RESTS, Phase
from supervisor.packages.installed import ComponentName
from supervisor.terminal import visible

EX_FAILED: Final = 1
EX_TIMED_OUT: Final = 75
EX_NOPERM: Final = 77
_EXIT: Final = {Phase.SETTLED: 0, Phase.HANDING_OVER: 0, Phase.AWAITING: EX_NOPERM, Phase.REFUSED: EX_NOPERM}
_STEPS: Final = {
    Phase.DECIDING: "is being decided on",
    Phase.COMPILING: "is being compiled",
    Phase.TRYING: "was started, and isn't known to be healthy yet",
    Phase.HANDING_OVER: "runs; the version before it finishes what it was given",
}


class Outcome(Struct, frozen=True):
    """How far a running supervisor got with it; `waited`: somebody waited for the end of it."""

    change: VersionChange
    name: str
    waited: bool

    @property
    def exit_code(self) -> int:
        """0: it runs, or nobody waits; 1: it failed, and the one before runs on; 75: not yet; 77: not approved."""
        phase = Phase(self.change.phase)
        if phase not in RESTS and phase not in _EXIT:
            return EX_TIMED_OUT if self.waited else 0
        return _EXIT.get(phase, EX_FAILED)

    def lines(self) -> list[str]:
        """Say it to a person."""
        change, phase = self.change, Phase(self.change.phase)
        runs, other = f"{self.name}: {change.runs} runs on", change.version
        match phase:
            case Phase.SETTLED:
                lines = [f"{self.name}: {change.runs} runs now"]
            case Phase.AWAITING:
                lines = [
                    f"{runs}; {other} awaits approval: request {change.approval}, and takes over once it is approved"
                ]
            case Phase.REFUSED:
                lines = [f"{runs}; {other} isn't approved: {change.reason}"]
            case Phase.FAILED:
                stay = f"to stay with it: airssys rollback {self.name} {change.runs}"
                lines = [f"{runs}; {other} failed: {change.reason}", stay]
            case Phase.HANDING_OVER:
                lines = [f"{self.name}: {change.runs} {_STEPS[phase]}"]
            case _:
                lines = [f"{runs}; {other or 'the other version'} {_STEPS[phase]}", "how it goes: airssys status"]
        if change.hint:
            lines.insert(1, change.hint)
        return [visible(line if number == 0 else f"  {line}") for number, line in enumerate(lines)]

    def to_json(self) -> dict[str, object]:
        """Return it under stable keys."""
        change = self.change
        return {
            "phase": change.phase,
            "runs": {"version": change.runs, "package": change.runs_package},
            "wanted": {"version": change.version, "package": change.package} if change.version else None,
            "approval": change.approval or None,
            "reason": change.reason or None,
            "hint": change.hint or None,
        }


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a component that runs."""
    group = parser.add_argument_group("where a supervisor runs it")
    group.add_argument(
        "--wait", type=duration, metavar="TIME", default="120s", help="for it to take over (default: %(default)s)"
    )
    group.add_argument("--no-wait", action="store_true", help="only tell the supervisor")
    group.add_argument(
        "--grant", choices=("asked",), help="grant it what it asks, where no rule of the host takes an approval"
    )


def take_version(args: argparse.Namespace, state: str, called: ComponentName) -> Outcome | None:
    """Have the supervisor that runs a component take the version that its name means; None where none does.

    `state` is the state directory that it is installed in.
    """
    if called.instance:
        return None
    own = Address(os.path.join(state, SOCKET_NAME), "the state directory", trusted=True)
    for address in dict.fromkeys((find_socket(None, args.state_dir, os.environ, os.getcwd()), own)):
        try:
            with ControlClient(address) as client:
                return _ask(args, client, state, called.name)
        except NobodyAnswersError:
            continue
        except ConfigError as error:
            if type(error) is not ConfigError:
                print(f"airssys: the supervisor there was not told: {visible(error.message)}", file=sys.stderr)
    return None


def _ask(args: argparse.Namespace, client: ControlClient, state: str, name: str) -> Outcome | None:
    waits = not args.no_wait
    request = TakeVersion(name, state, waits, args.grant == "asked")
    until_s = time.monotonic() + args.wait / 1e9
    last: VersionChange | None = None
    for change in _steps(client, request, until_s):
        if last is not None and sys.stderr.isatty() and not args.json and change.phase in _STEPS:
            print(f"airssys: {visible(change.version)} {_STEPS[Phase(change.phase)]}", file=sys.stderr)
        last = change
    return None if last is None else Outcome(last, name, waits)


def _steps(client: ControlClient, request: TakeVersion, until_s: float) -> Iterator[VersionChange]:
    """Yield what is said of the change, until it rests or time is up."""
    parts, told = client.ask(request), False
    while True:
        try:
            part = next(parts, None)
        except NobodyAnswersError as error:
            if not told:
                raise
            print(f"airssys: {visible(error.message)} meanwhile", file=sys.stderr)
            return
        if part is None:
            return
        told = True
        if isinstance(part[0], VersionChange):
            yield part[0]
        if not select.select([client], [], [], max(0.0, until_s - time.monotonic()))[0]:
            return
