"""The example of an actor that reads and writes files: through WASI and the warden, as far as it was granted."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.toolchain
def test_it_digests_what_it_may_read_and_leaves_a_report(airssys, up) -> None:
    """A granted file is answered with its digest, which is in a report too; one beside it or elsewhere is refused."""
    subprocess.run([ROOT / "scripts/build-guests", "digest"], check=True, timeout=500, capture_output=True)
    place, out = airssys.directory / "digest", airssys.directory / "out"
    shutil.copytree(ROOT / "examples/digest", place)
    airssys.directory.chmod(0o755)  # passed through on the way, by another identity where this runs as root
    out.mkdir()
    out.chmod(0o777)
    content = (place / "input/orders.csv").read_bytes()
    with up(place, "--grant", "asked", "--set", f"out={out}") as fleet:
        fleet.until("digest: running", within_s=300)
        answer = airssys("call", "digest", "--json", '{"file": "orders.csv"}')
        assert answer.code == 0, answer.stderr
        assert answer.json() == {
            "file": "orders.csv",
            "bytes": len(content),
            "lines": content.count(b"\n"),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        assert json.loads((out / "orders.csv.json").read_text()) == answer.json()
        for name, words in (("notes.txt", "Permission denied"), ("../../../etc/passwd", "not permitted")):
            refused = airssys("call", "digest", "--json", json.dumps({"file": name}))
            assert (refused.code, words in refused.stderr) == (1, True), refused.stderr
        fleet.until(f"denied filesystem.read {place}/input/notes.txt")
        assert [each.name for each in out.iterdir()] == ["orders.csv.json"]
        # A message of many bytes comes in bulk.
        long = '{"file": "orders.csv"' + " " * 70_000 + "}"
        assert airssys("call", "digest", "--json", long).json() == answer.json()
