"""How a run ended, in one place: facts in, verdict out. Pure.

What the kernel says (wait4(2), our own kill) outranks what the worker says of itself: its report is a claim.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from ipc.errors import DOCTOR_HINT
from ipc.messages import PROGRAM, Ended, Finished, StartFailed, WorkerLimits
from ipc.struct import Struct
from supervisor.config.units import counted

EX_OK = 0
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_LIMIT = 75
EX_NOPERM = 77
TRAP_EXIT_CODE = 134
"""128 + SIGABRT: what a shell shows for an aborted program."""

_NOT_CONFINED = ("A3001", "A3002")

LIMIT_CODES = {
    "memory": "A2001",
    "timeout": "A2002",
    "fuel": "A2003",
    "cpu": "A2004",
    "output": "A2005",
    "storage": "A2009",
    "tables": "A2006",
    "instances": "A2006",
}


class LimitReached(Struct, frozen=True):
    """The limit that ended a run, with what was used and what was allowed, in the limit's own unit."""

    name: str
    code: str
    limit: int
    usage: int
    unit: str


class Verdict(Struct, frozen=True):
    """How it ended: outcome is exited, trapped, limit, refused, crashed or host_error."""

    outcome: str
    exit_code: int
    message: str = ""
    code: str = ""
    limit: LimitReached | None = None


class Facts(Struct, frozen=True):
    """What is known when nothing of the run is left."""

    limits: WorkerLimits
    ended: Ended | None = None
    finished: Finished | None = None
    start_failed: StartFailed | None = None
    limit_reached: LimitReached | None = None
    refused_code: str = ""
    refused_reason: str = ""
    interrupted_by: int = 0
    interrupted_for: str = ""
    """Why the signal came, where that is known."""
    broken: str = ""
    killed_for: str = ""
    """What it was killed for that no limit and no rule names; of one that ended by itself meanwhile it isn't said."""
    open_files: Mapping[str, int] | None = None
    """How many it had open by each grant when it was to end, of what runs by an approval; None: not counted."""
    unrecorded: str = ""
    """Why something could not be recorded: what is not on record may not happen, whatever else did."""


def decide_verdict(facts: Facts) -> Verdict:
    """Return the verdict for `facts`; every combination has one."""
    if facts.unrecorded:
        return Verdict("host_error", EX_CANTCREAT, facts.unrecorded, "A3004")
    if facts.refused_code in _NOT_CONFINED:
        return _not_confined(facts.refused_reason, facts.refused_code)
    if facts.refused_code:
        return Verdict("refused", EX_NOPERM, facts.refused_reason, facts.refused_code)
    if facts.limit_reached:
        return _limit(facts.limit_reached)
    if facts.interrupted_by:
        by = f"interrupted by {signal_name(facts.interrupted_by)}"
        why = f"it was ended, as {facts.interrupted_for}" if facts.interrupted_for else by
        return Verdict("crashed", 128 + facts.interrupted_by, why)
    if facts.broken:
        return Verdict("host_error", EX_SOFTWARE, facts.broken)
    if facts.start_failed and not _crashed(facts.ended):
        return _start_failed(facts.start_failed)
    if facts.ended is None:
        return Verdict("crashed", EX_SOFTWARE, "its keeper process was killed from outside, and the worker with it")
    return _from_wait(facts, facts.ended)


def _crashed(ended: Ended | None) -> bool:
    # SIGKILL aside: that may have been us, ending a worker that failed to start and then hung.
    return ended is not None and os.WIFSIGNALED(ended.wait_status) and os.WTERMSIG(ended.wait_status) != signal.SIGKILL


def _limit(reached: LimitReached) -> Verdict:
    return Verdict("limit", EX_LIMIT, limit_message(reached), reached.code, reached)


def limit_message(reached: LimitReached) -> str:
    """Say which limit ended a run, in words for a person."""
    words = {
        "memory": "needed more memory than its limit",
        "timeout": "ran longer than its timeout",
        "fuel": "used up its fuel",
        "cpu": "used more CPU time than its limit",
        "output": "printed more than its output limit",
        "storage": "stored more than its storage quota",
        "tables": "wanted larger tables than its limit",
        "instances": "wanted more instances than its limit",
    }
    return f"{words[reached.name]} of {_quantity(reached.limit, reached.unit)}"


def _quantity(value: int, unit: str) -> str:
    if unit == "bytes":
        # As it was probably written: 256 MB is a whole number of KiB too.
        for binary, decimal, prefix in ((1 << 30, 10**9, "G"), (1 << 20, 10**6, "M"), (1 << 10, 10**3, "K")):
            if value >= binary and value % binary == 0:
                return f"{value // binary} {prefix}iB"
            if prefix != "K" and value >= decimal and value % (decimal // 10) == 0:
                return f"{value / decimal:g} {prefix}B"
    if unit == "ns":
        return f"{value / 1e9:g} s"
    if unit == "units of fuel":  # of the fuel's limit, which says the rest
        return counted(value, "unit")
    return counted(value, unit.removesuffix("s"))


def _start_failed(failure: StartFailed) -> Verdict:
    if failure.call == PROGRAM:
        return Verdict("refused", EX_DATAERR, failure.message, "A3005")
    if failure.layer:
        return _not_confined(missing_layer(failure), "A3001")
    return Verdict("host_error", EX_SOFTWARE, f"{failure.stage}: {failure.message}")


def missing_layer(failure: StartFailed) -> str:
    """Say which layer a worker or a compiler could not put on, and why."""
    # The number is the worker's own: strerror(3) takes a C int.
    errno_name = f", {os.strerror(failure.errno)}" if 0 < failure.errno < 4096 else ""
    how = "" if failure.call == "probe" else f" ({failure.call}{errno_name})"
    detail = failure.message.removeprefix(f"{failure.layer}: ").removeprefix("probe: ")
    return f"required layer {failure.layer} can't be had{how}: {detail}"


def _not_confined(reason: str, code: str) -> Verdict:
    return Verdict("refused", EX_UNAVAILABLE, f"{reason}\n{DOCTOR_HINT}", code)


def _from_wait(facts: Facts, ended: Ended) -> Verdict:
    finished = facts.finished
    if ended.killed_for:
        return Verdict("crashed", 128 + signal.SIGKILL, ended.killed_for)
    if facts.killed_for and os.WIFSIGNALED(ended.wait_status) and os.WTERMSIG(ended.wait_status) == signal.SIGKILL:
        return Verdict("crashed", 128 + signal.SIGKILL, facts.killed_for)
    if os.WIFSIGNALED(ended.wait_status):
        return _from_signal(facts, ended, os.WTERMSIG(ended.wait_status))
    if finished is None:
        status = os.WEXITSTATUS(ended.wait_status)
        text = f"its process ended (status {status}) without saying how the guest ended"
        return Verdict("crashed", EX_SOFTWARE, text)
    if finished.outcome == "exited":
        return Verdict("exited", finished.exit_code & 0xFF, finished.message)
    if finished.outcome == "limit" and finished.limit in LIMIT_CODES:
        return _limit(_claimed_limit(facts.limits, finished))
    if finished.outcome == "trapped":
        return Verdict("trapped", TRAP_EXIT_CODE, finished.message)
    return Verdict("host_error", EX_SOFTWARE, finished.message or "the worker failed without saying why")


def _claimed_limit(limits: WorkerLimits, finished: Finished) -> LimitReached:
    bounds: dict[str, tuple[int | None, str]] = {
        "memory": (limits.memory_bytes, "bytes"),
        "timeout": (limits.timeout_ns, "ns"),
        "fuel": (limits.fuel, "units of fuel"),
        "tables": (limits.table_elements, "table elements"),
        "instances": (limits.instances, "instances"),
        "output": (limits.output_bytes, "bytes"),
        "storage": (limits.storage_bytes, "bytes"),
        "cpu": ((limits.cpu_s or 0) * 10**9, "ns"),
    }
    bound, unit = bounds[finished.limit]
    return LimitReached(finished.limit, LIMIT_CODES[finished.limit], bound or 0, finished.usage, unit)


_SIGNAL_WORDS: dict[int, str] = {
    signal.SIGSYS: "made a system call that its filter kills at once (a foreign ABI, or new executable memory)",
    signal.SIGSEGV: "crashed: invalid memory access outside WebAssembly",
    signal.SIGBUS: "crashed: bus error",
    signal.SIGILL: "crashed: illegal instruction outside WebAssembly",
    signal.SIGABRT: "crashed: its runtime aborted",
    signal.SIGKILL: "was killed from outside (an operator, or the kernel's out-of-memory killer)",
}


def ended_by_cpu_limit(ended: Ended, number: int, limit_s: int | None) -> bool:
    """Tell whether a signal was RLIMIT_CPU's.

    Pid 1 of a namespace gets the hard limit's SIGKILL only. The kernel counts that limit in clock ticks, each
    charged whole to who runs at it, while rusage is exact: 0.81 s were seen at a limit of 1 s on a busy machine.
    """
    if limit_s is None or number not in (signal.SIGKILL, signal.SIGXCPU):
        return False
    return ended.user_cpu_ns + ended.system_cpu_ns >= limit_s * 600_000_000


def _from_signal(facts: Facts, ended: Ended, number: int) -> Verdict:
    if ended_by_cpu_limit(ended, number, facts.limits.cpu_s):
        limit_ns = (facts.limits.cpu_s or 0) * 10**9
        usage_ns = max(limit_ns, ended.user_cpu_ns + ended.system_cpu_ns)
        return _limit(LimitReached("cpu", LIMIT_CODES["cpu"], limit_ns, usage_ns, "ns"))
    words = _SIGNAL_WORDS.get(number, f"was ended by {signal_name(number)}")
    return Verdict("crashed", 128 + number, words)


def signal_name(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
