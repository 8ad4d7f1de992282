"""Directories and fetched packages judged: their bytes, their place, and what isn't a package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.packages.directory import read_directory
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.trust.judge import judge_directory, judge_fetched
from supervisor.trust.sources import LocalSource, git_source


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a directory that nobody else can write."""
    directory = tmp_path.resolve() / "components" / "csv"
    (directory / "data").mkdir(parents=True)
    (directory / "Component.toml").write_text("schema = 1\n")
    (directory / "data" / "words").write_text("x")
    for path in (directory.parent, directory, directory / "data"):
        path.chmod(0o755)
    for path in (directory / "Component.toml", directory / "data" / "words"):
        path.chmod(0o644)
    return directory


def _here(package: Path) -> LocalSource:
    return LocalSource(0, "a:1", f"{package.parent}/*")


def test_a_directory_is_judged_with_its_contents(package: Path) -> None:
    """The decision comes with the bytes that it is about, and the real path."""
    judged = judge_directory(os.path.relpath(package), (_here(package),))
    assert judged.trusted
    assert judged.contents == read_directory(str(package))
    assert judged.provenance.url == str(package)


def test_what_is_no_package_is_not_trusted(package: Path) -> None:
    """A link, a pipe or a missing manifest: unknown, with what is wrong."""
    os.mkfifo(package / "pipe")
    judged = judge_directory(str(package), (_here(package),))
    assert (judged.decision.level, judged.contents) == ("unknown", None)
    assert "it is no package: pipe: no regular file" in judged.decision.reason
    (package / "pipe").unlink()
    (package / "Component.toml").unlink()
    assert "no Component.toml" in judge_directory(str(package), (_here(package),)).decision.reason


def test_what_can_not_be_trusted_is_not_read(package: Path) -> None:
    """A directory of whatever size costs nothing where no place and no signature speaks for it."""
    elsewhere = LocalSource(0, "a:1", "/srv/components/*")
    (package / "Component.toml").unlink()
    judged = judge_directory(str(package), (elsewhere,))
    assert (judged.decision.level, judged.contents) == ("unknown", None)
    assert judged.decision.reason == "no entry of [[trust.sources]] covers it"
    assert "no package" in judge_directory(str(package), (elsewhere,), always_read=True).decision.reason


def test_what_was_fetched_is_judged_by_where_it_came_from(package: Path) -> None:
    """A directory's place is looked at, down to each file; a repository elsewhere by its URL alone."""
    contents = read_directory(str(package))
    fetched = Fetched(contents, b"", Provenance("directory", str(package)))
    assert judge_fetched(fetched, (_here(package),)).level == "trusted"
    (package / "data" / "words").chmod(0o666)
    assert judge_fetched(fetched, (_here(package),)).level == "unknown"
    source = git_source(0, "a:1", "https://git.example.com/plugins/*")
    for url, level in (
        ("https://git.example.com/plugins/csv", "trusted"),
        ("https://git.example.com@evil.com/plugins/csv", "unknown"),
    ):
        assert judge_fetched(Fetched(contents, b"", Provenance("git", url)), (source,)).level == level
