"""`dataclasses.dataclass(slots=True)`, whose methods are made when the class is first used and not when it is defined.

The standard decorator writes and compiles up to eight methods a class: half a millisecond, for some fifty classes in
each of three processes, most of which a run never touches. Here a definition costs a tenth of that; at the first
instance (or `fields`, `replace`, …) the standard library makes the methods, so what they do is exactly what it says.
Type checkers see `dataclasses` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:
    import _thread

    # Two threads may meet a class for the first time together; the second waits.
    _lock = _thread.RLock()
    _GENERATED = ("__init__", "__repr__", "__eq__", "__hash__")
    _FOUND = ("__dataclass_fields__", "__dataclass_params__")

    def replace(value, /, **changes):
        """Return a copy with other values in some fields, as `dataclasses.replace`."""
        import dataclasses

        return dataclasses.replace(value, **changes)

    def field(**options):
        """Describe a field, as `dataclasses.field`."""
        return _LaterField(options)

    class _LaterField:
        __slots__ = ("options",)

        def __init__(self, options):
            self.options = options

    def dataclass(*, slots, frozen=False):
        """Make a slotted dataclass; `slots` is there to be written as for `dataclasses.dataclass`."""
        if not slots:
            raise TypeError("only slotted classes")
        return lambda plain: _define(plain, frozen)

    def _define(plain, frozen):
        """Return the slotted twin of `plain`, with stubs that have `plain` completed and take over its methods."""
        if plain.__bases__ != (object,):
            raise TypeError(f"{plain.__qualname__}: no base class, here")
        names = tuple(name for name, kind in plain.__dict__.get("__annotations__", {}).items() if not _of_class(kind))
        namespace = {
            name: value for name, value in plain.__dict__.items() if name not in (*names, "__dict__", "__weakref__")
        }
        namespace |= {"__slots__": names, "__match_args__": names, "__qualname__": plain.__qualname__}
        made = []

        def complete():
            with _lock:
                if not made:
                    _generate(plain, made_class, names, frozen, written)
                    made.append(True)

        # What the class itself wrote stays; only what the standard library would make is stood in for.
        written = frozenset(name for name in _GENERATED if name in namespace)
        for name in _GENERATED:
            if name not in written and (name != "__hash__" or frozen):
                namespace[name] = _stub(name, complete)
        if not frozen and "__hash__" not in written:
            namespace["__hash__"] = None
        for name in _FOUND:
            namespace[name] = _Found(name, complete)
        if frozen:
            namespace |= {
                "__setattr__": _refuse_to_set,
                "__delattr__": _refuse_to_delete,
                "__getstate__": _get_state,
                "__setstate__": _set_state,
            }
        made_class = type(plain)(plain.__name__, plain.__bases__, namespace)
        return made_class

    def _of_class(kind):
        return (kind if isinstance(kind, str) else str(kind).removeprefix("typing.")).startswith("ClassVar")

    def _generate(plain, made_class, names, frozen, written):
        import dataclasses

        for name in names:
            default = plain.__dict__.get(name)
            if isinstance(default, _LaterField):
                setattr(plain, name, dataclasses.field(**default.options))
        dataclasses.dataclass(frozen=frozen)(plain)
        for name in (*_GENERATED, *_FOUND):
            if name not in written:
                setattr(made_class, name, plain.__dict__[name])

    def _stub(name, complete):
        def method(self, *values, **named):
            complete()
            return getattr(type(self), name)(self, *values, **named)

        method.__name__ = name
        return method

    class _Found:
        """A class attribute that isn't known before the class is completed."""

        __slots__ = ("complete", "name")

        def __init__(self, name, complete):
            self.name = name
            self.complete = complete

        def __get__(self, instance, owner):
            self.complete()
            return getattr(owner, self.name)

    def _refuse_to_set(self, name, value):
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_to_delete(self, name):
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _get_state(self):
        return [getattr(self, name) for name in self.__slots__]

    def _set_state(self, state):
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)
