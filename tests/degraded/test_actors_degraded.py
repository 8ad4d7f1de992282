"""Actors and their broker where something is missing: what is lost is what docs/reference/degraded.md says of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime
from test_places import AIRSSYS, OPTIONS, PLACES, documented

from ipc import codec

if TYPE_CHECKING:
    from conftest import Airssys

HERE = Path(__file__).resolve().parent
ACTOR = HERE.parent / "guests/wat/actor.wat"
SECTION = "Actors and their broker"
GUARD_S = 60
MAY = """[capabilities.messaging]
send = ["one", "other"]
receive = ["one", "other"]
[capabilities.storage]
read = ["k"]
write = ["k"]
"""
LAYERS = ("namespaces", "landlock", "seccomp")
TABLE = documented(SECTION)
RUNS = [place for place, row in TABLE.items() if row["up"] == "runs"]
REFUSED = [place for place, row in TABLE.items() if row["up"] == "refused"]


def command(place: str, *arguments: str | Path) -> list[str | Path]:
    """The command line, in a place."""
    packed = codec.pack(PLACES[place]).hex()
    return [sys.executable, "-I", HERE / "elsewhere.py", packed, AIRSSYS, *arguments, *OPTIONS.get(place, ())]


@pytest.fixture
def actors(airssys: Airssys) -> tuple[Path, Path]:
    """Two actors that may talk and keep."""
    wasm = bytes(wasmtime.wat2wasm(ACTOR.read_text(encoding="utf-8")))
    for name in ("one", "other"):
        place = airssys.directory / name
        place.mkdir()
        (place / "program.wasm").write_bytes(wasm)
        (place / "Component.toml").write_text(
            f'schema = 1\n[component]\nname = "{name}"\nversion = "1.0.0"\nwasm = "program.wasm"\n{MAY}'
        )
    return airssys.directory / "one", airssys.directory / "other"


@pytest.fixture
def up(airssys: Airssys, actors: tuple[Path, Path], request: pytest.FixtureRequest) -> Iterator[None]:
    """Both run in a place."""
    process = subprocess.Popen(
        command(request.param, "up", *actors, "--grant", "asked"),
        cwd=airssys.directory,
        env=airssys.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said, until_s = b"", time.monotonic() + GUARD_S
        while not (b"one: running" in said and b"other: running" in said):
            assert select.select([process.stdout], [], [], max(0, until_s - time.monotonic()))[0], said
            data = os.read(process.stdout.fileno(), 65536)
            assert data, said
            said += data
        yield
    finally:
        airssys("down")
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


@pytest.mark.parametrize(("up", "place"), [(place, place) for place in RUNS], indirect=["up"])
@pytest.mark.usefixtures("up")
def test_actors_talk_and_keep_and_the_broker_has_the_layers_that_are_documented(airssys: Airssys, place: str) -> None:
    """What is granted works there, what isn't is refused, and each layer of the broker has the status of the table."""
    assert airssys("call", "one", "-", stdin=b"pprecious").code == 0
    assert airssys("call", "one", "-", stdin=b"gk").stdout == "precious"
    assert airssys("call", "other", "-", stdin=b"gk").stdout == "", "another's key is another's"
    assert airssys("call", "one", "-", stdin=b"mehello").code == 0
    refused = airssys("call", "one", "-", stdin=b"gsecret")
    assert (refused.code, "not-permitted" in refused.stderr or "not permitted" in refused.stderr) == (1, True)
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    (started,) = [record for record in records if record["event"] == "broker_started"]
    layers = {layer: started["detail"]["layers"][layer] for layer in LAYERS}
    assert layers == {layer: TABLE[place][layer] for layer in LAYERS}
    assert started["detail"]["uid"] != 0


@pytest.mark.parametrize("place", REFUSED)
def test_where_a_required_layer_is_missing_no_actor_starts(
    airssys: Airssys, actors: tuple[Path, Path], place: str
) -> None:
    """Exit code 69, and what is missing in a line; nothing of a component ran."""
    done = subprocess.run(
        command(place, "up", *actors, "--grant", "asked"),
        cwd=airssys.directory,
        env=airssys.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
    )
    assert done.returncode == 69, done
    assert "running" not in done.stdout
    assert "Traceback" not in done.stderr
