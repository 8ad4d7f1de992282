"""What of this host a policy depends on: the directories that programs are found in, and the home directories."""

import os
import pwd
from collections.abc import Mapping

_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib/", "/dev/", "/proc/", "/sys/", "/run/")


def path_directories(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the absolute directories of `PATH`, and what they really are where a symbolic link leads there."""
    written = [part for part in environment.get("PATH", "").split(":") if part.startswith("/")]
    return tuple(dict.fromkeys(path for part in written for path in (os.path.normpath(part), os.path.realpath(part))))


def home_directories() -> tuple[str, ...]:
    """Return the home directories that exist, of everyone in the user database (getpwent(3)), real paths.

    Not those of daemons in the system's own trees, `/usr/sbin` or `/dev`: nobody keeps keys there but by root's hand.
    """
    homes = {entry.pw_dir for entry in pwd.getpwall()} | {os.environ.get("HOME", "")}
    real = {os.path.realpath(home) for home in homes if home.startswith("/")}
    return tuple(
        sorted(home for home in real if home != "/" and not f"{home}/".startswith(_SYSTEM) and os.path.isdir(home))
    )
