"""`airssys run … --write-manifest FILE`: where it may be written, and what it is written from."""

from __future__ import annotations

import os
import stat

from ipc.errors import ConfigError
from supervisor.config.toml_source import MAX_FILE_BYTES
from supervisor.config.units import UNLIMITED, format_size
from supervisor.manifest.checks import check_guest_path, check_wasm_path
from supervisor.manifest.writer import (
    Anchor,
    Draft,
    can_be_a_value,
    is_text,
    manifest_text,
    parameter_anchors,
    parameter_of,
)
from supervisor.run.disk_view import VISITED_MAX
from supervisor.run.report import DecisionTally
from supervisor.run.request import DEFAULT_OUTPUT_BYTES, RunRequest
from supervisor.run.usage import WRITE, Uses, smallest_patterns
from supervisor.terminal import visible


class LocalDisk:
    """What is on this machine's disk now; each thing is asked once."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._kinds: dict[str, str] = {}
        self._names: dict[str, tuple[str, ...] | None] = {}

    def kind(self, path: str) -> str:
        """Return file, directory, other or missing; a symbolic link is other."""
        found = self._kinds.get(path)
        if found is None:
            try:
                mode = os.lstat(path).st_mode
            except (OSError, ValueError):
                found = "missing"
            else:
                found = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
            self._kinds[path] = found
        return found

    def names(self, directory: str) -> tuple[str, ...] | None:
        """Return the names in a directory; None where they can't be listed, or are too many to be worth it."""
        if directory not in self._names:
            self._names[directory] = self._list(directory)
        return self._names[directory]

    def _list(self, directory: str) -> tuple[str, ...] | None:
        names: list[str] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if len(names) == VISITED_MAX:
                        return None
                    names.append(entry.name)
                    if entry.is_file(follow_symlinks=False):
                        self._kinds.setdefault(entry.path, "file")
        except OSError:
            return None
        return tuple(names)


def check_manifest_place(path: str, wasm_path: str) -> None:
    """Raise ConfigError, before anything runs, where it could not be written or would not find its program."""
    if os.path.lexists(path):
        raise ConfigError(f"--write-manifest {visible(path)}: it exists; nothing is overwritten")
    directory = os.path.realpath(os.path.dirname(path) or ".")
    if not os.path.isdir(directory):
        raise ConfigError(
            f"--write-manifest {visible(path)}: {visible(directory)} is no directory", hint="make it first"
        )
    if not os.access(directory, os.W_OK):
        raise ConfigError(
            f"--write-manifest {visible(path)}: {visible(directory)} can't be written by this user",
            hint="name another place",
        )
    if not can_be_a_value(directory):
        raise ConfigError(
            f"--write-manifest {visible(path)}: no component can be in {visible(directory)}",
            hint="move the program to a place whose name is printable and holds none of *?[] and ${",
        )
    program = os.path.realpath(wasm_path)
    if not program.startswith(directory.rstrip("/") + "/"):
        raise ConfigError(
            f"--write-manifest {visible(path)}: a manifest names a program beneath its own directory",
            hint=f"write it beside the program, as {visible(os.path.join(os.path.dirname(program), 'Component.toml'))}",
        )
    if check_wasm_path(os.path.relpath(program, directory)) is not None:
        raise ConfigError(f"--write-manifest {visible(path)}: a manifest can't name a program called {program!a}")


def write_manifest(
    path: str,
    request: RunRequest,
    tally: DecisionTally,
    passed_on: tuple[str, ...],
    secrets: tuple[str, ...],
    cwd: str,
    own: tuple[tuple[str, str], ...],
) -> str:
    """Write the manifest of a finished run to `path`; return a line that says so.

    `own` are the variables that every manifest has, beside `${component}`, with their directories of this run.
    """
    directory = os.path.realpath(os.path.dirname(path) or ".")
    uses = Uses() if tally.uses is None else tally.uses
    patterns = smallest_patterns(uses.by_action, LocalDisk(), uses.names)
    used = [resource for paths in uses.by_action.values() for resource in paths]
    passed_on = tuple(dict.fromkeys(passed_on))
    secrets = tuple(dict.fromkeys(secrets))
    environment = tuple(pair for pair in request.environment if pair[0] not in (*secrets, *passed_on))
    arguments = request.arguments[1:]
    named = (*arguments, *(value for _, value in environment))
    # What was refused is to be refused again, and by its true name.
    mounts, unnamed = _needed_mounts(request.mounts, [*used, *(d.resource for d in tally.denials.values())], named)
    notes = [f"Seen in that run as {guest!a}, for which a manifest has no name." for guest in unnamed]
    notes += [f"Not UTF-8, and so not written as it was: {text!a}" for text in named if not is_text(text)]
    fixed = (Anchor("${component}", directory), *(Anchor(name, place) for name, place in own))
    wanted = [(cwd, "the working directory"), *((host, f"seen as {guest}") for guest, host in mounts if guest != host)]
    anchors = (*fixed, *parameter_anchors(wanted, [anchor.directory for anchor in fixed], map(parameter_of, passed_on)))
    limits = request.limits
    written = manifest_text(
        Draft(
            name=request.component,
            version=request.context.version or "0.1.0",
            wasm=os.path.relpath(os.path.realpath(request.wasm_path), directory),
            arguments=arguments,
            environment=environment,
            passed_on=passed_on,
            secrets=secrets,
            mounts=mounts,
            anchors=anchors,
            patterns=patterns,
            denied=tuple((d.action.removeprefix("filesystem."), d.resource) for d in tally.denials.values()),
            memory_bytes=limits.memory_bytes,
            storage=_storage(limits.storage_bytes) if WRITE in patterns else "",
            timeout_ns=limits.timeout_ns,
            fuel=limits.fuel,
            output_bytes=limits.output_bytes if limits.output_bytes != DEFAULT_OUTPUT_BYTES else None,
            notes=tuple(notes),
        )
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(written)
    except OSError as error:
        raise ConfigError(f"--write-manifest {visible(path)}: {os.strerror(error.errno or 0)}") from None
    count = sum(len(found) for found in patterns.values())
    return _told(path, count, uses.count, len(written.encode()))


def _told(path: str, patterns: int, things: int, size_bytes: int) -> str:
    """Return the line that says what was written."""
    what = f"{patterns} pattern{'s' * (patterns != 1)} for {things} thing{'s' * (things != 1)} used"
    if size_bytes > MAX_FILE_BYTES:
        at_most = f"it is larger than a manifest may be ({MAX_FILE_BYTES // 1024} KiB)"
        return f"wrote {visible(path)}: {what}; {at_most}: replace names by patterns before you run it"
    return f"wrote {visible(path)}: {what}; review it, then run its directory"


def _storage(limit_bytes: int | None) -> str:
    return format_size(UNLIMITED if limit_bytes is None else limit_bytes)


def _needed_mounts(
    mounts: tuple[tuple[str, str], ...], used: list[str], named: tuple[str, ...]
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the mounts that a manifest has to name, and the guest's names that no manifest can give.

    Those beneath which something was used. A directory that was mounted by its own name is left out where another one
    gives the same names, and where all that was used in it lies beneath `.` and no argument or variable of `named`
    tells the program its absolute name.
    """
    here = next((host for guest, host in mounts if guest == "."), "/")
    outside = [path for path in used if not _is_within(path, here)]
    needed: list[tuple[str, str]] = []
    unnamed: list[str] = []
    for guest, host in sorted(mounts, key=lambda mount: len(mount[1])):
        if (guest, host) == ("/", "/"):
            continue
        real = os.path.realpath(host)  # what was used has its real name, and /lib may be a link
        if guest == host:
            told = any(f"{host}/" in f"{text}/" for text in named)
            same = any(other == name and _is_within(host, other) for name, other in needed)
            if same or not any(_is_within(path, real) for path in (used if told else outside)):
                continue
        elif guest != "." and not any(_is_within(path, real) for path in used):
            continue
        name = guest if guest == "." or guest.startswith("/") else "/" + guest.removeprefix("./")
        name = name.rstrip("/") or "/"
        if check_guest_path(name) is None and can_be_a_value(host):
            needed.append((name, host))
        else:
            unnamed.append(guest)
    # `.` comes last: of names of one length it is the last that counts.
    return tuple(sorted(needed, key=lambda mount: mount[0] == ".")), unnamed


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
