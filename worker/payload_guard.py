"""Guards in front of what an actor hands over: a list that nothing can take is an error value, and no trap.

The engine makes a value of 48 bytes of each byte of a list before a host function is asked, and traps where those are
more than it moves at once. So a component's core functions are led through a module of ours, which looks at a list's
length first: for what it asks of its host, and for what `handle-message` answers. The rest of the component stays as it
is; one in which something isn't understood stays so altogether.

Source: the component model's Binary.md and CanonicalABI.md ("Flattening", "Despecialization").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ipc.broker.messages import MAX_PAYLOAD_BYTES

_HEAD: Final = b"\0asm\x0d\0\x01\0"
_MODULE, _CORE_INSTANCE, _COMPONENT, _INSTANCE, _ALIAS, _CANON, _START, _IMPORT, _EXPORT = 1, 2, 4, 5, 6, 8, 9, 10, 11
_CORE, _FUNC, _INSTANCES = 0x00, 0x01, 0x05
_CORE_FUNC, _CORE_MEMORY, _CORE_MODULE, _CORE_INSTANCES = 0x00, 0x02, 0x11, 0x12
_LIFT, _LOWER, _DROP = 0, 1, 3
_STRINGS, _MEMORY, _FUNCTIONS = 2, 3, (4, 5, 7)
"""Options of a canonical function: up to which they are encodings of strings; a memory; core functions."""
_OWN: Final = "airssys:core/"
_TOO_LARGE: Final = 3
"""`too-large` among the cases of `error` (wit/airssys-core.wit)."""


class _List(NamedTuple):
    """Where the length of a list lies among a core function's parameters, and whether there is one (an option)."""

    length: int
    there: int = -1


_ASKED: Final[dict[tuple[str, str], tuple[int, tuple[_List, ...]]]] = {
    ("host-messaging", "send"): (5, (_List(3),)),
    ("host-messaging", "request"): (6, (_List(3),)),
    ("host-messaging", "broadcast"): (3, (_List(1),)),
    ("host-messaging", "publish"): (5, (_List(3),)),
    ("storage", "set"): (5, (_List(3),)),
    ("storage", "compare-and-set"): (9, (_List(4, 2), _List(7, 5))),
    ("custom", "invoke"): (7, (_List(5),)),
}
"""(interface, function) → how many parameters it has as a core function, the last one where its result goes, and its
lists. That its type is this one is seen to when the component is loaded (`worker.actor`)."""
_LIFECYCLE: Final = "airssys:core/component-lifecycle@"
_ANSWERS: Final = "#handle-message"
_ANSWER_PARAMETERS: Final = 8
_DEPTH_MAX: Final = 8
"""So many components within each other are looked into: each has a copy of what is in it, and toolchains make two."""


class _UnknownError(Exception):
    """Something of this component isn't understood here."""


def guarded(component: bytes, depth: int = 0) -> bytes:
    """Return the component with its guards; as it is, where it needs none or has what isn't understood here.

    `depth` is in how many others it lies.
    """
    if not component.startswith(_HEAD) or depth > _DEPTH_MAX:
        return component
    try:
        return _Rewriting(component, depth).rewritten()
    except (_UnknownError, IndexError, UnicodeDecodeError):
        return component


class _Reader:
    """Reads a section."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        if self.at >= self.end:
            raise _UnknownError
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise _UnknownError

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise _UnknownError
        self.at += size
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        return self.take(self.number()).decode()


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _signed(value: int) -> bytes:
    encoded = bytearray()
    while not -0x40 <= value < 0x40:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)


def _sized(data: bytes) -> bytes:
    return _number(len(data)) + data


def _vector(items: Sequence[bytes]) -> bytes:
    return _number(len(items)) + b"".join(items)


def _named(name: str) -> bytes:
    return _sized(name.encode())


def _section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + _sized(content)


class _Guard(NamedTuple):
    """A core function that is to be guarded: its number, its memory's; its lists, none of which is what it answers."""

    function: int
    memory: int
    parameters: int
    lists: tuple[_List, ...]

    @property
    def answers(self) -> bool:
        return not self.lists

    def body(self, function: int) -> bytes:
        return _answering_body(function) if self.answers else _asking_body(function, self.parameters, self.lists)


class _Rewriting:
    """One pass over a component's sections; what is numbered anew is known by its old number."""

    def __init__(self, component: bytes, depth: int) -> None:
        self._input = component
        self._depth = depth
        self._output: list[bytes] = [_HEAD]
        self._functions: list[int] = []
        """Core function → its number now, or that of its guard."""
        self._instances: list[int] = []
        self._function_count = self._instance_count = self._module_count = 0
        """Of what is defined by now, ours included."""
        self._imported: list[str] = []
        """Component instance → under which name it is imported, "" where it isn't."""
        self._asked: list[tuple[str, str] | None] = []
        """Component function → (interface, name) of one of `_ASKED`."""
        self._pending: dict[int, _Guard] = {}
        """Core function → its guard, which isn't made yet."""
        self._answering: set[int] = set()
        self._guards = 0
        self._closed = self._changed_within = False

    def rewritten(self) -> bytes:
        reader = _Reader(self._input, len(_HEAD))
        while reader.at < reader.end:
            number, size = reader.byte(), reader.number()
            start = reader.at
            reader.take(size)
            self._section(number, _Reader(self._input, start, reader.at))
        return b"".join(self._output) if self._guards or self._changed_within else self._input

    def _section(self, number: int, section: _Reader) -> None:
        content = self._input[section.at : section.end]
        if number == _COMPONENT:
            within = guarded(content, self._depth + 1)
            self._changed_within = self._changed_within or within is not content
            content = within
        elif self._closed:
            pass
        elif number in (_START, _EXPORT):
            # They number what follows anew: no guards of this component's own behind them, where there were none.
            self._closed = not self._guards
        elif number == _MODULE:
            if self._guards:
                raise _UnknownError  # its number would be another one, wherever that is used
            self._module_count += 1
        elif number == _IMPORT:
            self._read_imports(section)
        elif number == _INSTANCE:
            count = section.number()
            if count > section.end - section.at:
                raise _UnknownError  # fewer bytes than instances
            self._imported += [""] * count
        elif number in (_CORE_INSTANCE, _ALIAS, _CANON):
            read = {_CORE_INSTANCE: self._core_instance, _ALIAS: self._alias, _CANON: self._canon}[number]
            # A section for each: a guard's come right before what uses it.
            for _ in range(section.number()):
                self._output.append(_section(number, b"\1" + read(section)))
            if section.at != section.end:
                raise _UnknownError
            return
        self._output.append(_section(number, content))

    # -- what is numbered ----------------------------------------------------------------------------------------------

    def _read_imports(self, section: _Reader) -> None:
        for _ in range(section.number()):
            if section.byte() > 1:
                raise _UnknownError
            name, kind = section.name(), section.byte()
            if kind == _CORE:
                section.byte()
                section.number()
                self._module_count += 1
            elif kind == 3:
                if section.byte() == 0:
                    section.number()
            elif kind in (_FUNC, 4, _INSTANCES):
                section.number()
                if kind == _FUNC:
                    self._asked.append(None)
                elif kind == _INSTANCES:
                    self._imported.append(name)
            else:
                raise _UnknownError

    def _core_instance(self, section: _Reader) -> bytes:
        kind = section.byte()
        if kind == 0:
            head = b"\0" + _number(section.number())
            parts = [self._argument(section) for _ in range(section.number())]
        elif kind == 1:
            head = b"\1"
            parts = [self._inline_export(section) for _ in range(section.number())]
        else:
            raise _UnknownError
        self._instances.append(self._instance_count)
        self._instance_count += 1
        return head + _vector(parts)

    def _argument(self, section: _Reader) -> bytes:
        name, sort, instance = section.name(), section.byte(), section.number()
        if sort != _CORE_INSTANCES:
            raise _UnknownError
        return _named(name) + bytes((sort,)) + _number(self._instances[instance])

    def _inline_export(self, section: _Reader) -> bytes:
        name, sort, index = section.name(), section.byte(), section.number()
        if sort == _CORE_INSTANCES:
            raise _UnknownError
        if sort == _CORE_FUNC:
            self._make_guards(index)
            index = self._functions[index]
        return _named(name) + bytes((sort,)) + _number(index)

    def _alias(self, section: _Reader) -> bytes:
        sort = section.byte()
        core_sort = section.byte() if sort == _CORE else -1
        head = bytes((sort, core_sort) if sort == _CORE else (sort,))
        target, index = section.byte(), section.number()
        if core_sort in (_CORE_MODULE, _CORE_INSTANCES):
            raise _UnknownError
        if target == 2:
            return head + b"\2" + _number(index) + _number(section.number())
        name = section.name()
        if target == 0 and sort != _CORE:
            if sort == _FUNC:
                interface = self._imported[index]
                key = (interface.removeprefix(_OWN).partition("@")[0], name)
                self._asked.append(key if interface.startswith(_OWN) and key in _ASKED else None)
            elif sort == _INSTANCES:
                self._imported.append("")
            return head + b"\0" + _number(index) + _named(name)
        if target != 1 or sort != _CORE:
            raise _UnknownError
        if core_sort == _CORE_FUNC:
            number = self._define_function()
            if name.startswith(_LIFECYCLE) and name.endswith(_ANSWERS):
                self._answering.add(number)
        return head + b"\1" + _number(self._instances[index]) + _named(name)

    def _define_function(self) -> int:
        self._functions.append(self._function_count)
        self._function_count += 1
        return len(self._functions) - 1

    def _canon(self, section: _Reader) -> bytes:
        kind = section.byte()
        if kind == _DROP:
            self._define_function()
            return bytes((kind,)) + _number(section.number())
        if kind not in (_LIFT, _LOWER) or section.byte() != 0:
            raise _UnknownError  # a resource of its own names a core function in its type, where we don't look
        function = section.number()
        options, memory = self._options(section)
        if kind == _LOWER:
            asked, number = self._asked[function], self._define_function()
            if asked is not None and memory >= 0:
                self._pending[number] = _Guard(number, memory, *_ASKED[asked])
            return bytes((kind, 0)) + _number(function) + options
        if function in self._answering and memory >= 0:
            self._pending[function] = _Guard(function, memory, _ANSWER_PARAMETERS, ())
            self._make_guards(function)
        self._asked.append(None)
        return bytes((kind, 0)) + _number(self._functions[function]) + options + _number(section.number())

    def _options(self, section: _Reader) -> tuple[bytes, int]:
        """Return the options of a canonical function, and the memory that they name, -1 where they name none."""
        options, memory = [], -1
        for _ in range(section.number()):
            option = section.byte()
            if option <= _STRINGS:
                options.append(bytes((option,)))
                continue
            if option not in (_MEMORY, *_FUNCTIONS):
                raise _UnknownError
            index = section.number()
            memory = index if option == _MEMORY else memory
            options.append(bytes((option,)) + _number(self._functions[index] if option in _FUNCTIONS else index))
        return _vector(options), memory

    # -- ours ----------------------------------------------------------------------------------------------------------

    def _make_guards(self, used: int) -> None:
        """Define the guards that wait, all of them, where one of them is used first."""
        if used not in self._pending:
            return
        guards, self._pending = list(self._pending.values()), {}
        memories = {guard.memory for guard in guards}
        if len(memories) != 1:
            raise _UnknownError
        self._guards += len(guards)
        exports = [_named("m") + bytes((_CORE_MEMORY,)) + _number(memories.pop())]
        exports += [
            _named(f"f{number}") + bytes((_CORE_FUNC,)) + _number(self._functions[guard.function])
            for number, guard in enumerate(guards)
        ]
        parts, ours = self._instance_count, self._instance_count + 1
        instances = [b"\1" + _vector(exports)]
        instances.append(b"\0" + _number(self._module_count) + _vector([_named("") + b"\x12" + _number(parts)]))
        aliases = [b"\0\0\1" + _number(ours) + _named(f"g{number}") for number in range(len(guards))]
        self._output.append(_section(_MODULE, _guard_module(guards)))
        self._output.append(_section(_CORE_INSTANCE, _vector(instances)))
        self._output.append(_section(_ALIAS, _vector(aliases)))
        self._module_count += 1
        self._instance_count += 2
        for guard in guards:
            self._functions[guard.function] = self._function_count
            self._function_count += 1


# ---- the module of the guards (WebAssembly core, 5.5)

_I32, _I64 = b"\x7f", b"\x7e"


def _guard_module(guards: Sequence[_Guard]) -> bytes:
    types = [
        b"\x60" + _vector([_I32] * guard.parameters) + _vector([_I32] if guard.answers else []) for guard in guards
    ]
    imports = [_named("") + _named("m") + b"\2\0\0"]
    imports += [_named("") + _named(f"f{number}") + b"\0" + _number(number) for number in range(len(guards))]
    exports = [_named(f"g{number}") + b"\0" + _number(len(guards) + number) for number in range(len(guards))]
    bodies = [_sized(guard.body(number)) for number, guard in enumerate(guards)]
    return b"".join(
        (
            b"\0asm\1\0\0\0",
            _section(1, _vector(types)),
            _section(2, _vector(imports)),
            _section(3, _vector([_number(number) for number in range(len(guards))])),
            _section(7, _vector(exports)),
            _section(10, _vector(bodies)),
        )
    )


def _get(local: int) -> bytes:
    return b"\x20" + _number(local)


def _say_too_large(local: int) -> bytes:
    """Write `err(too-large(MAX))` where a local points: result<_, error>, whose error has the alignment of a u64."""
    return b"".join(
        (
            _get(local) + b"\x41\1\x3a\0\0",  # i32.store8 offset=0: err
            _get(local) + b"\x41" + _signed(_TOO_LARGE) + b"\x3a\0\x08",  # i32.store8 offset=8: the case
            _get(local) + b"\x42" + _signed(MAX_PAYLOAD_BYTES) + b"\x37\3\x10",  # i64.store offset=16: its payload
        )
    )


def _asking_body(function: int, parameters: int, lists: Sequence[_List]) -> bytes:
    total = b"\x42\0"  # i64.const 0
    for one in lists:
        total += _get(one.length) + b"\xad"  # i64.extend_i32_u
        if one.there >= 0:
            total += b"\x42\0" + _get(one.there) + b"\x1b"  # select: 0 where there is none
        total += b"\x7c"  # i64.add
    refuse = b"\x04\x40" + _say_too_large(parameters - 1) + b"\x0f\x0b"  # if … return end
    passed = b"".join(_get(number) for number in range(parameters)) + b"\x10" + _number(function)
    return b"\0" + total + b"\x42" + _signed(MAX_PAYLOAD_BYTES) + b"\x56" + refuse + passed + b"\x0b"  # i64.gt_u


def _answering_body(function: int) -> bytes:
    result = _ANSWER_PARAMETERS
    called = b"".join(_get(number) for number in range(_ANSWER_PARAMETERS)) + b"\x10" + _number(function)
    is_ok = _get(result) + b"\x2d\0\0\x45"  # i32.load8_u offset=0, i32.eqz
    is_some = _get(result) + b"\x2d\0\x08"
    is_long = _get(result) + b"\x28\2\x10\x41" + _signed(MAX_PAYLOAD_BYTES) + b"\x4b"  # i32.load offset=16, i32.gt_u
    replaced = b"\x04\x40" + _say_too_large(result) + b"\x0b"
    body = called + b"\x21" + _number(result)  # local.set
    return b"\1\1" + _I32 + body + is_ok + is_some + b"\x71" + is_long + b"\x71" + replaced + _get(result) + b"\x0b"
