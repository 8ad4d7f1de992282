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
def import_hollow(name: str) -> Iterator[None]:
    """Make `import name` give an empty module within the context, unless it was imported before; later it works again.

    For a companion that can't be missing, and that nothing of ours ever makes the library call.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
