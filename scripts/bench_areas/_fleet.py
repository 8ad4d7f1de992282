"""A supervisor with components, as `airssys up` has one, for as long as it is measured."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
GUESTS = ROOT / "tests" / "guests"
START_S = 120.0
END_S = 30.0


@contextlib.contextmanager
def up(directory: Path, components: Mapping[str, str], wasm: bytes) -> Iterator[int]:
    """Start components of one program, by name with what else their manifests say; give the supervisor's process."""
    for name, more in components.items():
        place = directory / name
        place.mkdir()
        (place / "actor.wasm").write_bytes(wasm)
        manifest = f'schema = 1\n[component]\nname = "{name}"\nversion = "1.0.0"\nwasm = "actor.wasm"\n{more}'
        (place / "Component.toml").write_text(manifest, encoding="utf-8")
    process = subprocess.Popen(
        [str(AIRSSYS), "up", *(f"./{name}" for name in components), "--grant", "asked"],
        cwd=directory,
        env=environment(directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        said, until_s = b"", time.monotonic() + START_S
        while said.count(b": running") < len(components):
            ready = select.select([process.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]
            data = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise RuntimeError(f"not all components came: {said[-300:].decode('utf-8', 'replace')}")
            said += data
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def environment(directory: Path) -> dict[str, str]:
    """Return ours, with the state in that directory."""
    return os.environ | {"AIRSSYS_STATE": str(directory / "state")}


def call(directory: Path, name: str, message: str) -> str:
    """Send an actor a message as a person does, and return its answer."""
    return subprocess.run(
        [str(AIRSSYS), "call", name, "-"],
        cwd=directory,
        env=environment(directory),
        input=message,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
