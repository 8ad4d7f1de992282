"""What can be seen of a provider's program before it is started: whether it is there, and who else could change it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import BuiltinImporter, PathFinder

from ipc.struct import Struct
from supervisor.fleet.provider_settings import ProviderSettings


class ProviderProblem(Struct, frozen=True):
    """Why a provider can't be started, or must not be; what mends it."""

    provider: str
    key: str
    problem: str
    hint: str


def provider_problems(providers: Sequence[ProviderSettings]) -> tuple[ProviderProblem, ...]:
    """Look at the programs; nothing of them is run."""
    return tuple(problem for each in providers for problem in _look(each))


def _look(provider: ProviderSettings) -> Iterator[ProviderProblem]:
    if provider.command:
        program = provider.command[0]
        wrong = _wrong_file(program) or ("" if os.access(program, os.X_OK) else "it may not be executed")
        if wrong:
            yield ProviderProblem(provider.name, "command", f"{program}: {wrong}", 'name a program: command = ["/…"]')
            return
        yield from _others(provider, "command", program)
        return
    if provider.path and not os.path.isdir(provider.path):
        yield ProviderProblem(
            provider.name, "path", f"{provider.path}: no such directory", "path is where the module is"
        )
        return
    module = provider.python.partition(":")[0].partition(".")[0]
    where = [*sys.path, *([provider.path] if provider.path else [])]
    spec = BuiltinImporter.find_spec(module) or PathFinder.find_spec(module, where)
    if spec is None:
        hint = f"put {module}.py into {provider.path}" if provider.path else 'say where it is: path = "/directory"'
        yield ProviderProblem(provider.name, "python", f"there is no module {module}", hint)
    elif spec.origin and provider.path and spec.origin.startswith(provider.path.rstrip("/") + "/"):
        yield from _others(provider, "python", spec.origin)


def _wrong_file(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    return "" if stat.S_ISREG(status.st_mode) else "not a regular file"


def _others(provider: ProviderSettings, key: str, path: str) -> Iterator[ProviderProblem]:
    """Name what others than its owner can write; a sticky directory such as /tmp will do."""
    for place in (path, os.path.dirname(path)):
        status = os.stat(place)
        loose = status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
        if loose:
            what = f"{place}: others than its owner can write it (mode {stat.S_IMODE(status.st_mode):04o})"
            yield ProviderProblem(provider.name, key, what, f"chmod go-w {place}")
