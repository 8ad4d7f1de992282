"""`dataclasses.dataclass(slots=True)`, whose methods are made when the class is first used and not when it is defined.

The standard decorator writes and compiles up to eight methods a class: half a millisecond, for some fifty classes in
each of three processes. Here a definition costs a tenth of that; `__init__` is compiled at the first instance, and all
else is made by the standard library itself at its first use (`==`, `hash`, `repr`, `dataclasses.fields`, `replace`, …),
which most classes of a run never see.
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
    _GENERATED = ("__repr__", "__eq__", "__hash__")
    _FIELD_OPTIONS = {"default", "default_factory", "init", "repr", "compare", "hash"}
    _DEFAULTS = {"default", "default_factory"}
    _ABSENT = object()
    _FOUND = ("__dataclass_fields__", "__dataclass_params__")

    def replace(value, /, **changes):
        """Return a copy with other values in some fields, as `dataclasses.replace`."""
        return type(value)(**{name: getattr(value, name) for name in value.__match_args__} | changes)

    def field(**options):
        """Describe a field, as `dataclasses.field`."""
        if not options.keys() <= _FIELD_OPTIONS:
            raise TypeError(f"field: only {sorted(_FIELD_OPTIONS)}, here")
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
        """Return the slotted twin of `plain`, with stubs that have it made and take over."""
        if plain.__bases__ != (object,):
            raise TypeError(f"{plain.__qualname__}: no base class, here")
        names = tuple(name for name, kind in plain.__dict__.get("__annotations__", {}).items() if not _of_class(kind))
        namespace = {
            name: value for name, value in plain.__dict__.items() if name not in (*names, "__dict__", "__weakref__")
        }
        defaults = {name: plain.__dict__[name] for name in names if name in plain.__dict__}
        given = tuple(name for name in names if _options(defaults, name).get("init", True))
        namespace |= {"__slots__": names, "__match_args__": given, "__qualname__": plain.__qualname__}
        namespace |= {
            "__lazy_fields__": names,
            "__lazy_defaults__": frozenset(n for n in names if _options(defaults, n).keys() & _DEFAULTS),
        }
        namespace["__init__"] = _init_stub(names, defaults, frozen, "__post_init__" in namespace)
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

    def _init_stub(names, defaults, frozen, has_post_init):
        """Return an `__init__` that writes the real one at the first instance: one method compiled, not eight."""

        def __init__(self, *values, **named):  # noqa: N807
            made_class = type(self)
            made_class.__init__ = _init(made_class, names, defaults, frozen, has_post_init)
            made_class.__init__(self, *values, **named)

        return __init__

    def _init(made_class, names, defaults, frozen, has_post_init):
        """Compile what the standard library would: parameters in order, each stored in its slot."""
        seen = {"_set": object.__setattr__, "_absent": _ABSENT}
        parameters, lines = ["self"], []
        for name in names:
            options = _options(defaults, name)
            value, default = name, ""
            if "default_factory" in options:
                seen |= {f"_make_{name}": options["default_factory"], f"_default_{name}": _ABSENT}
                value, default = f"_make_{name}() if {name} is _absent else {name}", f"=_default_{name}"
            elif "default" in options:
                seen[f"_default_{name}"] = options["default"]
                default = f"=_default_{name}"
            if options.get("init", True):
                parameters.append(name + default)
            elif default:
                lines.append(f"{name} = _default_{name}")
            else:
                continue  # __post_init__ sets it
            lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
        if has_post_init:
            lines.append("self.__post_init__()")
        exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), seen)  # noqa: S102
        method = seen["__init__"]
        method.__qualname__ = f"{made_class.__qualname__}.__init__"
        return method

    def _options(defaults, name):
        if name not in defaults:
            return {}
        default = defaults[name]
        return default.options if isinstance(default, _LaterField) else {"default": default}

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


def field_names(cls: type) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields, and None for another class; has nothing made for it."""
    names: tuple[str, ...] | None = getattr(cls, "__lazy_fields__", None)
    if names is None and hasattr(cls, "__dataclass_fields__"):
        from dataclasses import fields  # the standard decorator's

        return tuple(each.name for each in fields(cls))
    return names


def has_default(cls: type, name: str) -> bool:
    """Whether a field may be left out."""
    names: frozenset[str] | None = getattr(cls, "__lazy_defaults__", None)
    if names is None:
        from dataclasses import MISSING, fields

        return any(
            each.name == name and not (each.default is MISSING and each.default_factory is MISSING)
            for each in fields(cls)
        )
    return name in names
