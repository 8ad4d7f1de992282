"""The demonstration: it succeeds as it is shipped, leaves nothing behind, and fails as soon as one layer is off."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"

pytestmark = pytest.mark.slow


def _run_demo(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "AIRSSYS_SETUP": "skip"}
    return subprocess.run(
        [DEMO, *options],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demonstration_succeeds_and_leaves_nothing_behind(short_dir: Path) -> None:
    """All three components end as they must, each refusal is in the log, and its directory is gone."""
    done = _run_demo(short_dir)
    assert done.returncode == 0, done.stdout
    assert "not as it must be" not in done.stdout
    places = set(re.findall(r"/tmp/airssys-demo\.\w+", done.stdout))
    assert len(places) == 1
    assert not os.path.exists(places.pop())
    assert list(short_dir.iterdir()) == []


@pytest.mark.any_user
@pytest.mark.parametrize("layer", ["landlock", "seccomp", "namespaces"])
def test_the_demonstration_fails_with_a_layer_off(short_dir: Path, layer: str) -> None:
    """It doesn't print its refusals whatever happens: with a layer off it says which, and ends with 1."""
    # The component's last attempt never ends: a second of it is as good as the five of its manifest.
    done = _run_demo(short_dir, "--layer-off", layer, "--require", "no_new_privs", "--timeout", "1s")
    assert done.returncode == 1, done.stdout
    assert f"the layer {layer} was off" in done.stdout
