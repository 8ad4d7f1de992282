"""Python's own library for an identity that can't walk to it: where root has it in its home directory, for example.

Its directories are opened before the change of identity and looked into by these descriptors: the kernel then asks for
the rights on the directories themselves and the files in them, not for those on what lies above (proc(5), fd).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def hold_library() -> dict[str, int]:
    """Open each directory that modules are looked for in; return its descriptor by its path."""
    held: dict[str, int] = {}
    for place in dict.fromkeys(sys.path):
        if place and os.path.isdir(place):
            held[place] = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return held


def use_library(held: Mapping[str, int]) -> None:
    """Look for modules by descriptor where their path leads nowhere any more, those of loaded packages included."""
    lost: dict[str, str] = {}
    for place, descriptor in held.items():
        if os.access(place, os.R_OK | os.X_OK):
            os.close(descriptor)
        else:
            lost[place] = f"/proc/self/fd/{descriptor}"

    def found(place: str) -> str:
        near = max((each for each in lost if place == each or place.startswith(f"{each}/")), key=len, default="")
        return lost[near] + place[len(near) :] if near else place

    if not lost:
        return
    sys.path[:] = map(found, sys.path)
    sys.path_importer_cache.clear()
    for module in tuple(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):
            places[:] = map(found, places)
