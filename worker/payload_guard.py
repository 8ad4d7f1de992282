"""Guards in front of what an actor hands over: a list that nothing can take is an error value, and no trap; a long one
goes in bulk.

The engine makes a value of 48 bytes of each byte of a list before a host function is asked, and traps where those are
more than it moves at once. So a component's core functions are led through a module of ours (`worker.guard_module`),
which looks at a list's length first: for what it asks of its host, and for what `handle-message` answers. The rest of
the component stays as it is; one in which something isn't understood stays so altogether.

What is long goes through the hatch only where it is sure that the host itself is on the other side: not where
components with code of their own lie within or around, and could be who is asked, or who answers.

Source: the component model's Binary.md and CanonicalABI.md ("Flattening", "Despecialization").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from worker.component_bytes import (
    ALIAS,
    CANON,
    COMPONENT,
    CORE,
    CORE_FUNC,
    CORE_INSTANCE,
    CORE_INSTANCES,
    CORE_MEMORY,
    CORE_MODULE,
    EXPORT,
    FUNC,
    HEAD,
    IMPORT,
    INSTANCE,
    INSTANCES,
    MODULE,
    TYPE,
    Reader,
    UnknownError,
    named,
    section_of,
    unsigned,
    vector,
)
from worker.component_wiring import LIFECYCLE, OWN, direct_within, has_code_within, read_extern, read_name, sections_of
from worker.guard_module import I32, I64, Fetched, Guard, ListAt, guard_module, hatch_module
from worker.hatch import CALLBACK, MESSAGE, RESULT

_LIFT, _LOWER, _DROP = 0, 1, 3
_STRINGS, _MEMORY, _REALLOC, _POST_RETURN, _FUNCTIONS = (0, 1, 2), 3, 4, 5, (4, 5, 7)
"""Options of a canonical function: encodings of strings; a memory; core functions."""
_ASKED: Final[dict[tuple[str, str], tuple[int, tuple[ListAt, ...], Fetched | None]]] = {
    ("host-messaging", "send"): (5, (ListAt(3),), None),
    ("host-messaging", "request"): (6, (ListAt(3),), None),
    ("host-messaging", "broadcast"): (3, (ListAt(1),), None),
    ("host-messaging", "publish"): (5, (ListAt(3),), None),
    ("storage", "set"): (5, (ListAt(3),), None),
    ("storage", "get"): (3, (), Fetched(RESULT, 12, 16)),
    ("storage", "compare-and-set"): (9, (ListAt(4, 2), ListAt(7, 5)), None),
    ("custom", "invoke"): (7, (ListAt(5),), Fetched(RESULT, 8, 12)),
}
"""(interface, function) → how many parameters it has as a core function, the last one where its result goes; its lists,
and that of its result. That its type is this one is seen to when the component is loaded (`worker.actor`)."""
_OFFERED: Final[dict[str, tuple[bytes, Fetched]]] = {
    "handle-message": (I32 * 8, Fetched(MESSAGE, 2, 3)),
    "handle-callback": (I64 + I32 * 2 + I64 * 3, Fetched(CALLBACK, 2, 3)),
}
"""Functions of the component's own → their parameters and the list among them; the first answers with a list."""
_ANSWERS: Final = "handle-message"
_DESTRUCTORS: Final = (b"\x3f\x7f\1", b"\x3e\x7f")
"""How a resource's type begins that names a core function, should these bytes be one."""
_DEPTH_MAX: Final = 8
"""So many components within each other are looked into: each has a copy of what is in it, and toolchains make two."""


def guarded(component: bytes, depth: int = 0, is_direct: bool = True) -> bytes:
    """Return the component with its guards; as it is, where it needs none or has what isn't understood here.

    `depth` is in how many others it lies; `is_direct`, whether none of those is who it speaks with in the host's place.
    """
    if not component.startswith(HEAD) or depth > _DEPTH_MAX:
        return component
    try:
        return _Rewriting(component, depth, is_direct).rewritten()
    except (UnknownError, IndexError, UnicodeDecodeError):
        return component


class _Rewriting:
    """One pass over a component's sections; what is numbered anew is known by its old number."""

    def __init__(self, component: bytes, depth: int, is_direct: bool) -> None:
        self._input = component
        self._depth = depth
        self._in_bulk = is_direct and not has_code_within(component)
        self._direct = direct_within(component) if is_direct else set()
        self._within = 0
        self._output: list[bytes] = [HEAD]
        self._functions: list[int] = []
        """Core function → its number now, or that of its guard."""
        self._instances: list[int] = []
        self._function_count = self._instance_count = self._module_count = 0
        """Of what is defined by now, ours included."""
        self._imported: list[str] = []
        """Component instance → under which name it is imported, "" where it isn't."""
        self._asked: list[tuple[str, str] | None] = []
        """Component function → (interface, name) of one of `_ASKED`."""
        self._pending: dict[int, Guard] = {}
        """Core function → its guard, which isn't made yet."""
        self._offered: dict[int, str] = {}
        """Core function → which of `_OFFERED` it is."""
        self._hatch = -1
        """The instance that has it, -1 while there is none."""
        self._guards = 0
        self._changed_within = False

    def rewritten(self) -> bytes:
        for number, section in sections_of(self._input):
            self._section(number, section)
        return b"".join(self._output) if self._guards or self._changed_within else self._input

    def _section(self, number: int, section: Reader) -> None:
        content = section.rest()
        if number == COMPONENT:
            within = guarded(content, self._depth + 1, self._within in self._direct)
            self._within += 1
            self._changed_within = self._changed_within or within is not content
            content = within
        elif number == MODULE:
            self._define_module()
        elif number == TYPE:
            if self._guards and any(one in content for one in _DESTRUCTORS):
                raise UnknownError  # a core function's number, where we don't look
        elif number == IMPORT:
            self._read_imports(section)
        elif number == EXPORT:
            self._read_exports(section)
        elif number == INSTANCE:
            count = section.number()
            if count > section.end - section.at:
                raise UnknownError  # fewer bytes than instances
            self._imported += [""] * count
        elif number in (CORE_INSTANCE, ALIAS, CANON):
            read = {CORE_INSTANCE: self._core_instance, ALIAS: self._alias, CANON: self._canon}[number]
            # A section for each: a guard's come right before what uses it.
            for _ in range(section.number()):
                self._output.append(section_of(number, b"\1" + read(section)))
            if section.at != section.end:
                raise UnknownError
            return
        self._output.append(section_of(number, content))

    def _define_module(self) -> None:
        if self._guards:
            raise UnknownError  # its number would be another one, wherever that is used
        self._module_count += 1

    # -- what is numbered ----------------------------------------------------------------------------------------------

    def _read_imports(self, section: Reader) -> None:
        for _ in range(section.number()):
            name, kind = read_name(section), read_extern(section)
            if kind == CORE:
                self._define_module()
            elif kind == FUNC:
                self._asked.append(None)
            elif kind == INSTANCES:
                self._imported.append(name)

    def _read_exports(self, section: Reader) -> None:
        """Read what is exported, each of which has another number from then on."""
        for _ in range(section.number()):
            read_name(section)
            sort = section.byte()
            if sort == CORE:
                raise UnknownError
            index = section.number()
            if sort == FUNC:
                self._asked.append(self._asked[index])
            elif sort == INSTANCES:
                self._imported.append(self._imported[index])
            if section.byte():
                read_extern(section)

    def _core_instance(self, section: Reader) -> bytes:
        kind = section.byte()
        if kind == 0:
            head = b"\0" + unsigned(section.number())
            parts = [self._argument(section) for _ in range(section.number())]
        elif kind == 1:
            head = b"\1"
            parts = [self._inline_export(section) for _ in range(section.number())]
        else:
            raise UnknownError
        self._instances.append(self._instance_count)
        self._instance_count += 1
        return head + vector(parts)

    def _argument(self, section: Reader) -> bytes:
        name, sort, instance = section.name(), section.byte(), section.number()
        if sort != CORE_INSTANCES:
            raise UnknownError
        return named(name) + bytes((sort,)) + unsigned(self._instances[instance])

    def _inline_export(self, section: Reader) -> bytes:
        name, sort, index = section.name(), section.byte(), section.number()
        if sort == CORE_INSTANCES:
            raise UnknownError
        if sort == CORE_FUNC:
            self._make_guards(index)
            index = self._functions[index]
        return named(name) + bytes((sort,)) + unsigned(index)

    def _alias(self, section: Reader) -> bytes:
        sort = section.byte()
        core_sort = section.byte() if sort == CORE else -1
        head = bytes((sort, core_sort) if sort == CORE else (sort,))
        target, index = section.byte(), section.number()
        if core_sort in (CORE_MODULE, CORE_INSTANCES):
            raise UnknownError
        if target == 2:
            return head + b"\2" + unsigned(index) + unsigned(section.number())
        name = section.name()
        if target == 0 and sort != CORE:
            if sort == FUNC:
                interface = self._imported[index]
                key = (interface.removeprefix(OWN).partition("@")[0], name)
                self._asked.append(key if interface.startswith(OWN) and key in _ASKED else None)
            elif sort == INSTANCES:
                self._imported.append("")
            return head + b"\0" + unsigned(index) + named(name)
        if target != 1 or sort != CORE:
            raise UnknownError
        if core_sort == CORE_FUNC:
            number = self._define_function()
            interface, _, function = name.partition("#")
            if interface.startswith(LIFECYCLE) and function in _OFFERED:
                self._offered[number] = function
        return head + b"\1" + unsigned(self._instances[index]) + named(name)

    def _define_function(self) -> int:
        self._functions.append(self._function_count)
        self._function_count += 1
        return len(self._functions) - 1

    def _canon(self, section: Reader) -> bytes:
        kind = section.byte()
        if kind == _DROP:
            self._define_function()
            return bytes((kind,)) + unsigned(section.number())
        if kind not in (_LIFT, _LOWER) or section.byte() != 0:
            raise UnknownError  # a resource of its own names a core function in its type, where we don't look
        function, options = section.number(), self._options(section)
        memory = options.get(_MEMORY, -1)
        if kind == _LOWER:
            asked, number = self._asked[function], self._define_function()
            if asked is not None and memory >= 0:
                count, lists, fetched = _ASKED[asked]
                guard = Guard(number, memory, I32 * count, lists, *self._fetching(fetched, options))
                if guard.lists or guard.fetched is not None:
                    self._pending[number] = guard
            return bytes((kind, 0)) + unsigned(function) + _written(options)
        self._make_guards(function)
        lifted = self._functions[function]
        if function in self._offered and memory >= 0:
            lifted, options = self._guarded_export(function, memory, options)
        self._asked.append(None)
        return bytes((kind, 0)) + unsigned(lifted) + _written(options) + unsigned(section.number())

    def _guarded_export(self, function: int, memory: int, options: dict[int, int]) -> tuple[int, dict[int, int]]:
        """Return what is lifted in a function's place, which the component itself goes on using, and the options."""
        name = self._offered[function]
        parameters, fetched = _OFFERED[name]
        answers = name == _ANSWERS
        after = options.get(_POST_RETURN, -1) if answers else -1
        guard = Guard(function, memory, parameters, (), *self._fetching(fetched, options), True, answers, after)
        if not answers and guard.fetched is None:
            return self._functions[function], options
        ours = self._define_guards([guard])
        if answers and self._in_bulk:
            options = options | {_POST_RETURN: self._aliased(ours, "a")}
        return self._aliased(ours, "g0"), options

    def _fetching(self, fetched: Fetched | None, options: dict[int, int]) -> tuple[Fetched | None, int]:
        allocator = options.get(_REALLOC, -1)
        return (fetched, allocator) if self._in_bulk and allocator >= 0 else (None, -1)

    def _options(self, section: Reader) -> dict[int, int]:
        """Return the options of a canonical function, with what they name, by its number now; -1 is nothing."""
        options: dict[int, int] = {}
        for _ in range(section.number()):
            option = section.byte()
            if option in options or option not in (*_STRINGS, _MEMORY, *_FUNCTIONS):
                raise UnknownError
            index = -1 if option in _STRINGS else section.number()
            options[option] = self._functions[index] if option in _FUNCTIONS else index
        return options

    # -- ours ----------------------------------------------------------------------------------------------------------

    def _make_guards(self, used: int) -> None:
        """Define the guards that wait, all of them, where one of them is used first."""
        if used not in self._pending:
            return
        guards, self._pending = list(self._pending.values()), {}
        ours = self._define_guards(guards)
        for i, guard in enumerate(guards):
            self._functions[guard.function] = self._aliased(ours, f"g{i}")

    def _define_guards(self, guards: Sequence[Guard]) -> int:
        """Define an instance of guards; return its number."""
        memories = {guard.memory for guard in guards}
        if len(memories) != 1:
            raise UnknownError
        self._guards += len(guards)
        given = [_exported("m", CORE_MEMORY, memories.pop())]
        for i, guard in enumerate(guards):
            given.append(_exported(f"f{i}", CORE_FUNC, self._functions[guard.function]))
            if guard.fetched is not None:
                given.append(_exported(f"r{i}", CORE_FUNC, guard.allocator))
            if guard.after >= 0 and self._in_bulk:
                given.append(_exported("p", CORE_FUNC, guard.after))
        if self._in_bulk and self._hatch < 0:
            self._hatch = self._instantiated(hatch_module())
        arguments = {"": self._defined(b"\1" + vector(given))} | ({"h": self._hatch} if self._in_bulk else {})
        return self._instantiated(guard_module(guards, self._in_bulk), arguments)

    def _instantiated(self, module: bytes, arguments: dict[str, int] | None = None) -> int:
        self._output.append(section_of(MODULE, module))
        self._module_count += 1
        given = [_exported(name, CORE_INSTANCES, instance) for name, instance in (arguments or {}).items()]
        return self._defined(b"\0" + unsigned(self._module_count - 1) + vector(given))

    def _defined(self, instance: bytes) -> int:
        self._output.append(section_of(CORE_INSTANCE, vector([instance])))
        self._instance_count += 1
        return self._instance_count - 1

    def _aliased(self, instance: int, name: str) -> int:
        alias = bytes((CORE, CORE_FUNC, 1)) + unsigned(instance) + named(name)
        self._output.append(section_of(ALIAS, vector([alias])))
        self._function_count += 1
        return self._function_count - 1


def _exported(name: str, sort: int, index: int) -> bytes:
    return named(name) + bytes((sort,)) + unsigned(index)


def _written(options: dict[int, int]) -> bytes:
    """Return the options of a canonical function."""
    return vector([bytes((option,)) + (b"" if index < 0 else unsigned(index)) for option, index in options.items()])
