"""How results and errors read, for a person on stderr or as JSON on stdout."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TextIO

from ipc.policy.quota import OK, amount_words
from ipc.policy.quotas import CPU_TIME
from ipc.policy.rules import NOT_GRANTED
from supervisor.config.units import counted
from supervisor.run.report import DecisionTally, Denial, RunReport
from supervisor.run.verdict import Verdict
from supervisor.terminal import OwnLines, visible

MAX_SHOWN_DENIALS = 20


def use_colour(stream: TextIO | OwnLines) -> bool:
    """Whether to colour: on a terminal only, and never with NO_COLOR set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str, stream: TextIO | OwnLines) -> str:
    """Return `text` in a colour (an SGR number) where that is wanted."""
    # The reset in front: a guest's colour (concealed text among them) doesn't reach into our lines.
    return f"\x1b[0;{colour}m{text}\x1b[0m" if use_colour(stream) else text


def print_error(error: Exception, kind: str, exit_code: int, args: argparse.Namespace) -> int:
    """Print an error in one or two lines, or as `{"error": …}` when JSON was asked for; return the exit code."""
    hint = getattr(error, "hint", None) or None  # in JSON null, whichever error has none
    message = str(error)
    if getattr(args, "json", False):
        document: dict[str, object] = {"code": kind, "message": message, "hint": hint}
        problems = getattr(error, "problems", None)
        if problems is not None:  # those of a configuration file, each with its place
            document["problems"] = [problem.to_json() for problem in problems]
        sys.stdout.write(json.dumps({"error": document}) + "\n")
        return exit_code
    # Several errors are reported together, a line each; whatever else a message quotes can't act on the terminal.
    lines = [visible(line) for line in message.split("\n")]
    if hint:
        lines.append(f"  {visible(hint)}")
    sys.stderr.write("airssys: " + "\n".join(lines) + "\n")
    return exit_code


def denial_lines(denial: Denial, bare: bool) -> list[str]:
    """Return what a person reads of one refusal: what, why, and what would allow it."""
    where = f", event {denial.seq}" if denial.seq else ""
    # What is refused whatever it is about, as over a quota, names nothing.
    what = " ".join(visible(text) for text in (denial.action, denial.resource) if text)
    lines = [f"airssys: denied {what} [{visible(denial.code)}{where}]"]
    nearest = f"; nearest: {visible(denial.nearest)}" if denial.nearest else ""
    lines.append(f"  {visible(denial.reason)}{nearest}")
    verb = denial.action.removeprefix("filesystem.")
    if denial.code in NOT_GRANTED and verb in ("read", "write", "list"):
        flag = f"--{verb} {shell_quoted(denial.resource)}"
        manifest = f"[capabilities.filesystem] {verb} in Component.toml"
        lines.append(f"  to allow: {flag}   or {manifest}" if bare else f"  to allow: {manifest}")
    elif denial.code == "A1501":
        lines.append("  to store more: --storage SIZE   or [quota] storage in Component.toml")
    elif denial.code == "A1204" and "`..`" in denial.reason:
        # WASI has no way out of a directory, whatever is granted; the absolute name needs none.
        lines.append(f"  to reach it: give the program its absolute name, {shell_quoted(denial.resource)}")
    else:
        lines.append(f"  what can be done: airssys help {visible(denial.code)}")
    return lines


def shell_quoted(text: str) -> str:
    """Quote for a POSIX shell, with what can't be shown safely escaped in $'…' form."""
    import shlex

    if visible(text) == text:
        return shlex.quote(text)
    # Three octal digits a byte: no digit that follows can join in, as it could after \xHH.
    return "$'" + "".join(c if c not in "\\'" and visible(c) == c else _octal(c) for c in text) + "'"


def _octal(character: str) -> str:
    surrogate_escaped = 0xDC80 <= ord(character) <= 0xDCFF
    data = character.encode("utf-8", "surrogateescape" if surrogate_escaped else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)


class DenialPrinter:
    """Prints each distinct refusal once, at most MAX_SHOWN_DENIALS of them."""

    def __init__(
        self, stream: TextIO | OwnLines, bare: bool, quiet: bool, wanted: bool = False, asks: bool = False
    ) -> None:
        """Print to `stream`; `bare` names the flag that would allow, `quiet` prints nothing.

        `wanted`: instead of a refusal each, a list at the end of what else was wanted. `asks`: it was asked about.
        """
        self._stream = stream
        self._bare = bare
        self._quiet = quiet
        self._wanted: list[Denial] | None = [] if wanted else None
        self._shown = 0
        self._asks = asks
        self._askable = False

    def __call__(self, tally: DecisionTally) -> None:
        """Print what is new in `tally`."""
        fresh, tally.fresh = tally.fresh, []
        for denial in fresh:
            self._shown += 1
            self._askable = self._askable or denial.code in NOT_GRANTED
            if self._quiet or self._shown > MAX_SHOWN_DENIALS:
                continue
            if self._wanted is not None:
                self._wanted.append(denial)
                continue
            lines = denial_lines(denial, self._bare)
            lines[0] = paint(lines[0], "31", self._stream)
            print("\n".join(lines), file=self._stream, flush=True)

    def finish(self) -> None:
        """Say what else was wanted, and how many more there were."""
        if self._wanted:
            from supervisor.grants.dev_grants import HIDDEN_SOURCE

            print("airssys: also wanted, and not allowed:", file=self._stream)
            for denial in self._wanted:
                verb = visible(denial.action.removeprefix("filesystem."))
                resource = shell_quoted(denial.resource)
                # The entry that --dev itself has made is told by its purpose.
                reason = HIDDEN_SOURCE if denial.rule.endswith(f"({HIDDEN_SOURCE})") else denial.reason
                print(f"  {verb} {resource} [{visible(denial.code)}] {visible(reason)}", file=self._stream)
        hint = self._askable and self._bare and not self._asks and self._wanted is None
        if hint and not self._quiet and self._stream.isatty():
            print("airssys: to be asked about each instead: --ask", file=self._stream)
        hidden = self._shown - MAX_SHOWN_DENIALS
        if hidden > 0 and not self._quiet:
            more = counted(hidden, "more denial")
            print(f"airssys: and {more}; airssys audit query --decision denied", file=self._stream)


_MORE = {
    "memory": "--memory SIZE   or [quota] memory in Component.toml",
    "timeout": "--timeout TIME   or [limits] timeout in Component.toml",
    "fuel": "--fuel N   or [limits] fuel in Component.toml",
    "cpu": "--cpu-time TIME",
    "output": "--output SIZE   or [limits] output in Component.toml",
    "storage": "--storage SIZE   or [quota] storage in Component.toml",
}
"""Limit → what raises it; the others are fixed."""


def ending_lines(verdict: Verdict, name: str, quiet: bool) -> list[str]:
    """Return what a person reads of a program that didn't end by itself: what ended it, and what can be done."""
    if not verdict.message or verdict.outcome == "exited":
        return []
    head, *rest = verdict.message.splitlines()
    code = f" [{verdict.code}]" if verdict.code else ""
    # With --quiet too: whatever else ends a program than itself, there is nobody else to say so.
    lines = [f"airssys: {name}: {visible(head)}{code}", *(f"  {visible(line)}" for line in rest)]
    if rest or quiet:
        return lines
    if verdict.limit is not None and verdict.limit.name in _MORE:
        lines.append(f"  to allow more: {_MORE[verdict.limit.name]}")
    elif verdict.code:
        lines.append(f"  what can be done: airssys help {verdict.code}")
    return lines


def summary_line(report: RunReport, name: str) -> str:
    """Return the one line that a run ends with."""
    verdict = report.verdict
    ending = {"exited": f"exited {verdict.exit_code}", "trapped": "trapped", "limit": "stopped at a limit"}.get(
        verdict.outcome, verdict.outcome.replace("_", " ")
    )
    memory = f"{report.peak_memory_bytes / 1e6:.1f} MB"
    counts = f"{report.tally.allowed} allowed, {report.tally.denied} denied"
    if report.storage is not None and report.storage.status != OK:
        counts += f" · storage {report.storage.words} ({report.storage.status})"
    cpu = report.cpu
    if cpu is not None and cpu.held_ns:
        quota = amount_words(cpu.quota_ns_per_s or 0, CPU_TIME.unit)
        counts += f" · held {cpu.held_ns / 1e9:.2f} s for its CPU time ({quota})"
    return f"airssys: {name} {ending} · {report.duration_s:.2f} s · {memory} peak · {counts} · {report.audit_log}"
