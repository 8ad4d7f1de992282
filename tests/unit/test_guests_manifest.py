"""The committed WebAssembly is the one that was built from the committed sources; scripts/build-guests records both."""

import hashlib
from pathlib import Path

import pytest
import wasmtime

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "guests" / "SHA256SUMS"
MAX_COMMITTED_BYTES = 200_000


def recorded() -> list[tuple[str, str, str]]:
    """Return (guest, SHA-256, path) of each line."""
    lines = [line.split(maxsplit=2) for line in RECORD.read_text().splitlines()]
    return [(guest, digest, path) for guest, digest, path in lines]


@pytest.mark.parametrize(("guest", "digest", "path"), recorded(), ids=lambda value: str(value)[-40:])
def test_each_source_and_result_is_the_recorded_one(guest: str, digest: str, path: str) -> None:
    """A source that changed without a build, or a binary that no build made, is found."""
    found = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
    assert found == digest, f"{path} is not what {guest} was built with: run scripts/build-guests {guest} and commit"


def test_every_committed_binary_is_recorded_and_small() -> None:
    """No WebAssembly lies beside the guests of which nobody knows where it came from."""
    adapter = ROOT / "tests/guests/toolchain/wasi_snapshot_preview1.command.wasm"
    on_demand = ("json-transform", "requester", "counter", "digest")
    made_on_demand = {ROOT / "examples" / name / f"{name}.wasm" for name in on_demand}
    there = {*(ROOT / "tests/guests").rglob("*.wasm"), *(ROOT / "examples").rglob("*.wasm")} - made_on_demand
    assert there == {ROOT / path for _, _, path in recorded() if path.endswith(".wasm")}
    assert adapter in there
    assert {path.name: path.stat().st_size for path in there if path.stat().st_size > MAX_COMMITTED_BYTES} == {}


def test_every_text_module_is_listed_and_well_formed() -> None:
    """The table of hostile modules names each file beside it, and each is WebAssembly."""
    directory = ROOT / "tests/guests/wat"
    files = {path.name: path for path in directory.glob("*.wat")}
    listed = {
        line.split("`")[1] for line in (directory / "README.md").read_text().splitlines() if line.startswith("| `")
    }
    assert listed == set(files)
    for path in files.values():
        assert wasmtime.wat2wasm(path.read_text())[:4] == b"\0asm", path
