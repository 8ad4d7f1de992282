"""Git repositories that were made to get out, fetched as `airssys install` does it.

Each is refused, or comes to nothing, and leaves nothing; the control shows that the trick is one, or that the same
repository without it is a package.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from repositories import ENVIRONMENT, FILES, Repository

from ipc.errors import ConfigError
from supervisor.packages.contents import PackageError
from supervisor.packages.fetch import fetch
from supervisor.packages.fetch_git import fetch_git
from supervisor.packages.provenance import Fetched
from supervisor.packages.source import GitSource, parse_source
from supervisor.packages.writing import clear_directory
from supervisor.usage_error import UsageError

pytestmark = pytest.mark.any_user

SUBMODULE = b'[submodule "s"]\n\tpath = s\n\turl = ext::touch WITNESS\n\tupdate = !touch WITNESS\n'


@pytest.fixture
def repository(short_dir: Path) -> Repository:
    """A repository with one commit, which is a package."""
    made = Repository(short_dir / "repository.git")
    made.commit(made.package())
    return made


@pytest.fixture
def destination(short_dir: Path) -> Path:
    """Where packages are fetched to."""
    made = short_dir / "destination"
    made.mkdir()
    return made


@pytest.fixture
def witness(short_dir: Path) -> Path:
    """A file that is there once something of an attacker's has run; anybody may make it."""
    place = short_dir / "open"
    place.mkdir()
    place.chmod(0o777)
    return place / "witness"


class Tripwire:
    """A file of the repository's own, which whoever runs there may read: it is seen that something has.

    A file that it would write isn't enough: Landlock keeps it from writing any.
    """

    def __init__(self, repository: Repository) -> None:
        """Put it there, last read long ago."""
        self.path = repository.path / "tripwire"
        self.path.write_text("x")
        self.path.chmod(0o644)
        os.utime(self.path, (0, self.path.stat().st_mtime))

    @property
    def was_read(self) -> bool:
        """Whether something has read it."""
        return self.path.stat().st_atime > 0


def get(source: str | GitSource, destination: Path) -> Fetched:
    """Fetch a source."""
    return fetch(parse_source(source) if isinstance(source, str) else source, str(destination))


def run_git(*arguments: str, **environment: str) -> int:
    """Run git as anybody would."""
    command = ["git", *arguments]
    return subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, check=False).returncode


def left_behind() -> list[str]:
    """Return scratch directories that are still there."""
    return glob.glob("/var/tmp/airssys-fetch-*")


def assert_nothing_came(destination: Path, witness: Path | None = None) -> None:
    """Nothing was written, nothing has run, nothing is left."""
    assert os.listdir(destination) == []
    assert witness is None or not witness.exists()


def test_a_transport_that_runs_programs(repository: Repository, destination: Path, witness: Path) -> None:
    """`ext::` is no source; and where one got that far git would not follow it. By git itself, it runs."""
    url = f"ext::touch {witness}"
    with pytest.raises(UsageError):
        parse_source(url)
    with pytest.raises(ConfigError, match="transport 'ext' not allowed"):
        get(GitSource("https", url), destination)
    assert_nothing_came(destination, witness)
    run_git("-c", "protocol.ext.allow=always", "ls-remote", url)
    assert witness.exists()


@pytest.mark.parametrize("part", ["url", "revision", "subdirectory"])
def test_an_option_in_place_of_a_name(part: str, repository: Repository, destination: Path, witness: Path) -> None:
    """A name that begins with a - is a name to git, wherever it stands, and no revision. By git itself, it runs."""
    option = f"--upload-pack=touch {witness};"
    parts = {"url": f"file://{repository.path}"} | {part: option}
    if part == "revision":
        with pytest.raises(UsageError):
            parse_source(f"git+{parts['url']}@{option}")
    with pytest.raises(ConfigError):
        get(GitSource("https" if part == "url" else "file", **parts), destination)
    assert_nothing_came(destination, witness)
    run_git("ls-remote", option, str(repository.path))
    assert witness.exists()


@pytest.mark.parametrize("kind", ["bare", "working tree"])
def test_settings_in_the_repository(kind: str, repository: Repository, destination: Path, witness: Path) -> None:
    """Whatever its owner wrote into its configuration or its hooks runs nowhere; in a clone of ours, it would.

    As root it is somebody else's: who reads it is nobody's idea of its owner.
    """
    if kind == "working tree":
        tree = witness.parent / "tree"
        assert run_git("clone", "-q", str(repository.path), str(tree)) == 0
        repository.path = tree / ".git"
        repository.git("remote", "remove", "origin")
    source = repository.source.removesuffix("/.git")
    tripwire = Tripwire(repository)
    command = f"cat {tripwire.path}; touch {witness}; false"
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand"):
        repository.git("config", key, command)
    repository.git("config", "core.hooksPath", str(repository.path / "hooks"))
    repository.git("config", "alias.upload-pack", f"!{command}")
    hook = repository.path / "hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{command}\n")
    hook.chmod(0o755)
    repository.open_up()
    assert get(source, destination).contents.total_bytes == sum(map(len, FILES.values()))
    assert not witness.exists()
    assert not tripwire.was_read
    believed = {"GIT_CONFIG_GLOBAL": str(repository.path / "config")}
    run_git("clone", "-q", f"file://{repository.path}", str(witness.parent / "clone"), **believed)
    assert witness.exists()
    assert tripwire.was_read


def test_objects_that_are_to_be_fetched_when_they_are_missed(
    repository: Repository, destination: Path, witness: Path
) -> None:
    """A repository that lacks an object, and says by which program it is had: it is refused. Git itself runs it."""
    tripwire = Tripwire(repository)
    missing = repository.blob(b"missing")
    repository.commit(repository.package(("100644", b"missing", missing)))
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(repository.path),
        "remote.origin.promisor": "true",
        "remote.origin.uploadPack": f"cat {tripwire.path} >&2; touch {witness}; false",
    }.items():
        repository.git("config", key, value)
    (repository.path / "objects" / missing[:2] / missing[2:]).unlink()
    repository.open_up()
    with pytest.raises(ConfigError):
        get(repository.source, destination)
    assert_nothing_came(destination, witness)
    assert not tripwire.was_read
    run_git(f"--git-dir={repository.path}", "cat-file", "blob", missing)
    assert witness.exists()
    assert tripwire.was_read


def test_a_filter_for_files(repository: Repository, destination: Path, witness: Path) -> None:
    """A file is what was committed: no filter of anybody's settings is asked for it. By a checkout, it runs."""
    attributes = repository.blob(b"* filter=evil\n")
    repository.commit(repository.package(("100644", b".gitattributes", attributes)))
    assert get(repository.source, destination).contents.file(".gitattributes") is not None
    assert not witness.exists()
    place = str(witness.parent / "clone")
    run_git("-c", f"filter.evil.smudge=touch {witness}; cat", "clone", "-q", str(repository.path), place)
    assert witness.exists()


def test_a_submodule(repository: Repository, destination: Path, witness: Path) -> None:
    """A commit of another repository is refused by name; its settings alone are a file that nobody reads."""
    modules = ("100644", b".gitmodules", repository.blob(SUBMODULE.replace(b"WITNESS", str(witness).encode())))
    sub = ("160000", b"s", repository.git("rev-parse", "main"))
    repository.commit(repository.package(modules, sub))
    with pytest.raises(ConfigError):
        get(repository.source, destination)
    assert_nothing_came(destination, witness)
    repository.commit(repository.package(("160000", b"s", repository.git("rev-parse", "main"))))
    with pytest.raises(ConfigError, match="s: a submodule"):
        get(repository.source, destination)
    repository.commit(repository.package())
    assert get(repository.source, destination).contents.files


REFERENCES = {
    "option": "refs/heads/--upload-pack=touch${IFS}WITNESS",
    "parent": "refs/heads/../../../open/witness",
    "escape codes": "refs/heads/\x1b[2J\x1b]0;x\x07",
    "a line of its own": "refs/heads/x\tHEAD",
    "a slash twice": "refs/heads//main",
}


@pytest.mark.parametrize("trick", REFERENCES)
def test_a_hostile_name_of_a_branch(trick: str, repository: Repository, destination: Path, witness: Path) -> None:
    """Asked for it is refused; beside an honest branch, or as what HEAD stands for, it is neither done nor recorded.

    Without it the repository is a package.
    """
    name = REFERENCES[trick].replace("WITNESS", str(witness))
    main = repository.git("rev-parse", "main")
    (repository.path / "packed-refs").write_text(f"{main} {name}\n{main} refs/heads/other\n")
    repository.open_up()
    evil = name.removeprefix("refs/heads/")
    with pytest.raises(UsageError):
        parse_source(f"{repository.source}@{evil}")
    for revision in (evil, name):
        with contextlib.suppress(ConfigError):  # an option is a name as any other, once it got so far
            get(GitSource("file", f"file://{repository.path}", revision), destination)
            assert trick == "option"
        assert not witness.exists()
        clear_directory(str(destination))
    (repository.path / "HEAD").write_text(f"ref: {name}\n")
    repository.open_up()
    for number, revision in enumerate(("main", "")):
        place = destination.parent / f"{number}"
        place.mkdir()
        with contextlib.suppress(ConfigError):  # git may serve nothing beside such a name, or find none
            fetched = get(GitSource("file", f"file://{repository.path}", revision), place)
            assert fetched.provenance.branch == revision
            assert fetched.provenance.revision == main
        assert not witness.exists()
    (repository.path / "packed-refs").unlink()
    (repository.path / "HEAD").write_text("ref: refs/heads/main\n")
    repository.open_up()
    assert get(repository.source, destination).provenance.branch == "main"


NAMES = {
    "git directory": (b".git", "40000", "hasDotgit|contains '.git'"),
    "git directory in capitals": (b".GIT", "40000", "hasDotgit|contains '.git'"),
    "parent": (b"..", "40000", r"hasDotdot|contains '\.\.'"),
    "slash": (b"../x", "100644", "fullPathname|full pathnames"),
    "case": (b"THING.wasm", "100644", "the same name as"),
    "escape codes": (b"\x1b[2Jx", "100644", "can't be shown"),
    "newline": (b"x\ny", "100644", "can't be shown"),
    "not utf-8": (b"\xff", "100644", "not UTF-8"),
    "backslash": (b"..\\x", "100644", "can't be shown"),
    "symbolic link": (b"x", "120000", "x: a symbolic link"),
}


@pytest.fixture(scope="module")
def tricky() -> Iterator[Repository]:
    """A repository with a branch for each of them, and one without."""
    place = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    place.chmod(0o755)
    try:
        made = Repository(place / "tricky.git")
        harmless = made.commit(made.package())
        file = made.blob(b"/etc/passwd")
        tree = made.tree(("100644", b"x", file))
        for number, (name, mode, _) in enumerate(NAMES.values()):
            made.commit(made.package((mode, name, tree if mode == "40000" else file)), harmless, branch=f"b{number}")
        yield made
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("trick", NAMES)
def test_a_hostile_name_in_a_tree(trick: str, tricky: Repository, destination: Path) -> None:
    """Refused by git's own look at what it fetches, or by name."""
    with pytest.raises(PackageError, match=NAMES[trick][2]) as refused:
        get(f"{tricky.source}@b{list(NAMES).index(trick)}", destination)
    assert "\x1b" not in str(refused.value)
    assert_nothing_came(destination)


def test_the_harmless_branch_beside_them(tricky: Repository, destination: Path) -> None:
    """Their control: the commit on which all of them are based is a package."""
    assert [each.path for each in get(f"{tricky.source}@main", destination).contents.files] == sorted(FILES)


def test_a_pack_without_end(repository: Repository, destination: Path) -> None:
    """Of more than was allowed git stores no more than that, and it is named; with room, it is a package."""
    large = repository.blob(os.urandom(3 << 20))
    repository.commit(repository.package(("100644", b"large", large)))
    source = parse_source(repository.source)
    assert isinstance(source, GitSource)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        fetch_git(source, str(destination), 0, "", pack_max_bytes=1 << 20)
    assert fetch_git(source, str(destination), 0, "", pack_max_bytes=8 << 20).contents.total_bytes > 3 << 20


def test_a_file_that_is_larger_than_its_pack(repository: Repository, destination: Path) -> None:
    """Two GiB are refused by the sizes that the tree names, before one byte of it is written."""
    zeros = repository.path.parent / "zeros"
    with zeros.open("wb") as file:
        file.truncate(8 << 20)
    one = repository.git("hash-object", "-w", str(zeros))
    trees = repository.tree(*(("100644", b"%03d" % number, one) for number in range(257)))
    repository.commit(repository.package(("40000", b"d", trees)))
    with pytest.raises(ConfigError, match="its files are larger than 2 GiB"):
        get(repository.source, destination)
    assert_nothing_came(destination)


def test_objects_of_another_repository(repository: Repository, destination: Path, short_dir: Path) -> None:
    """A repository that borrows its objects from elsewhere doesn't read there. Git itself does."""
    other = Repository(short_dir / "other.git")
    secret = other.commit(other.package(("100644", b"secret", other.blob(b"secret"))))
    (repository.path / "objects/info/alternates").write_text(f"{other.path}/objects\n")
    repository.git("update-ref", "refs/heads/main", secret)
    repository.open_up()
    with pytest.raises(ConfigError):
        get(repository.source, destination)
    assert_nothing_came(destination)
    assert run_git("clone", "-q", f"file://{repository.path}", str(short_dir / "clone")) == 0
    assert (short_dir / "clone/secret").exists()


def test_a_commit_that_belongs_to_no_branch(repository: Repository, destination: Path) -> None:
    """That a server hands a commit out, of a fork or a refused proposal, doesn't make it one of its branches'.

    Git itself fetches it.
    """
    stray = repository.git("commit-tree", repository.package(), "-m", "not merged")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repository.git("update-ref", "refs/pull/1/head", stray)
    repository.open_up()
    with pytest.raises(ConfigError, match="no branch or tag of the repository has the commit"):
        get(f"{repository.source}@{stray}", destination)
    assert_nothing_came(destination)
    clone = str(destination.parent / "clone")
    assert run_git("init", "-q", clone) == 0
    assert run_git("-C", clone, "fetch", "-q", f"file://{repository.path}", stray) == 0


def test_nothing_is_left_of_the_scratch_directories(repository: Repository, destination: Path) -> None:
    """Neither of a package that was fetched nor of one that was refused."""
    before = set(left_behind())
    get(repository.source, destination)
    with pytest.raises(ConfigError):
        get(f"{repository.source}@nothing", destination)
    assert set(left_behind()) <= before
