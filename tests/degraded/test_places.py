"""What is lost on kernels and hosts that lack something is what docs/reference/degraded.md says, no more and no less.

Each place is made around the whole command (`elsewhere.py`); the first row of the table, where nothing is missing, is
the control of all others.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elsewhere import Refusal, Simulation

from ipc import codec
from ipc.struct import Struct

if TYPE_CHECKING:
    from conftest import Airssys

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUESTS = HERE.parent / "guests"
AIRSSYS = Path(sys.executable).parent / "airssys"
NOBODY = 65534
AS_ROOT = os.geteuid() == 0

NEW_USER = 0x1000_0000
NEW_ANY = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, NEW_USER, 0x2000_0000, 0x4000_0000)
SET_NOTIFICATION_FLAGS = 0x4008_2104
NEW_LISTENER, WAIT_KILLABLE = 0x8, 0x20
CAP_SYS_PTRACE = 19


def refused(*calls: str, number: int = errno.EPERM) -> tuple[Refusal, ...]:
    """Calls that are refused whatever their arguments."""
    return tuple(Refusal(call, number) for call in calls)


NO_WAKE_UP = Refusal("ioctl", errno.EINVAL, ((1, "==", SET_NOTIFICATION_FLAGS, None),))
NO_KILLABLE = Refusal("seccomp", errno.EINVAL, ((1, "==", WAIT_KILLABLE, WAIT_KILLABLE),))
NO_USER_NAMESPACE = Refusal("unshare", errno.EPERM, ((0, "==", NEW_USER, NEW_USER),))
# moby's default profile, for a container without CAP_SYS_ADMIN; and the capabilities that a container has by default.
DOCKER = (
    *refused("unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "fsmount", "move_mount", "open_tree"),
    *refused("bpf", "perf_event_open", "keyctl", "add_key", "request_key", "userfaultfd", "open_by_handle_at"),
    *(Refusal("clone", errno.EPERM, ((0, "==", flag, flag),)) for flag in NEW_ANY),
    Refusal("clone3", errno.ENOSYS),
)
DOCKER_WITHOUT_PTRACE = refused("kcmp", "pidfd_getfd", "process_madvise")
DOCKER_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)

PLACES: dict[str, Simulation] = {
    "nothing is missing": Simulation(),
    "Debian 12: Linux 6.1": Simulation((NO_WAKE_UP,), first_unknown_call=451, landlock_abi=2),
    "Linux 5.13 to 5.18": Simulation((NO_WAKE_UP, NO_KILLABLE), first_unknown_call=447, landlock_abi=1),
    "no Landlock": Simulation(refused("landlock_create_ruleset", number=errno.ENOSYS)),
    "no Landlock, and not required": Simulation(refused("landlock_create_ruleset", number=errno.ENOSYS)),
    "no seccomp": Simulation(refused("seccomp", number=errno.ENOSYS)),
    "no user notification": Simulation((Refusal("seccomp", errno.EINVAL, ((1, "==", NEW_LISTENER, NEW_LISTENER),)),)),
    "another program listens": Simulation(listener_taken=True),
    "no openat2": Simulation(refused("openat2", number=errno.ENOSYS)),
    "Yama: ptrace_scope 1": Simulation(yama=1),
    "Yama: ptrace_scope 2": Simulation(yama=2),
    "Yama: ptrace_scope 2, no user namespaces": Simulation((NO_USER_NAMESPACE,), yama=2),
    "Yama: ptrace_scope 3": Simulation(yama=3),
    "user namespaces refused": Simulation((NO_USER_NAMESPACE,)),
    "user.max_user_namespaces is 0": Simulation(no_more_user_namespaces=True),
    # The namespace can be made, and has no capabilities.
    "Ubuntu: AppArmor and Yama, an ordinary user": Simulation(
        (Refusal("unshare", errno.EPERM, ((0, "==", 0, NEW_USER),)), *refused("setns", "mount")), yama=1
    ),
    "a CI runner without namespaces": Simulation(refused("unshare", "setns"), yama=1),
    "Docker's default profile": Simulation((*DOCKER, *DOCKER_WITHOUT_PTRACE), capabilities=DOCKER_CAPABILITIES),
    "Docker's, and `--cap-add SYS_PTRACE`": Simulation(DOCKER, capabilities=(*DOCKER_CAPABILITIES, CAP_SYS_PTRACE)),
}
ORDINARY_ONLY = "Ubuntu: AppArmor and Yama, an ordinary user"
OPTIONS = {"no Landlock, and not required": ("--require", "rlimits,no_new_privs,seccomp")}
LAYERS = ("namespaces", "non_dumpable", "landlock", "seccomp")
GUEST = "cat in/a.txt , cat key , cat /etc/passwd , write in/new x , write out/new x"
HOSTILE = (
    "shadow passwd keys dotdot symlink list-root write-etc write-home write-bait truncate unlink hardlink rename-in"
    " rename-out memory-file environ device env"
)
"""Attacks of examples/hostile that can succeed or fail at once."""


def documented(section: str = "Kernels and hosts that lack something") -> dict[str, dict[str, str]]:
    """Read the table of a section: place → column → what it says of this user."""
    sections = (ROOT / "docs/reference/degraded.md").read_text(encoding="utf-8").split("# ")
    (text,) = [text for text in sections if text.startswith(section)]
    lines = text.replace("\n#", "\n").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines if line.startswith("| ")]
    head, *body = rows
    mine = 0 if AS_ROOT else -1
    return {
        row[0]: {column: cell.split(" / ")[mine].strip() for column, cell in zip(head, row, strict=True)}
        for row in body
    }


PLACES_HERE = [name for name in PLACES if not (AS_ROOT and name == ORDINARY_ONLY)]
RUNS = [name for name in PLACES_HERE if documented()[name]["run"] == "runs"]
REFUSED = [name for name in PLACES_HERE if documented()[name]["run"] == "refused"]


class Done(Struct, frozen=True):
    """One command's end."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, object]:
        """The document on stdout."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document

    def rows(self, of: str, key: str) -> dict[str, Mapping[str, str]]:
        """A list of the document, by a key of its items."""
        items = self.json()[of]
        assert isinstance(items, list)
        return {item[key]: item for item in items}


Execute = Callable[..., Done]


@pytest.fixture
def tree(short_dir: Path) -> Path:
    """A directory of the component's file identity: in/ is granted for reading, out/ for writing, key not at all."""
    root = short_dir / "t"
    for name in ("in", "out"):
        (root / name).mkdir(parents=True)
    (root / "in/a.txt").write_text("alpha")
    (root / "in/harmless.txt").write_text("harmless")
    (root / "key").write_text("the key")
    if AS_ROOT:
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    return root


@pytest.fixture
def there(airssys: Airssys, tree: Path) -> Execute:
    """Runs `airssys` in a place, in the tree."""

    def execute(simulation: Simulation, *arguments: str | Path) -> Done:
        done = subprocess.run(
            [sys.executable, "-I", HERE / "elsewhere.py", codec.pack(simulation).hex(), AIRSSYS, *arguments],
            cwd=tree,
            env=airssys.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return execute


@pytest.fixture(scope="module")
def features_here() -> Mapping[str, Mapping[str, str]]:
    """What `airssys doctor` finds in this place."""
    done = subprocess.run([AIRSSYS, "doctor", "--json"], capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr).rows("features", "name")


def test_the_table_and_the_places_are_the_same() -> None:
    """Each place of the documentation is made here, and each that is made is documented."""
    assert list(documented()) == list(PLACES)


@pytest.mark.parametrize("place", RUNS)
def test_what_runs_has_the_layers_that_are_documented(there: Execute, place: str) -> None:
    """The granted file is read, the others are not, and each layer has the status of the table."""
    flags = ("--read", "in", "--write", "out", *OPTIONS.get(place, ()))
    ran = there(PLACES[place], "run", GUESTS / "tool.wasm", "--json", *flags, "--", *GUEST.split())
    document = ran.json()
    assert document["outcome"] == "exited", ran
    assert document["stdout"] == (
        "alphacat key: EACCES\ncat /etc/passwd: EACCES\nwrite in/new: EACCES\nwrite out/new: ok\n"
    )
    status = {layer: row["status"] for layer, row in ran.rows("confinement", "layer").items()}
    assert {layer: status[layer] for layer in LAYERS} == {layer: documented()[place][layer] for layer in LAYERS}
    for layer in ("environment", "capabilities", "no_new_privs", "rlimits", "sealed"):
        assert status[layer] == "enforced"


@pytest.mark.parametrize("place", RUNS)
def test_a_hostile_component_is_contained_by_what_remains(there: Execute, tree: Path, place: str) -> None:
    """None of its attacks on files and secrets succeeds, with whatever layers there are."""
    mounts = ("--dir", f"{tree}/in::/bait", "--dir", f"{tree}/out::/work")
    flags = (*mounts, "--read", "in", "--read", "out", "--write", "out", *OPTIONS.get(place, ()))
    ran = there(PLACES[place], "run", GUESTS / "hostile-preview1.wasm", "-q", *flags, "--", *HOSTILE.split())
    refused_ones = [line.split()[0] for line in ran.stdout.splitlines() if " refused (" in line]
    assert refused_ones == HOSTILE.split(), ran
    assert ran.code == 0
    assert (tree / "in/harmless.txt").read_text() == "harmless"


@pytest.mark.parametrize("place", REFUSED)
def test_what_is_refused_says_so_before_anything_runs(there: Execute, place: str) -> None:
    """Exit code 69, what is missing in one line and what to do in the next; the component printed nothing."""
    ran = there(PLACES[place], "run", GUESTS / "tool.wasm", "--read", "in", "--", "cat", "in/a.txt")
    assert ran.code == 69, ran
    assert ran.stdout == ""
    told = [line for line in ran.stderr.splitlines() if "airssys: compiling" not in line and "tool refused" not in line]
    assert len(told) == 2, ran.stderr
    assert told[0].startswith("airssys: ")
    assert "airssys doctor" in told[1]


@pytest.mark.parametrize("place", PLACES_HERE)
def test_doctor_finds_what_is_missing(
    there: Execute, features_here: Mapping[str, Mapping[str, str]], place: str
) -> None:
    """Exactly the features of the table are found less of than here; each has a cost and one command to mend it.

    It ends with 69 exactly where a run is refused, unless that is told to do without.
    """
    doctor = there(PLACES[place], "doctor", "--json")
    found = doctor.rows("features", "name")
    lost = {name for name, row in found.items() if row["state"] != features_here[name]["state"]}
    assert lost == set(filter(None, documented()[place]["doctor"].split(", ")))
    for name in lost:
        assert found[name]["cost"]
        assert found[name]["mend"]
    assert (doctor.code == 69) == (place in REFUSED or place in OPTIONS)


@pytest.mark.parametrize(("scope", "state"), [(1, "found"), (2, "partial"), (3, "not")])
def test_doctor_reads_what_the_host_is_set_to(there: Execute, scope: int, state: str) -> None:
    """Yama's and AppArmor's settings are looked at themselves; here they are files in a mount namespace."""
    files = (("yama/ptrace_scope", f"{scope}\n"), ("apparmor_restrict_unprivileged_userns", "1\n"))
    found = there(Simulation(files=files), "doctor", "--json").rows("features", "name")
    assert found["yama"]["state"] == state
    assert (found["yama"]["mend"] is None) == (state == "found")
    assert found["apparmor"]["state"] == ("found" if AS_ROOT else "partial")


def test_yama_would_refuse_a_warden_that_no_worker_named(there: Execute) -> None:
    """The control of "ptrace_scope 1": a warden without any capability that can't be named is refused by it."""
    not_named = Refusal("prctl", errno.EINVAL, ((0, "==", 0x5961_6D61, None),))
    place = Simulation((*refused("unshare", "setns"), not_named), yama=1)
    ran = there(place, "run", GUESTS / "tool.wasm", "-q", "--read", "in", "--", "cat", "in/a.txt")
    assert ran.code == (0 if AS_ROOT else 69), ran
