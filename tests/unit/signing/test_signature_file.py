"""`Component.sig` on disk: written whole or not at all, and never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.packages.contents import SIGNATURE_FILE, PackageError
from supervisor.packages.directory import read_signatures
from supervisor.signing.signature_file import NotWrittenError, write_signature_file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Whatever the umask, everybody may read it; nothing else is left in the directory."""
    assert read_signatures(str(tmp_path)) == b""
    before = os.umask(0o077)
    try:
        for data in (b"first", b"second" * 1000):
            write_signature_file(str(tmp_path), data)
            assert read_signatures(str(tmp_path)) == data
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == [SIGNATURE_FILE]
    assert stat.S_IMODE((tmp_path / SIGNATURE_FILE).stat().st_mode) == 0o644


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link that stands in its place is not read; and what is written replaces it, and leaves its target alone."""
    (tmp_path / "package").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "package" / SIGNATURE_FILE).symlink_to(secret)
    with pytest.raises(PackageError, match="symbolic links"):
        read_signatures(str(tmp_path / "package"))
    write_signature_file(str(tmp_path / "package"), b"x")
    assert secret.read_text() == "secret"
    assert read_signatures(str(tmp_path / "package")) == b"x"


def test_a_hard_link_is_not_written_through(tmp_path: Path) -> None:
    """Another name of somebody's file keeps what it has."""
    (tmp_path / "package").mkdir()
    (tmp_path / "other").write_text("other")
    os.link(tmp_path / "other", tmp_path / "package" / SIGNATURE_FILE)
    write_signature_file(str(tmp_path / "package"), b"x")
    assert (tmp_path / "other").read_text() == "other"


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A directory in its place, or one that is gone, is told; no half file stays."""
    (tmp_path / SIGNATURE_FILE).mkdir()
    with pytest.raises(NotWrittenError, match="directory") as raised:
        write_signature_file(str(tmp_path), b"x")
    assert raised.value.exit_code == 73
    assert os.listdir(tmp_path) == [SIGNATURE_FILE]
    with pytest.raises(ConfigError, match="no such file"):
        write_signature_file(str(tmp_path / "gone"), b"x")
