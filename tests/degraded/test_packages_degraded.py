"""Packages where the kernel or the host lacks something: what is fetched there, and what is refused, as documented."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import package, packed
from elsewhere import Refusal, Simulation
from repositories import Repository

from ipc import codec

if TYPE_CHECKING:
    from conftest import Airssys

HERE = Path(__file__).resolve().parent
FETCH = """
import json, sys
from ipc.errors import ConfigError
from supervisor.packages.fetch import fetch
from supervisor.packages.source import parse_source
try:
    print(json.dumps([0, fetch(parse_source(sys.argv[1]), sys.argv[2]).contents.digest]))
except ConfigError as error:
    print(json.dumps([error.exit_code, str(error)]))
"""
NEW_USER = 0x1000_0000
NO_LANDLOCK = Simulation((Refusal("landlock_create_ruleset", errno.ENOSYS),))
PLACES = {
    "nothing is missing": Simulation(),
    "Debian 12: Linux 6.1": Simulation(first_unknown_call=451, landlock_abi=2),
    "no Landlock": NO_LANDLOCK,
    "user namespaces refused": Simulation((Refusal("unshare", errno.EPERM, ((0, "==", NEW_USER, NEW_USER),)),)),
    "no namespaces": Simulation(tuple(Refusal(call, errno.EPERM) for call in ("unshare", "mount", "pivot_root"))),
}
REFUSED = {
    ("no Landlock", "git"): "git isn't started without Landlock: not built into this kernel",
    ("no seccomp", "archive"): "seccomp",
}


@pytest.mark.parametrize("kind", ["archive", "git"])
@pytest.mark.parametrize("place", [*PLACES, "no seccomp"])
def test_what_is_fetched_where(place: str, kind: str, short_dir: Path, airssys: Airssys) -> None:
    """The same package, or one line that names what is missing and 69; never a package without its wall."""
    destination = short_dir / "destination"
    destination.mkdir()
    if kind == "git":
        repository = Repository(short_dir / "repository.git")
        repository.commit(repository.package())
        source = repository.source
    else:
        source = str(short_dir / "x.tar.gz")
        Path(source).write_bytes(packed(package()))
    simulation = PLACES.get(place) or Simulation((Refusal("seccomp", errno.ENOSYS),))
    command = [sys.executable, "-I", HERE / "elsewhere.py", codec.pack(simulation).hex()]
    done = subprocess.run(
        [*command, sys.executable, "-I", "-c", FETCH, source, destination],
        env=airssys.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    code, said = json.loads(done.stdout)
    if (place, kind) in REFUSED:
        assert (code, REFUSED[place, kind] in said) == (69, True), said
        assert list(destination.iterdir()) == []
    else:
        assert code == 0, said
        assert len(list(destination.iterdir())) == 2
