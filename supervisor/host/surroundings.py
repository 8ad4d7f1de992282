"""What of this host a policy depends on: the directories that programs are found in, and the home directories."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ipc
import supervisor
from supervisor.config.places import packages_directory

if TYPE_CHECKING:
    from supervisor.config.settings import Settings
    from supervisor.fleet.provider_settings import ProviderSettings

_FIRST_PERSON = 1000
"""The first uid that Debian, Fedora and others give to a person (login.defs(5), UID_MIN)."""
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib/", "/dev/", "/proc/", "/sys/", "/run/")


def path_directories(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the directories that programs are started from, and what they really are behind symbolic links.

    Those of `PATH`, and where this program itself is: a component that could write there would be the next supervisor.
    """
    written = [part for part in environment.get("PATH", "").split(":") if part.startswith("/")]
    written += _own_directories()
    return tuple(dict.fromkeys(path for part in written for path in (os.path.normpath(part), os.path.realpath(part))))


def program_directories(settings: Settings, state: str) -> tuple[str, ...]:
    """Return all from which programs are started: of `PATH`, ours, the providers', and the installed packages.

    Those of `state`, and of the state directory that is used where none is named.
    """
    found = (*path_directories(os.environ), *provider_directories(settings.providers))
    states = dict.fromkeys((state, os.path.realpath(settings.directories.state)))
    return (*found, *(packages_directory(each) for each in states))


def provider_directories(providers: Sequence[ProviderSettings]) -> tuple[str, ...]:
    """Return where the programs are, by their real names too: whoever could write there would be the next provider."""
    found: list[str] = []
    for each in providers:
        place = each.path if each.python else os.path.dirname(each.command[0])
        if place:
            real = os.path.realpath(place if each.python else each.command[0])
            found += [os.path.normpath(place), real if each.python else os.path.dirname(real)]
    return tuple(dict.fromkeys(found))


def _own_directories() -> list[str]:
    """Our packages, and all that is installed beside them where that is a place of its own."""
    packages = [os.path.dirname(os.path.abspath(str(package.__file__))) for package in (ipc, supervisor)]
    place = os.path.dirname(packages[0])
    own = [*packages, os.path.join(place, "worker")]
    if os.path.basename(place) in ("site-packages", "dist-packages"):
        own.append(place)
    if sys.prefix != sys.base_prefix:
        own.append(sys.prefix)
    return own


def home_directories() -> tuple[str, ...]:
    """Return the home directories that exist, of everyone in the user database (getpwent(3)), real paths.

    Not those of daemons in the system's own trees, `/usr/sbin` or `/dev`: nobody keeps keys there but by root's hand.
    """
    people = {entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid >= _FIRST_PERSON or entry.pw_uid == os.getuid()}
    daemons = {entry.pw_dir for entry in pwd.getpwall()} - people
    homes = _real(people | {os.environ.get("HOME", "")})
    homes |= {home for home in _real(daemons) if not f"{home}/".startswith(_SYSTEM)}
    return tuple(sorted(home for home in homes if home != "/" and os.path.isdir(home)))


def _real(paths: set[str]) -> set[str]:
    return {os.path.realpath(path) for path in paths if path.startswith("/")}


def own_service() -> str:
    """Return why this process is root's or a service's, and no developer's (`grants.dev_mode.why_service`)."""
    from supervisor.grants.dev_mode import why_service

    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            cgroups = file.read(65_536)
    except OSError:  # without /proc no worker starts anyway
        cgroups = ""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        has_terminal = True
    except OSError:
        has_terminal = False
    return why_service(os.getuid(), os.environ, os.getpid(), cgroups, has_terminal)
