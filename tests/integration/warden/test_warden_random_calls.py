"""Random calls among links, directories and handles: whatever is made of them, nothing is got that wasn't granted.

`AIRSSYS_RANDOM_CALLS=ROUNDS` makes it longer, `AIRSSYS_RANDOM_SEED=N` another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.policy.capability import Grant
from ipc.policy.decision import Policy, PolicyDocument, compile_policy

if TYPE_CHECKING:
    from conftest import Stage

ROUNDS = int(os.environ.get("AIRSSYS_RANDOM_CALLS", "1"))
SEED = int(os.environ.get("AIRSSYS_RANDOM_SEED", "7"))
CALLS = 400
DIRECTORIES = (".", "in", "in/d", "out", "out/d", "out/d/e", "mix", "mix/pub", "mix/pub/d", "mix/d", "secret", "names")
GRANTS = {
    "apart": {
        "read": ("in/**", "mix/*.txt", "mix/pub/**"),
        "write": ("out/**", "mix/pub/**"),
        "list": ("names/",),
    },
    "write all, read a part": {"read": ("mix/pub/**", "in/*.txt"), "write": ("**",), "list": ()},
    "one within the other": {"read": ("mix/**/*.txt", "out/"), "write": ("mix/**", "out/"), "list": ()},
    "a level and a tree": {"read": ("mix/pub/**",), "write": ("mix/*", "mix/pub/**"), "list": ("in/",)},
}
CALLING = r"""
state = SEED


def number(below):
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % below


def one(values):
    return values[number(len(values))]


FILES = ["a.txt", "b.csv", "key"]
NAMES = FILES * 4 + ["in", "out", "mix", "pub", "secret", "d", "e", "l1", "l2"]
HERE = list(DIRECTORIES) + OFTEN * 5 + ["out/e", "mix/pub/e", "out/l1", "mix/l2", "mix/l3"]
held, read, done = [-100], [], {}


def place():
    if number(6):
        name = one(HERE) + "/" + one(NAMES) if number(10) else one(HERE)
        if not number(8):
            name = one(HERE) + "/../" + name.rpartition("/")[2]
        return -100, (ROOT + "/" + name + "/" * (not number(10))).encode()
    name = "/".join(one(NAMES + ["..", "."] * 2) for _ in range(1 + number(4)))
    return one(held), name.encode()


def opening(d, p):
    flags = one([0, 0, 0, 0, 0, 0, 1, 2, 0o101, 0o102, 0o1000, 0o1001, 0o10000000, 0o301, 0o2001, 3])
    flags |= 0o400000 * (not number(5))
    resolve = one([None, 0, 8, 0x10, 0x0A])
    if resolve is None:
        fd = sys_call("openat", d, p, flags, 0o666)
    else:
        fd = openat2(d, p, flags, 0o666 if flags & 0o100 else 0, resolve)
    if fd < 0:
        return fd
    for attempt in (lambda: read.append(os.read(fd, 99).decode()), lambda: os.write(fd, b"WRITTEN")):
        try:
            attempt()
        except OSError:
            pass
    os.close(fd)
    return 0


def holding(d, p):
    fd = sys_call("openat", d, p, 0o200000, 0)
    if fd >= 0:
        held.append(fd)
        names(fd)
    if len(held) > 12:
        os.close(held.pop(1 + number(11)))
    return fd


def linking_to(d, p):
    target = "../" * number(5) + "/".join(one(NAMES) for _ in range(number(3)))
    if not number(12):
        target = ROOT + "/" + target
    return sys_call("symlinkat", (target or ".").encode(), d, p)


CALLS = {
    "open": opening,
    "hold": holding,
    "symlink": linking_to,
    "mkdir": lambda d, p: sys_call("mkdirat", d, p, 0o755),
    "rmdir": lambda d, p: sys_call("unlinkat", d, p, 0x200),
    "unlink": lambda d, p: sys_call("unlinkat", d, p, 0),
    "rename": lambda d, p: sys_call("renameat2", d, p, *place(), one([0, 0, 1])),
    "link": lambda d, p: sys_call("linkat", d, p, *place(), one([0, 0x400])),
    "truncate": lambda d, p: sys_call("truncate", p, 2),
    "times": lambda d, p: sys_call("utimensat", d, p, 0, 0),
}
KINDS = ["open"] * 6 + ["rename"] * 4 + ["symlink"] * 3 + ["mkdir", "link"] * 2 + list(CALLS)
for _ in range(COUNT):
    kind = one(KINDS)
    if CALLS[kind](*place()) >= 0:
        done[kind] = done.get(kind, 0) + 1
result = [read, done]
"""


def plant(root: Path) -> dict[str, str]:
    """Make the directories with files that hold their own names, and links out that were there before."""
    planted = {}
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.csv", "key"):
            path = os.path.normpath(f"{directory}/{name}")
            planted[path] = f"<{path}>"
            (root / path).write_text(planted[path])
    (root / "in/l1").symlink_to("../secret/key")
    (root / "out/l1").symlink_to("../secret")
    (root / "mix/l2").symlink_to(root / "secret")
    (root / "mix/l3").symlink_to("d")
    return planted


def gains(root: Path, policy: Policy, planted: dict[str, str], there: set[Path], read: list[str]) -> Iterator[str]:
    """Yield everything that was got and not granted."""
    for text in read:
        for name in planted:
            if f"<{name}>" in text and "read" not in policy.rights(f"{root}/{name}"):
                yield f"read {name}"
    for name, text in planted.items():
        if "write" not in policy.rights(f"{root}/{name}") and (
            not (root / name).is_file() or (root / name).read_text() != text
        ):
            yield f"changed {name}"
    for path in set(root.rglob("*")) - there:
        if "write" not in policy.rights(str(path)):
            yield f"made {path.relative_to(root)}"
        leads_to = os.path.realpath(path)
        granted = policy.rights(leads_to) or policy.rights(leads_to, True) or policy.rights(f"{leads_to}/x")
        if path.is_symlink() and not granted:
            yield f"linked {path.relative_to(root)} to {os.readlink(path)}"


@pytest.mark.parametrize("which", GRANTS)
def test_no_sequence_of_calls_gets_more_than_was_granted(stage: Stage, short_dir: Path, which: str) -> None:
    """No byte is read, no file changed, made or linked to beyond the grants; what is granted is done many times."""
    worked = opened = bytes_read = 0
    for round_number in range(ROUNDS):
        root = short_dir / f"r{round_number}"
        planted = plant(root)
        there = set(root.rglob("*"))
        if os.geteuid() == 0:
            for path in (root, *there):
                os.chown(path, stage.uid, -1, follow_symlinks=False)
        grants = [(verb, f"{root}/{pattern}") for verb, patterns in GRANTS[which].items() for pattern in patterns]
        actor = stage.actor(*grants)
        policy = compile_policy(
            PolicyDocument("p", "", grants=tuple(Grant(f"filesystem.{v}", p, "the test", True) for v, p in grants))
        )
        often = [d for d in DIRECTORIES if policy.rights(f"{root}/{d}/a.txt")]
        answer = actor.run(
            CALLING, SEED=SEED + round_number, ROOT=str(root), COUNT=CALLS, DIRECTORIES=DIRECTORIES, OFTEN=often
        )
        assert isinstance(answer, list)
        read, done = answer
        assert sorted(gains(root, policy, planted, there, read)) == [], f"seed {SEED + round_number}"
        worked += sum(done.values())
        opened += done.get("open", 0)
        bytes_read += sum(map(len, read))
        actor.close()
    assert worked > ROUNDS * 10
    assert opened
    assert bytes_read
