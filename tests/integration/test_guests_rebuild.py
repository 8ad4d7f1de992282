"""The committed guests can be made again from their sources, byte for byte."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
    assert result.stdout.count("the same: ") == len(result.stdout.splitlines()) == 9
    assert "DIFFERS" not in result.stdout
