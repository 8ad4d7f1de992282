"""What a component leaves behind for others: too deep to be removed, or native code in the place of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

GUESTS = Path(__file__).resolve().parents[1] / "guests"
LEVELS = 550
MANIFEST = """
schema = 1
[component]
name = "nest"
version = "1.0.0"
wasm = "tool.wasm"
[component.mounts]
"." = "${tmp}"
[capabilities.filesystem]
read = ["${tmp}/"]
write = ["${tmp}/"]
"""


class Ended(Protocol):
    """What a run left."""

    code: int
    stdout: str
    stderr: str


class CommandLine(Protocol):
    """The fixture of tests/conftest.py."""

    directory: Path
    state: Path

    def __call__(self, *arguments: str | Path) -> Ended:
        """Run it."""


def nest(name: str, levels: int) -> list[str]:
    """Return the tool's words that make directories within directories."""
    return [word for n in range(1, levels + 1) for word in ("mkdir", "/".join([name] * n), ",")]


def test_a_nest_of_a_thousand_directories_is_cleared_up(airssys: CommandLine) -> None:
    """Two nests, one moved to the bottom of the other, are gone after the run, whose end is the guest's own."""
    component = airssys.directory / "component"
    component.mkdir()
    (component / "tool.wasm").write_bytes((GUESTS / "tool.wasm").read_bytes())
    (component / "Component.toml").write_text(MANIFEST)
    words = [*nest("a", LEVELS), *nest("b", LEVELS), "rename", "a", "/".join(["b"] * LEVELS) + "/a", ",", "exit", "3"]
    for levels in (words, ["mkdir", "a", ",", "exit", "3"]):
        ran = airssys("run", component, "--grant", "asked", "--", *levels)
        assert ran.code == 3, ran.stderr[-500:]
        assert "internal error" not in ran.stderr
        assert list(airssys.state.rglob("tmp.*/*")) == []


def _flip(path: Path, _other: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    path.write_bytes(data)


def _cut(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def _replace(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def _link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def _open_to_all(path: Path, _other: Path) -> None:
    path.chmod(0o666)


def test_code_that_was_tampered_with_in_the_cache_is_never_run(airssys: CommandLine) -> None:
    """Changed, cut off, another program's, a link, or writable by all: it is compiled afresh; untouched it is used."""

    def run(name: str) -> Ended:
        return airssys("run", GUESTS / name)

    assert "hello" in run("hello.wasm").stdout.lower()
    (own,) = airssys.state.rglob("*.cwasm")
    original, written_ns = own.read_bytes(), own.stat().st_mtime_ns
    run("tool.wasm")
    (other,) = set(airssys.state.rglob("*.cwasm")) - {own}
    first = run("hello.wasm")
    assert own.stat().st_mtime_ns == written_ns, "what nobody touched is used as it is"
    for how in (_flip, _cut, _replace, _link, _open_to_all):
        how(own, other)
        again = run("hello.wasm")
        assert (again.code, again.stdout) == (first.code, first.stdout), how
        assert not own.is_symlink(), how
        assert own.read_bytes() == original, how
        assert own.stat().st_mode & 0o022 == 0, how
