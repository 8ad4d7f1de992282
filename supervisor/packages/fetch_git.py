"""A package out of a git repository: one commit, fetched by git in a confined process, and never checked out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Final

from ipc.errors import ConfigError
from ipc.package_stream import RepositoryPlan
from supervisor.host.clearing import remove_tree
from supervisor.host.identity import Identity, resolve_run_as
from supervisor.packages.contents import FILES_MAX, TOTAL_MAX_BYTES, PackageError
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.reader_process import SourceUnavailableError, start_reader
from supervisor.packages.source import GitSource, local_url, show_source, why_not_revision
from supervisor.packages.writing import PackageWriter
from supervisor.terminal import visible

TIMEOUT_S: Final = 1_800.0
CPU_S: Final = 1_800
MEMORY_BYTES: Final = 2 << 30
PACK_MAX_BYTES: Final = TOTAL_MAX_BYTES
_SCRATCH: Final = "airssys-fetch-"
_BEGUN_S: Final = 60.0
"""So old is a directory that nobody holds and that isn't just being made."""
_PLACES: Final = "/usr/bin:/bin:/usr/local/bin:/run/current-system/sw/bin"


def fetch_git(
    source: GitSource, destination: str, fetched_ns: int, fetched_by: str, pack_max_bytes: int = PACK_MAX_BYTES
) -> Fetched:
    """Fetch a commit's files into an empty directory; raises ConfigError, SourceUnavailableError without git or host.

    `pack_max_bytes` bounds what git may store of it.
    """
    git = shutil.which("git", path=_PLACES)
    if git is None:
        raise SourceUnavailableError("git isn't installed", hint="apt install git")
    environment = os.environ
    run_as = resolve_run_as(None, os.geteuid(), environment)
    if source.transport == "file":
        path = os.path.realpath(source.path)
        if not os.path.isdir(path):
            raise ConfigError(f"{visible(path)}: no such directory", hint="git+file:///path/of/the/repository")
        if path != visible(path):
            raise ConfigError(f"{visible(path)}: git can't be told this path", hint="move it, or make an archive of it")
        source = GitSource("file", local_url(path), source.revision, source.subdirectory)
    with _scratch(run_as) as scratch:
        plan = RepositoryPlan(
            parent_pid=os.getpid(),
            uid=run_as.uid,
            gid=run_as.gid,
            groups=run_as.groups,
            git=git,
            transport=source.transport,
            url=source.url,
            revision=source.revision,
            subdirectory=source.subdirectory,
            scratch=scratch,
            readable=_readable(source, run_as),
            environment=_passed_on(source, environment),
            files_max=FILES_MAX + 1,  # its signatures are none of its files
            total_max_bytes=TOTAL_MAX_BYTES,
            pack_max_bytes=pack_max_bytes,
            memory_bytes=MEMORY_BYTES,
            cpu_s=CPU_S,
        )
        alone = source.transport == "file"
        try:
            with start_reader("read_repository", plan, (), TIMEOUT_S, own_namespace=alone) as reader:
                writer = PackageWriter(destination)
                origin = reader.write_package(writer)
            contents, signatures = writer.finish(lift=False)
        except ConfigError as error:
            hints = [error.hint or "", _as_whom(source, run_as) if isinstance(error, SourceUnavailableError) else ""]
            hint = "; ".join(filter(None, hints))
            raise type(error)(f"{visible(show_source(source))}: {error.message}", hint=hint or None) from None
    commit, _, branch = origin.partition(" ")
    if why_not_revision(branch):  # what its HEAD stands for is a name of the server's
        branch = ""
    provenance = Provenance(
        "git",
        source.url,
        revision=commit,
        branch=branch,
        subdirectory=source.subdirectory,
        fetched_ns=fetched_ns,
        fetched_by=fetched_by,
    )
    if not commit:
        raise PackageError(f"{visible(show_source(source))}: git named no commit")
    return Fetched(contents, signatures, provenance)


@contextlib.contextmanager
def _scratch(run_as: Identity) -> Iterator[str]:
    """Give an empty directory of git's identity, on a disk where there is one, and remove it afterwards."""
    places = [place for place in ("/var/tmp", tempfile.gettempdir()) if os.access(place, os.W_OK | os.X_OK)]  # noqa: S108
    if not places:
        raise SourceUnavailableError("there is no directory for temporary files", hint="chmod 1777 /var/tmp")
    _remove_stale(places[0], run_as)
    scratch = os.path.realpath(tempfile.mkdtemp(prefix=_SCRATCH, dir=places[0]))
    lock = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while it is held we live: it isn't stale
        if os.geteuid() != run_as.uid:
            os.chown(scratch, run_as.uid, run_as.gid)
        yield scratch
    finally:
        remove_tree(scratch)
        os.close(lock)


def _remove_stale(place: str, run_as: Identity) -> None:
    """Remove what fetches left behind that were killed; those that go on hold a lock of theirs."""
    for entry in os.scandir(place):
        with contextlib.suppress(OSError):
            if not entry.name.startswith(_SCRATCH) or entry.stat(follow_symlinks=False).st_uid != run_as.uid:
                continue
            lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_mtime < time.time() - _BEGUN_S:
                    remove_tree(entry.path)
            finally:
                os.close(lock)


def _keys_directory(run_as: Identity) -> str:
    """Return where ssh looks for an identity's keys and the hosts that it knows; "" for who has no home."""
    try:
        home = pwd.getpwuid(run_as.uid).pw_dir
    except KeyError:
        return ""
    return os.path.realpath(os.path.join(home, ".ssh"))


def _as_whom(source: GitSource, run_as: Identity) -> str:
    """Say as whom git was run, where that isn't who asked; "" where it is, or makes no difference."""
    if os.geteuid() == run_as.uid or source.transport == "https":
        return ""
    who = f"git ran as {visible(run_as.name)}, not as root"
    if source.transport == "file":
        return f"{who}: the repository and the way to it have to be readable for that user"
    keys = _keys_directory(run_as)
    if os.path.isdir(keys):
        return f"{who}: with the keys and known hosts of {visible(keys)}"
    return f"{who}, and there are no keys of that user: by sudo it runs as who called it"


def _readable(source: GitSource, run_as: Identity) -> tuple[str, ...]:
    """Return what git may read beside the system's files: the repository, its identity's keys for ssh, certificates."""
    if source.transport == "file":
        return (source.path,)
    if source.transport == "ssh":
        keys = _keys_directory(run_as)
        return (keys,) if keys else ()
    certificates = os.environ.get("GIT_SSL_CAINFO", "")
    return (os.path.realpath(certificates),) if certificates else ()


def _passed_on(source: GitSource, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what git gets of our environment: the agent for ssh, the proxy for https."""
    passed: dict[str, str] = {}
    if source.transport == "ssh":
        passed["SSH_AUTH_SOCK"] = environment.get("SSH_AUTH_SOCK", "")
    if source.transport == "https":
        passed["GIT_SSL_CAINFO"] = environment.get("GIT_SSL_CAINFO", "")
        passed["https_proxy"] = environment.get("https_proxy", "") or environment.get("HTTPS_PROXY", "")
        passed["no_proxy"] = environment.get("no_proxy", "") or environment.get("NO_PROXY", "")
    return {name: value for name, value in passed.items() if value}
