"""`airssys run … --write-manifest FILE`: where it may be written, and what it is written from."""

from __future__ import annotations

import os
import stat

from ipc.errors import ConfigError
from supervisor.manifest_writer import Anchor, Draft, manifest_text, parameter_anchors
from supervisor.run_report import DecisionTally
from supervisor.run_request import DEFAULT_OUTPUT_BYTES, RunRequest
from supervisor.terminal import visible
from supervisor.usage import Uses, smallest_patterns

_COUNTED_MAX = 20_000


class LocalDisk:
    """What is on this machine's disk now."""

    def __init__(self) -> None:
        """Ask about each path once."""
        self._kinds: dict[str, str] = {}

    def kind(self, path: str) -> str:
        """Return file, directory, other or missing."""
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

    def files_beneath(self, directory: str, deep: bool) -> int | None:
        """Count the files in a directory, or in all beneath it; None when there are too many to count."""
        count = 0
        for _, directories, names in os.walk(directory):
            count += len(names)
            if count > _COUNTED_MAX:
                return None
            if not deep:
                directories.clear()
        return count


def check_manifest_place(path: str, wasm_path: str) -> None:
    """Raise ConfigError, before anything runs, where it could not be written or would not find its program."""
    if os.path.lexists(path):
        raise ConfigError(f"--write-manifest {visible(path)}: it exists; nothing is overwritten")
    directory = os.path.realpath(os.path.dirname(path) or ".")
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise ConfigError(f"--write-manifest {visible(path)}: {visible(directory)} can't be written")
    program = os.path.realpath(wasm_path)
    if not program.startswith(directory.rstrip("/") + "/"):
        raise ConfigError(
            f"--write-manifest {visible(path)}: a manifest names a program beneath its own directory",
            hint=f"write it beside the program, as {visible(os.path.join(os.path.dirname(program), 'Component.toml'))}",
        )


def write_manifest(
    path: str,
    request: RunRequest,
    tally: DecisionTally,
    passed_on: tuple[str, ...],
    secrets: tuple[str, ...],
    cwd: str,
    tmp: str,
) -> str:
    """Write the manifest of a finished run to `path`; return a line that says so."""
    directory = os.path.realpath(os.path.dirname(path) or ".")
    uses = Uses() if tally.uses is None else tally.uses
    patterns = smallest_patterns(uses.by_action, LocalDisk())
    used = [resource for paths in uses.by_action.values() for resource in paths]
    mounts = tuple(_needed_mounts(request.mounts, used))
    fixed = (Anchor("${component}", directory), Anchor("${tmp}", tmp))
    wanted = [(cwd, "the working directory"), *((host, f"seen as {guest}") for guest, host in mounts if guest != host)]
    anchors = (*fixed, *parameter_anchors(wanted, (directory, tmp)))
    limits = request.limits
    written = manifest_text(
        Draft(
            name=request.component,
            version=request.version or "0.1.0",
            wasm=os.path.relpath(os.path.realpath(request.wasm_path), directory),
            arguments=request.arguments[1:],
            environment=tuple(pair for pair in request.environment if pair[0] not in (*secrets, *passed_on)),
            passed_on=passed_on,
            secrets=secrets,
            mounts=mounts,
            anchors=anchors,
            patterns=patterns,
            denied=tuple((d.action.removeprefix("filesystem."), d.resource) for d in tally.denials.values()),
            memory_bytes=limits.memory_bytes,
            timeout_ns=limits.timeout_ns,
            fuel=limits.fuel,
            output_bytes=limits.output_bytes if limits.output_bytes != DEFAULT_OUTPUT_BYTES else None,
        )
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(written)
    except OSError as error:
        raise ConfigError(f"--write-manifest {visible(path)}: {os.strerror(error.errno or 0)}") from None
    count = sum(len(found) for found in patterns.values())
    return f"wrote {visible(path)}: {count} patterns for {uses.count} things used; review it, then run its directory"


def _needed_mounts(mounts: tuple[tuple[str, str], ...], used: list[str]) -> list[tuple[str, str]]:
    """Return the mounts that a manifest has to name: those beneath which something was used; guest paths absolute."""
    needed = []
    for guest, host in mounts:
        if (guest, host) == ("/", "/"):
            continue
        if guest == "." or any(path == host or path.startswith(host.rstrip("/") + "/") for path in used):
            name = guest if guest == "." or guest.startswith("/") else "/" + guest.removeprefix("./")
            needed.append((name, host))
    return needed
