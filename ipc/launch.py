"""How the supervisor names what a forked process is to run, without importing it: by module and function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from ipc.struct import Struct


class ByName(Struct, frozen=True):
    """A picklable callable: imports `module` where it is called, and calls `function` with packed bytes."""

    module: str
    function: str

    def __call__(self, packed: bytes) -> None:
        """Import and call."""
        target = cast(Callable[[bytes], None], getattr(importlib.import_module(self.module), self.function))
        target(packed)
