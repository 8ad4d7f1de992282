"""A component's own directory: whose it is, and what may not stand in its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.host.component_directories import make_data_directory
from supervisor.host.identity import Identity

OWNER = Identity("somebody", 4242 if os.getuid() == 0 else os.getuid(), os.getgid(), ())


def test_it_is_the_identitys_alone(tmp_path: Path) -> None:
    """Mode 0700 and the file identity's, also where it was there before."""
    (tmp_path / "reader").mkdir(mode=0o755)
    for name in ("reader", "deep/other"):
        status = os.stat(make_data_directory(str(tmp_path / name), OWNER))
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, OWNER.uid)


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_link_in_place_of_data_is_refused(tmp_path: Path, target: str) -> None:
    """A link would turn what is granted on `${data}` into a grant on what it leads to."""
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "reader").symlink_to(target)
    with pytest.raises(ConfigError, match="expected the component's own directory"):
        make_data_directory(str(tmp_path / "reader"), OWNER)
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected the component's own directory"):
        make_data_directory(str(tmp_path / "file"), OWNER)
