"""Importing a library without one of its optional companions, which costs every process of a run for nothing."""

from __future__ import annotations

import contextlib
import sys
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
