"""What is to be run, as a value: made from a component directory and a grant, or from a bare program and its flags."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.messages import EngineSettings, FunctionCall, StorageBounds, WorkerLimits
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from ipc.policy.patterns import Form, has_wildcards, literal_pattern_text, parse_pattern
from ipc.policy.quotas import DEFAULT_LIMITS, QuotaLimits
from ipc.security_context import SecurityContext
from ipc.struct import Struct
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.approvals.reliance import Reliance

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRET_BYTES_MAX = 65_536
_ABSOLUTE = re.compile(r"(?:^|[=:,])(/[^/=:,]+)")
DEFAULT_MEMORY_BYTES = 256 * 10**6
DEFAULT_OUTPUT_BYTES = 64 << 20
FILE_SIZE_BYTES_MAX = 1 << 32


class RunRequest(Struct, frozen=True):
    """One program, what it was granted, and its limits. `environment` holds secrets: never logged, never shown."""

    context: SecurityContext
    """Whose it is; its program's digest is that of the bytes that somebody said yes to, where anybody was asked."""
    wasm_path: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[tuple[str, str], ...]
    document: PolicyDocument
    limits: WorkerLimits
    engine: EngineSettings
    quota: QuotaLimits = DEFAULT_LIMITS
    """What it may use of each of the five; of what `limits` bounds too, the same."""
    own_directories: tuple[str, ...] = ()
    """`${data}` and `${tmp}`: what lies there counts against the storage quota, whoever put it there."""
    kind: str = "run"
    """`call` calls one function; `probe` makes raw system calls in the guest's place (`worker.probe`), to prove
    confinement."""
    call: FunctionCall | None = None
    ask: bool = False
    """What no grant covers is held, and asked about."""
    learn: bool = False
    """What was used is recorded closely enough to write a manifest from it."""
    reliance: Reliance | None = None
    """By which approval it runs; None where it runs by none."""

    @property
    def component(self) -> str:
        """Return the component's name."""
        return self.context.component

    def storage_bounds(self, told: bool = False) -> StorageBounds | None:
        """Return what it may store, `told` while it runs; None where it may store without bound, or write nowhere."""
        limit_bytes = self.limits.storage_bytes
        may_write = self.ask or any(grant.action == "filesystem.write" for grant in self.document.grants)
        if limit_bytes is None or not may_write:
            return None
        return StorageBounds(limit_bytes, self.own_directories, self.limits.open_files, told=told)


def split_assignment(text: str, flag: str) -> tuple[str, str]:
    """Split `NAME=VALUE` of `flag`; raises ConfigError for another form."""
    name, equals, value = text.partition("=")
    if not equals or not _ENV_NAME.match(name):
        form = "NAME=FILE" if flag == "--secret" else "NAME=VALUE"
        raise ConfigError(f"{flag} {visible(text)!r}: expected {form}")
    return name, value


def environment_pairs(env: list[str], secret: list[str], own: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the guest's environment from `--env K=V`, `--env K` (passed on from ours) and `--secret K=FILE`."""
    pairs: dict[str, str] = {}
    for text in env:
        if "=" in text:
            name, value = split_assignment(text, "--env")
            pairs[name] = value
        elif text in own:
            pairs[text] = own[text]
        else:
            raise ConfigError(f"--env {visible(text)}: not set here; give --env {visible(text)}=VALUE")
    for text in secret:
        name, path = split_assignment(text, "--secret")
        pairs[name] = read_secret(name, path)
    for name, value in pairs.items():
        if "\0" in value:
            raise ConfigError(f"{name}: a value can't hold a NUL byte")
    return tuple(pairs.items())


def require_text(request: RunRequest) -> None:
    """Raise ConfigError for an argument, variable or guest's name that isn't UTF-8: WASI has text, and no bytes."""
    rename = "give the file another name, or give the program a directory that holds it"
    named = [(f"argument {number} of the program", text, rename) for number, text in enumerate(request.arguments)]
    named += [(f"the variable {visible(name)}", name + value, "") for name, value in request.environment]
    named += [(f"the guest's name {visible(guest)}", guest, "") for guest, _ in request.mounts]
    for what, text, hint in named:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{what} is not UTF-8, and a WebAssembly program is given nothing else",
                hint=hint or None,
            ) from None


def read_secret(name: str, path: str) -> str:
    """Read a secret's value from a file, one trailing newline removed; the value appears in no message."""
    try:
        # To the end and not in one read: a pipe (`--secret K=<(pass show k)`) gives what it has so far.
        with open(path, "rb") as stream:
            data = stream.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"secret {name}: {visible(path)}: {os.strerror(error.errno or 0)}") from None
    if len(data) > _SECRET_BYTES_MAX:
        raise ConfigError(f"secret {name}: {visible(path)} is larger than 64 KiB")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"secret {name}: {visible(path)} is not UTF-8") from None


def flag_pattern(text: str, cwd: str, flag: str) -> str:
    """Return the path pattern that a flag's value stands for.

    An existing directory means it and all beneath; an existing file is itself, pattern characters in its name included;
    else the directories before the first segment with a pattern character are made real (symbolic links resolved) and
    the rest is kept as a pattern.
    """
    if not text or "\0" in text:
        raise ConfigError(f"{flag}: expected a path or a pattern")
    absolute = os.path.join(cwd, text)
    try:
        mode = os.stat(absolute).st_mode
    except OSError:
        mode = None
    if mode is not None:
        literal = literal_pattern_text(os.path.realpath(absolute))
        return literal.rstrip("/") + "/" if stat.S_ISDIR(mode) else literal
    # Only what the user wrote can be a pattern: the working directory and a link's target are literal. `..` is followed
    # as the kernel follows it, so it is never taken away from a name that may be a link.
    segments = [segment for segment in text.split("/") if segment not in ("", ".")]
    first = next((n for n, segment in enumerate(segments) if has_wildcards(segment)), len(segments) - 1)
    if ".." in segments[first:]:
        raise ConfigError(f"{flag} {visible(text)}: `..` can't follow a pattern or a name that doesn't exist")
    start = "/" if text.startswith("/") else cwd
    prefix = literal_pattern_text(os.path.realpath(os.path.join(start, *segments[:first])))
    pattern = "/".join([prefix.rstrip("/"), *segments[first:]])
    return pattern + "/" if text.endswith("/") else pattern


def flag_mount(text: str, cwd: str) -> tuple[str, str]:
    """Return (guest, host) of `--dir HOST[::GUEST]`; without GUEST the guest sees it under the name that was given."""
    host, separator, guest = text.partition("::")
    if not host or (separator and not guest):
        raise ConfigError(f"--dir {visible(text)!r}: expected HOST[::GUEST]")
    real = os.path.realpath(os.path.join(cwd, host))
    if not os.path.isdir(real):
        raise ConfigError(f"--dir {visible(text)!r}: {visible(host)} is not a directory")
    return guest or host, real


_SYSTEM_DIRECTORIES = ("/dev", "/etc", "/proc", "/root", "/sys")
"""Directories that programs name absolutely and hardly ever mean beneath their working directory."""


def merge_mounts(
    explicit: tuple[tuple[str, str], ...],
    grants: Sequence[Grant],
    cwd: str | None,
    cwd_names: Sequence[str] = (),
    by_name: Sequence[str] = (),
) -> tuple[tuple[str, str], ...]:
    """Return all mounts of a run as (guest, host): `/`, what grants name, the explicit ones, `.` for a bare program.

    A mount grants nothing. `/` is always there so that the guest's absolute paths are the host's: what it tries is then
    decided, and named in a denial, by its true name. wasi-libc takes `/x` and `x` for the same name and gives it to the
    longest mount that fits, the last of equals; so `.` comes last, and granted directories and those that are never
    meant relatively are mounted by their own names, unless the working directory has such an entry (`cwd_names`).
    `by_name` adds directories to the latter, where nobody knows yet what will be named. Zig's library takes the first
    mount for the working directory, and Go's the first one's name where `PWD` isn't set: so what `.` shows comes first,
    by its own name.
    """
    here = dict(explicit).get(".", cwd)
    mounts = {here: here} if here is not None and _has_its_own_name(here, explicit, cwd_names) else {}
    mounts["/"] = "/"
    if cwd is not None:
        for directory in (*_SYSTEM_DIRECTORIES, *by_name):
            if directory[1:] not in cwd_names and os.path.isdir(directory):
                mounts[directory] = directory
        for grant in grants:
            directory = literal_directory(grant.pattern_text)
            if grant.action.startswith("filesystem.") and directory != "/" and directory[1:] not in cwd_names:
                mounts[directory] = directory
    mounts.update(explicit)
    if cwd is not None and "." not in mounts:
        mounts["."] = cwd
    return tuple(mounts.items())


def _has_its_own_name(here: str, mounts: Iterable[tuple[str, str]], names: Collection[str]) -> bool:
    """Whether the directory that `.` shows can be named as on the host: no other mount covers it under that name.

    And it has no entry by whose name, taken from here, its own would begin.
    """
    if here.split("/")[1] in names or not here.isprintable():
        return False
    over = [mount for mount in mounts if f"{here}/".startswith(f"{mount[0].rstrip('/')}/")]
    return all(guest.rstrip("/") == host.rstrip("/") for guest, host in over)


def named_top_directories(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the top directories of the absolute paths in these arguments, `--option=/path` included."""
    found = (_ABSOLUTE.search(text) for text in texts)
    return tuple(dict.fromkeys(match[1] for match in found if match is not None))


def literal_directory(pattern_text: str) -> str:
    """Return the directory that every match of a path pattern lies in or is, as far as no wildcard comes before."""
    pattern = parse_pattern(pattern_text)
    names = [str(token) for token in takewhile(lambda token: isinstance(token, str), pattern.tokens)]
    whole = len(names) == len(pattern.tokens) and pattern.form is Form.EXACT
    return "/" + "/".join(names[:-1] if whole else names)


def flag_grants(read: list[str], write: list[str], names: list[str], cwd: str) -> tuple[Grant, ...]:
    """Return the grants that the flags of a bare program stand for."""
    return tuple(
        Grant(f"filesystem.{verb}", flag_pattern(text, cwd, f"--{verb}"), f"--{verb} {text}")
        for verb, texts in (("read", read), ("write", write), ("list", names))
        for text in texts
    )


def bare_name(path: str) -> str:
    """Return a component name for a bare program: its file name, made to fit `[a-z][a-z0-9-]{0,62}`."""
    stem = os.path.basename(path).removesuffix(".wasm").lower()
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63]
    return name if name and name[0].isalpha() else f"p-{name}"[:63].rstrip("-")
