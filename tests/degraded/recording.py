"""Makes a zygote's filters tell a tracer of every call that they let by or answer, and by which rule.

Executed in the zygote before its preload compiles the filters. What goes to the warden, and what filter 2 forbids, stays
as it is: both outrank a tracer (seccomp(2)).
"""

from __future__ import annotations

from worker import filter_compiler
from ipc.struct import replace

FIRST = {"confine": 1, "compile": 1001}
"""Filter → the number of its first rule; the others follow in the order of the file."""
_RET_TRACE = 0x7FF0_0000


def _record() -> None:
    load = filter_compiler.load

    def load_recording(name: str) -> filter_compiler.FilterData:
        data = load(name)
        if name not in FIRST:
            return data
        rules = []
        for number, rule in enumerate(data.rules, FIRST[name]):
            filter_compiler._ACTIONS[f"trace {number}"] = _RET_TRACE | number
            rules.append(replace(rule, action=f"trace {number}"))
        return replace(data, rules=tuple(rules))

    filter_compiler.load = load_recording


_record()
