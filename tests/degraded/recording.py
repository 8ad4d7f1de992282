"""Makes filters tell a tracer of every call that they let by or answer, and by which rule.

Executed in a zygote before its preload compiles the filters. What goes to the warden, and what filter 2 forbids, stays
as it is: both outrank a tracer (seccomp(2)).
"""

from __future__ import annotations

from ipc.struct import replace
from ipc.syscalls import machine
from worker import filter_compiler
from worker.filter_compiler import FilterData, Rule, load

_FIRST = {"confine": 1, "compile": 1001}
"""Filter → the number of its first rule; the others follow in the order of the file."""
_RET_TRACE = 0x7FF0_0000


def numbered_rules() -> dict[int, tuple[str, Rule]]:
    """Return number → (filter, rule) for every rule of this architecture."""
    return {
        number: (name, rule)
        for name, first in _FIRST.items()
        for number, rule in enumerate(load(name).rules, first)
        if machine() in rule.architectures
    }


def record() -> None:
    """Have every filter that is compiled from here on trace what it would allow or answer."""
    original = filter_compiler.load

    def load_recording(name: str) -> FilterData:
        data = original(name)
        if name not in _FIRST:
            return data
        rules = []
        for number, rule in enumerate(data.rules, _FIRST[name]):
            filter_compiler._ACTIONS[f"trace {number}"] = _RET_TRACE | number
            rules.append(replace(rule, action=f"trace {number}"))
        return replace(data, rules=tuple(rules))

    # seccomp.py has its own name for it.
    from worker import seccomp

    filter_compiler.load = seccomp.load = load_recording  # type: ignore[assignment]


if __name__ == "in the zygote":
    record()
