"""The committed guests can be made again from their sources, byte for byte."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from supervisor.world_page import declarations_of

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "scripts" / "build-guests"


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/build-guests with a plain environment."""
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [BUILD, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_an_unknown_guest_is_a_usage_error() -> None:
    """A mistyped name ends with 64 and the names that there are, before anything is installed."""
    result = build("no-such-guest")
    assert result.returncode == 64
    assert "no-such-guest" in result.stderr
    assert "log-summary" in result.stderr


@pytest.mark.slow
@pytest.mark.toolchain
def test_the_c_guests_are_reproducible() -> None:
    """A build with an empty cache gives each committed binary again."""
    result = build("--check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("the same: ") == len(result.stdout.splitlines()) == 15
    assert "DIFFERS" not in result.stdout


@pytest.mark.slow
@pytest.mark.toolchain
def test_the_world_of_actors_is_read_by_wasm_tools() -> None:
    """wit/ parses, and the world that is found in it is the one that the pages tell of."""
    assert build("--tools", "c").returncode == 0
    tools = ROOT / ".venv-guests/bin/wasm-tools"
    read = subprocess.run(
        [tools, "component", "wit", ROOT / "wit", "--json"], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(read.stdout)
    assert [package["name"] for package in found["packages"]] == ["airssys:core@1.0.0"]
    assert [world["name"] for world in found["worlds"]] == ["actor"]
    functions = {each["name"]: set(each["functions"]) for each in found["interfaces"]}
    written = {each.name: each for each in declarations_of((ROOT / "wit/airssys-core.wit").read_text())}
    assert functions.pop("types") == set()
    assert functions == {name: {each.name for each in written[name].members} for name in functions}
    (world,) = found["worlds"]
    listed = [each for each in written["actor"].members if each.kind in ("import", "export")]
    used = {found["interfaces"][each["interface"]["id"]]["name"] for each in world["imports"].values()}
    assert used - {"types"} == {each.name for each in listed if each.kind == "import"}
