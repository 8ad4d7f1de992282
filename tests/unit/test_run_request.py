"""What the flags of a bare program stand for: patterns, mounts, environment and secrets, with real files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.policy.patterns import parse_pattern
from supervisor.run.request import (
    bare_name,
    environment_pairs,
    flag_grants,
    flag_mount,
    flag_pattern,
    literal_directory,
    merge_mounts,
    named_top_directories,
    split_assignment,
)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A working directory with files whose names mean something to patterns, and links."""
    here = Path(os.path.realpath(tmp_path)) / "work"
    for name in ("in/sub", "odd[1]", "real*dir"):
        (here / name).mkdir(parents=True)
    for name in ("in/a.csv", "in/[x]", "in/*", "in/${HOME}", "in/q?", "odd[1]/f", "in/x", "in/abc", "odd1"):
        (here / name).write_bytes(b"")
    (here / "link").symlink_to("in")
    (here / "filelink").symlink_to("in/a.csv")
    (here / "dangling").symlink_to("nowhere")
    (here / "oddlink").symlink_to("odd[1]")
    (here.parent / "other").mkdir()
    (here / "away").symlink_to("../other")
    return here


def _covers(cwd: Path, text: str, resource: str) -> bool:
    return parse_pattern(flag_pattern(text, str(cwd), "--read")).matches(resource)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in", "{cwd}/in/"),
        ("in/", "{cwd}/in/"),
        ("./in//", "{cwd}/in/"),
        (".", "{cwd}/"),
        ("..", "{parent}/"),
        ("in/..", "{cwd}/"),
        ("{cwd}/in", "{cwd}/in/"),
        ("in/a.csv", "{cwd}/in/a.csv"),
        ("in/./a.csv", "{cwd}/in/a.csv"),
        ("link", "{cwd}/in/"),
        ("link/a.csv", "{cwd}/in/a.csv"),
        ("filelink", "{cwd}/in/a.csv"),
        ("in/*.csv", "{cwd}/in/*.csv"),
        ("in/**", "{cwd}/in/**"),
        ("in/s*/", "{cwd}/in/s*/"),
        ("link/*.csv", "{cwd}/in/*.csv"),
        ("link/../in/*.csv", "{cwd}/in/*.csv"),
        ("away/*.csv", "{parent}/other/*.csv"),
        ("away/../*.csv", "{parent}/*.csv"),
        ("new.txt", "{cwd}/new.txt"),
        ("new/", "{cwd}/new/"),
        ("out/deep/new.txt", "{cwd}/out/deep/new.txt"),
        ("link/new.txt", "{cwd}/in/new.txt"),
        ("dangling", "{cwd}/dangling"),
        ("/", "/"),
        ("/*", "/*"),
        ("/nonexistent/x", "/nonexistent/x"),
    ],
)
def test_flag_pattern(cwd: Path, text: str, expected: str) -> None:
    """Directories, files, links, patterns and names that don't exist each stand for one pattern."""
    places = {"cwd": str(cwd), "parent": str(cwd.parent)}
    pattern = flag_pattern(text.format(**places), str(cwd), "--read")
    assert pattern == expected.format(**places)
    parse_pattern(pattern)


def test_a_directory_covers_itself_and_all_beneath(cwd: Path) -> None:
    """`--read in` is the directory and everything in it, and nothing beside it."""
    assert _covers(cwd, "in", f"{cwd}/in")
    assert _covers(cwd, "in", f"{cwd}/in/sub/deep/file")
    assert not _covers(cwd, "in", f"{cwd}/inner")
    assert not _covers(cwd, "in", str(cwd))


@pytest.mark.parametrize(("name", "not_covered"), [("[x]", "x"), ("*", "abc"), ("q?", "qq"), ("${HOME}", "HOME")])
def test_an_existing_file_is_itself(cwd: Path, name: str, not_covered: str) -> None:
    """Pattern characters in the name of a file that exists stand for themselves."""
    assert _covers(cwd, f"in/{name}", f"{cwd}/in/{name}")
    assert not _covers(cwd, f"in/{name}", f"{cwd}/in/{not_covered}")


def test_a_working_directory_is_no_pattern(cwd: Path) -> None:
    """Pattern characters in the name of the working directory stand for themselves."""
    odd = cwd / "odd[1]"
    assert _covers(odd, "*.csv", f"{odd}/a.csv")
    assert not _covers(odd, "*.csv", f"{cwd}/odd1/a.csv")
    assert _covers(odd, "new", f"{odd}/new")
    assert not _covers(odd, "new", f"{cwd}/odd1/new")


def test_a_links_target_is_no_pattern(cwd: Path) -> None:
    """Pattern characters in the target of a link stand for themselves."""
    assert _covers(cwd, "oddlink/*.csv", f"{cwd}/odd[1]/a.csv")
    assert not _covers(cwd, "oddlink/*.csv", f"{cwd}/odd1/a.csv")


@pytest.mark.parametrize("text", ["", "a\0b", "in/*/../secret", "*/..", "missing*/../../etc"])
def test_what_names_nothing_is_refused(cwd: Path, text: str) -> None:
    """An empty value, a NUL and `..` behind a pattern are errors that name the flag."""
    with pytest.raises(ConfigError, match="--read"):
        flag_pattern(text, str(cwd), "--read")


def test_dots_behind_a_missing_directory_widen_nothing(cwd: Path) -> None:
    """`missing/../x` is the x beside it, as a shell that makes the directory first would see it."""
    assert flag_pattern("missing/../x", str(cwd), "--read") == f"{cwd}/x"


def test_undecodable_names(cwd: Path) -> None:
    """A name that isn't UTF-8 keeps its bytes through surrogate escapes."""
    name = os.fsdecode(b"\xff.csv")
    (cwd / name).write_bytes(b"")
    assert _covers(cwd, name, f"{cwd}/{name}")


def test_flag_grants_name_their_flag(cwd: Path) -> None:
    """Each flag is one grant of its verb, and says where it was written."""
    grants = flag_grants(["in"], ["out/*"], ["."], str(cwd))
    assert grants == (
        Grant("filesystem.read", f"{cwd}/in/", "--read in"),
        Grant("filesystem.write", f"{cwd}/out/*", "--write out/*"),
        Grant("filesystem.list", f"{cwd}/", "--list ."),
    )


@pytest.mark.parametrize(
    ("text", "host", "guest"),
    [
        ("in", "in", "in"),
        ("in::/data", "in", "/data"),
        ("link::/data", "in", "/data"),
        (".::work", ".", "work"),
        ("in::a::b", "in", "a::b"),
    ],
)
def test_flag_mount(cwd: Path, text: str, host: str, guest: str) -> None:
    """HOST[::GUEST] is the real directory and the name that the guest sees."""
    assert flag_mount(text, str(cwd)) == (guest, os.path.realpath(cwd / host))


@pytest.mark.parametrize("text", ["", "::", "::/data", "in::", "missing::/x", "in/a.csv", "dangling"])
def test_a_mount_is_a_directory(cwd: Path, text: str) -> None:
    """A mount without host or guest, of a file or of nothing, is an error that names the flag."""
    with pytest.raises(ConfigError, match="--dir"):
        flag_mount(text, str(cwd))


def test_mounts_of_a_component() -> None:
    """`/` comes first and is the host's; then what was given, which may stand for `/` itself."""
    assert merge_mounts((("/d", "/data"),), (), None) == (("/", "/"), ("/d", "/data"))
    assert merge_mounts((("/", "/data"),), (), None) == (("/", "/data"),)


def test_mounts_of_a_bare_program() -> None:
    """`.` last, which wasi-libc's relative names need, by its own name first; a `.` that was given stays."""
    mounts = merge_mounts((("d", "/data"),), (), "/work")
    assert mounts[:2] == (("/work", "/work"), ("/", "/"))
    assert mounts[-2:] == (("d", "/data"), (".", "/work"))
    assert ("/etc", "/etc") in mounts
    assert dict(merge_mounts(((".", "/a"),), (), "/work"))["."] == "/a"


@pytest.mark.parametrize(
    ("explicit", "cwd", "names", "first"),
    [
        ((), "/srv/w", (), ("/srv/w", "/srv/w")),
        ((), "/srv/w", ("srv",), ("/", "/")),
        ((), "/", ("srv",), ("/", "/")),
        ((), "/srv/\udcff", (), ("/", "/")),
        (((".", "/srv/c"),), None, (), ("/srv/c", "/srv/c")),
        (((".", "/srv/c"), ("/srv", "/srv")), None, (), ("/srv/c", "/srv/c")),
        (((".", "/srv/c"), ("/srv", "/else")), None, (), ("/", "/")),
        (((".", "/srv/c"), ("/", "/else")), None, (), ("/", "/else")),
        (((".", "/srv/c"), ("/srv/c/d", "/else")), None, (), ("/srv/c", "/srv/c")),
        ((("/d", "/srv/c"),), None, (), ("/", "/")),
    ],
)
def test_what_the_dot_shows_comes_first_by_its_own_name(
    explicit: tuple[tuple[str, str], ...], cwd: str | None, names: tuple[str, ...], first: tuple[str, str]
) -> None:
    """Zig and Go take it for the working directory; not where that name leads, or could be taken to, elsewhere."""
    assert merge_mounts(explicit, (), cwd, names)[0] == first


def test_granted_directories_are_mounted_under_their_names() -> None:
    """What a file grant names is mounted by its own name, unless the working directory has an entry of that name."""
    grants = (Grant("filesystem.read", "/srv/in/", "t"), Grant("network.connect", "https://example.com/", "t"))
    assert ("/srv/in", "/srv/in") in merge_mounts((), grants[:1], "/work")
    assert ("/srv/in", "/srv/in") not in merge_mounts((), grants[:1], "/work", ("srv/in",))
    assert ("/etc", "/etc") not in merge_mounts((), (), "/work", ("etc",))


@pytest.mark.parametrize(
    ("pattern", "directory"),
    [
        ("/in/", "/in"),
        ("/in/**", "/in"),
        ("/in/*.csv", "/in"),
        ("/in/a.csv", "/in"),
        ("/in/*/deep/x", "/in"),
        ("/in/[x]/y", "/in"),
        ("/a", "/"),
        ("/", "/"),
        ("/**", "/"),
    ],
)
def test_literal_directory(pattern: str, directory: str) -> None:
    """The directory that all matches lie in, as far as no wildcard comes before."""
    assert literal_directory(pattern) == directory


def test_environment() -> None:
    """`K=V` sets, `K` passes ours on, later ones win; nothing else of ours is passed."""
    pairs = environment_pairs(["A=1", "B", "A=2=3", "E="], [], {"B": "ours", "SECRET": "no"})
    assert dict(pairs) == {"A": "2=3", "B": "ours", "E": ""}


@pytest.mark.parametrize("env", [["=x"], ["1A=x"], ["A B=x"], ["UNSET"], ["A=x\0y"], ["A\n=x"], ["Ä=x"]])
def test_bad_environment(env: list[str]) -> None:
    """Names that no variable has, variables that aren't set and NUL bytes are errors."""
    with pytest.raises(ConfigError):
        environment_pairs(env, [], {})


@pytest.mark.parametrize("text", ["", "=", "A", "1=x", "-A=x"])
def test_bad_assignment(text: str) -> None:
    """Anything but NAME=VALUE is an error that names the flag."""
    with pytest.raises(ConfigError, match="--flag"):
        split_assignment(text, "--flag")


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"token\n", "token"), (b"token", "token"), (b"a\n\n", "a\n"), (b"", ""), (b"x" * 65_536, None)],
)
def test_secret(tmp_path: Path, content: bytes, value: str | None) -> None:
    """A secret is a file's content without one newline at its end, up to 64 KiB."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert environment_pairs([], [f"T={path}"], {}) == (("T", content.decode() if value is None else value),)


def test_a_secret_from_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """`--secret K=<(command)`: what comes in several pieces is one value."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as stream:
            stream.write(b"first ")
            stream.write(b"second\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert environment_pairs([], [f"T={path}"], {}) == (("T", "first second"),)
    finally:
        writer.join()


@pytest.mark.parametrize("content", [b"x" * 65_537, b"hidden\xff", b"hidden\0value"])
def test_a_bad_secret_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    """Too long, not UTF-8, with a NUL: the error names variable and not value."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        environment_pairs([], [f"TOKEN={path}"], {})
    assert "TOKEN" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("path", ["missing", "."])
def test_a_secret_is_a_readable_file(tmp_path: Path, path: str) -> None:
    """What is missing, or a directory, is an error."""
    with pytest.raises(ConfigError, match="secret TOKEN"):
        environment_pairs([], [f"TOKEN={tmp_path / path}"], {})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("prog.wasm", "prog"),
        ("/a/b/My_Prog v2.wasm", "my-prog-v2"),
        ("7zip.wasm", "p-7zip"),
        ("ä.wasm", "p"),
        (".wasm", "p"),
        ("x", "x"),
        ("a" * 100 + ".wasm", "a" * 63),
        ("--x--.wasm", "x"),
    ],
)
def test_bare_name(path: str, name: str) -> None:
    """A bare program's name is its file's, made to fit a component's name."""
    assert bare_name(path) == name


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("/srv/in/a.csv",), ("/srv",)),
        (("--input=/srv/x", "-o", "/var/y"), ("/srv", "/var")),
        (("/srv/a", "/srv/b"), ("/srv",)),
        (("K=/opt/x:/usr/y",), ("/opt",)),
        (("in/a.csv", "a/b", "./x", "-/x"), ()),
        (("/", "//", ""), ()),
        (("/etc",), ("/etc",)),
    ],
)
def test_top_directories_that_arguments_name(texts: tuple[str, ...], found: tuple[str, ...]) -> None:
    """The first segment of each absolute path, options' values included; relative paths name none."""
    assert named_top_directories(texts) == found


def test_directories_by_name_come_before_the_working_directory(tmp_path: Path) -> None:
    """They are mounted under their own names, but for those of which the working directory has an entry."""
    mounts = merge_mounts((), (), str(tmp_path), ("usr",), ("/tmp", "/usr", "/not-there"))
    assert ("/tmp", "/tmp") in mounts
    assert ("/usr", "/usr") not in mounts
    assert ("/not-there", "/not-there") not in mounts
    assert mounts[-1] == (".", str(tmp_path))
