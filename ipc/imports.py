"""Importing a library without one of its companions, which costs every process of a run for nothing."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def import_without(name: str) -> Iterator[None]:
    """Make `import name` fail within the context, unless it was imported before; later it works again."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # the documented way to make an import fail
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def import_hollow(*names: str, **attributes: object) -> Iterator[None]:
    """Make `import name` give a module with these attributes only, within the context, unless it was imported before.

    For a companion that can't be missing, and that nothing of ours ever makes the library use. Later it works again,
    also as a part of its package.
    """
    hollow = {name: types.ModuleType(name) for name in names if name not in sys.modules}
    for module in hollow.values():
        vars(module).update(attributes)
    sys.modules.update(hollow)
    try:
        yield
    finally:
        for name, module in hollow.items():
            del sys.modules[name]
            package, _, part = name.rpartition(".")
            if package and vars(sys.modules[package]).get(part) is module:
                delattr(sys.modules[package], part)
