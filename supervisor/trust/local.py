"""Who else could put something where a package lies: each directory from the root down to it, and each of its files.

A `local` entry trusts a place. Where another user can write, anybody's component could lie.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from supervisor.packages.provenance import Provenance
from supervisor.terminal import visible
from supervisor.trust.decide import Exposure

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_ENTRIES_MAX: Final = 10_000


def open_place(real_path: str) -> tuple[int, tuple[Exposure, ...]]:
    """Return a directory, opened name by name and never through a link, and who could have exchanged it on the way.

    The descriptor (O_PATH) is the caller's. Raises ConfigError where the path isn't a real one, or not any more.
    """
    descriptor, exposed, loose = _descend(real_path)
    return descriptor, (*exposed, *_exchangeable(real_path, loose))


def exposed_program(path: str) -> str:
    """Return how others than root and this user could have another program run by this name; "" where nobody can.

    Links are followed. Raises ConfigError where it isn't there.
    """
    real = os.path.realpath(path)
    descriptor, _, loose = _descend(os.path.dirname(real))
    try:
        found = (
            *_exchangeable(real, loose),
            *exposed_files(descriptor, os.path.dirname(real), [os.path.basename(real)]),
        )
    finally:
        os.close(descriptor)
    return f"{found[0].path} {found[0].why}" if found else ""


def exposed_project(real_path: str, files: Sequence[str], owner: int) -> str:
    """Return how others than root, this user and `owner` could have something else lie in a directory, "" for nobody.

    `files` are those of it that decide what runs. Raises ConfigError where it isn't there.
    """
    descriptor, exposed, loose = _descend(real_path, owner)
    try:
        own = [each for each in exposed if each.path == real_path]
        found = (*own, *_exchangeable(real_path, loose), *exposed_files(descriptor, real_path, files, owner))
    finally:
        os.close(descriptor)
    return f"{found[0].path} {found[0].why}" if found else ""


def _descend(real_path: str, owner: int = 0) -> tuple[int, Sequence[Exposure], Sequence[str]]:
    """Return an open directory, who else could write on the way to it, and in which directories others can rename.

    `owner` is nobody else, as root and this user aren't.
    """
    exposed: list[Exposure] = []
    loose: list[str] = []
    at = os.open("/", _STEP)
    path = "/"
    try:
        _look(exposed, loose, path, os.fstat(at), owner)
        for name in [name for name in real_path.split("/") if name]:
            path = os.path.join(path, name)
            further = os.open(name, _STEP, dir_fd=at)
            os.close(at)
            at = further
            _look(exposed, loose, path, os.fstat(at), owner)
    except OSError as error:
        os.close(at)
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None
    return at, exposed, loose


def _exchangeable(path: str, loose: Sequence[str]) -> tuple[Exposure, ...]:
    """Return that others can put something else in a path's place, by what they can rename above it."""
    above = next((each for each in reversed(loose) if each != path), "")
    return (Exposure(path, f"lies in {above}, where others can exchange it"),) if above else ()


def exposed_files(directory: int, real_path: str, files: Sequence[str], owner: int = 0) -> tuple[Exposure, ...]:
    """Return who else could write these files of a package, or a directory of it on the way to them."""
    exposed: list[Exposure] = []
    inner = {"/".join(file.split("/")[:depth]) for file in files for depth in range(1, file.count("/") + 2)}
    for path in sorted(inner):
        whole = os.path.join(real_path, path)
        try:
            _look(exposed, [], whole, os.stat(path, dir_fd=directory, follow_symlinks=False), owner)
        except OSError as error:
            exposed.append(Exposure(whole, f"can't be looked at: {os.strerror(error.errno or 0).lower()}"))
    return tuple(exposed)


def exposures_of(provenance: Provenance, files: Sequence[str] = ()) -> tuple[Exposure, ...] | None:
    """Return who else could have exchanged what came from a path of this machine; None for what came from elsewhere.

    `files` are those of a directory's package. A path that isn't a real one, or is gone, is exposed itself.
    """
    path = _path_of(provenance)
    if path is None:
        return None
    directory = os.path.dirname(path) if provenance.kind == "archive" else path
    try:
        if os.path.realpath(path) != path:
            return (Exposure(path, f"is really {os.path.realpath(path)}"),)
        descriptor, exposed, loose = _descend(directory)
    except ConfigError as error:
        return (Exposure(path, f"can't be looked at: {error.message}"),)
    try:
        if provenance.kind == "archive":
            files = (os.path.basename(path),)
        elif provenance.kind == "git":
            elsewhere = _leading_away(directory)
            if elsewhere:
                return (Exposure(elsewhere, "leads to a repository elsewhere"),)
            files = _of_repository(directory)
        if len(files) > _ENTRIES_MAX:
            return (Exposure(path, f"holds more than the {_ENTRIES_MAX} entries that are looked at"),)
        return (*exposed, *_exchangeable(path, loose), *exposed_files(descriptor, directory, files))
    finally:
        os.close(descriptor)


def _path_of(provenance: Provenance) -> str | None:
    if provenance.kind in ("directory", "archive"):
        return provenance.url
    url = provenance.url.removeprefix("git+")
    return url.removeprefix("file://") if url.startswith("file:///") else None


def _leading_away(directory: str) -> str:
    """Return the file by which a directory only stands for another repository (gitrepository-layout(5)), or ""."""
    candidates = (".git", "commondir", ".git/commondir")
    found = (os.path.join(directory, name) for name in candidates)
    return next((path for path in found if os.path.isfile(path)), "")


def _of_repository(directory: str) -> tuple[str, ...]:
    """Return what decides which commit a branch of a repository is: what lies at its top, and its references.

    Objects aren't among it: they are called by their digests.
    """
    found: list[str] = []
    for top in ("", ".git"):
        try:
            names = os.listdir(os.path.join(directory, top))
        except OSError:
            continue
        found.extend(os.path.join(top, name) for name in names)
        for references in ("refs", "reftable"):
            for inner, directories, files in os.walk(os.path.join(directory, top, references)):
                found.extend(os.path.relpath(os.path.join(inner, name), directory) for name in (*directories, *files))
    return tuple(found)


def _look(exposed: list[Exposure], loose: list[str], path: str, status: os.stat_result, owner: int) -> None:
    """Note a path that others than root, this user and `owner` may write: who owns it, its group, or everybody.

    In a `loose` one they can also rename what isn't theirs, which the sticky bit keeps all but its owner from.
    """
    if status.st_uid not in (0, os.getuid(), owner):
        loose.append(path)
        exposed.append(Exposure(path, f"belongs to uid {status.st_uid}"))
    elif stat.S_ISLNK(status.st_mode):
        exposed.append(Exposure(path, "is a link, and what it leads to isn't looked at"))
    elif status.st_mode & _WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        if not mode & stat.S_ISVTX:
            loose.append(path)
        exposed.append(Exposure(path, f"is writable by others (mode {mode:04o}); chmod go-w"))
