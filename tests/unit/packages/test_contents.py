"""A package's statement: one text for one package, and no package of what could mean two things."""

from __future__ import annotations

import hashlib

import pytest

from supervisor.packages.contents import (
    DEPTH_MAX,
    FILES_MAX,
    MANIFEST_FILE,
    TOTAL_MAX_BYTES,
    Contents,
    PackageError,
    PackageFile,
    contents_of,
    read_statement,
    refuse_paths,
    why_not_path,
)

EMPTY = hashlib.sha256(b"").hexdigest()


def _file(path: str, size_bytes: int = 0) -> PackageFile:
    return PackageFile(path, size_bytes, EMPTY)


def _package(*paths: str) -> Contents:
    return contents_of(_file(path) for path in (MANIFEST_FILE, *paths))


def test_the_statement_names_every_byte() -> None:
    """A line for each file, sorted by the bytes of the paths, whatever order they were found in."""
    package = _package("b.wasm", "B/a", "a.wasm", "ä")
    assert package.statement.decode() == (
        "airssys package, version 1\n"
        f"{EMPTY} 0 B/a\n{EMPTY} 0 Component.toml\n{EMPTY} 0 a.wasm\n{EMPTY} 0 b.wasm\n{EMPTY} 0 ä\n"
    )
    assert package.digest == hashlib.sha256(package.statement).hexdigest()
    assert package == _package("ä", "a.wasm", "B/a", "b.wasm")


@pytest.mark.parametrize(
    "change",
    [
        PackageFile("a.wasm", 1, EMPTY),
        PackageFile("a.wasm", 0, "0" * 64),
        PackageFile("a.wasn", 0, EMPTY),
    ],
)
def test_any_change_is_another_package(change: PackageFile) -> None:
    """A size, a digest or a name that differs gives another digest."""
    assert contents_of([_file(MANIFEST_FILE), change]).digest != _package("a.wasm").digest


def test_a_statement_is_read_back() -> None:
    """What a statement names are the contents that state it."""
    package = _package("a b/c d", "ä.wasm")
    assert read_statement(package.statement) == package
    assert package.file("ä.wasm") == _file("ä.wasm")
    assert package.file("missing") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "airssys package, version 1\n",
        "airssys package, version 2\n" + f"{EMPTY} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 0 Component.toml",
        f"airssys package, version 1\n{EMPTY} 0 b\n{EMPTY} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 00 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} \u0660 Component.toml\n",
        f"airssys package, version 1\n{EMPTY.upper()} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 0 Component.toml\n{EMPTY} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 0 ../x\n{EMPTY} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 0  Component.toml\n",
        f"airssys package, version 1\n{EMPTY} {'9' * 30} Component.toml\n",
        f"airssys package, version 1\r\n{EMPTY} 0 Component.toml\n",
        f"airssys package, version 1\n{EMPTY} 0 Component.toml\n\n",
    ],
)
def test_a_statement_has_one_form(text: str) -> None:
    """Another order, spelling or ending is no statement: one package, one text to sign."""
    with pytest.raises(PackageError):
        read_statement(text.encode())


def test_bytes_that_are_no_text_are_no_statement() -> None:
    """Bytes that aren't UTF-8 are refused like any other text."""
    with pytest.raises(PackageError, match="no statement"):
        read_statement(b"airssys package, version 1\n\xff")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "plain path"),
        ("/etc/passwd", "plain path"),
        ("a//b", "plain path"),
        ("a/", "plain path"),
        ("./a", "plain path"),
        ("a/../b", "plain path"),
        ("..", "plain path"),
        ("a\x00b", "characters"),
        ("a\nb", "characters"),
        ("a\x1b[2Jb", "characters"),
        ("a\u202eb", "characters"),
        ("a\u200bb", "characters"),
        ("a\\b", "characters"),
        ("a\ufe0f", "characters"),
        ("a\u034f", "characters"),
        ("a\u3164", "characters"),
        ("a\u0378", "characters"),
        ("\u2025/a", "characters"),
        ("a\uff0fb", "characters"),
        ("a\uff3cb", "characters"),
        ("a\udcff", "UTF-8"),
        ("x" * 256, "too long"),
        ("/".join(["x" * 200] * 6), "too long"),
        ("/".join(["x"] * (DEPTH_MAX + 1)), "deep"),
        (".git/config", "no part"),
        (".airssys/audit", "no part"),
        ("Component.sig", "no part"),
        (".GIT/config", "no part"),
        ("component.SIG", "no part"),
        ("\uff0egit/config", "no part"),
    ],
)
def test_paths_that_no_package_has(path: str, why: str) -> None:
    """Each is refused by name, and a plain one beside it is not."""
    assert why in why_not_path(path)
    with pytest.raises(PackageError):
        refuse_paths([path])
    assert why_not_path("assets/Component.sig") == ""


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("straße", "STRASSE"),
        ("é", "e\u0301"),
        ("ﬁ", "fi"),
        ("a/b", "A/c"),
        ("a", "a/b"),
        ("A", "a/b"),
        ("a/b/c", "a.b", "a0", "A"),
        ("a/x/1", "a/y/1", "a/X/2"),
        ("\u03b1\u0342\u0345", "\u1fb6\u0345"),
        ("component.toml", "b"),
    ],
)
def test_names_that_some_file_system_takes_for_one(paths: tuple[str, str]) -> None:
    """Two files that could become one, or a file and a directory, are no package; case and forms alike."""
    with pytest.raises(PackageError, match="the same name as"):
        _package(*paths)


def test_names_beside_each_other() -> None:
    """The positive control: other names, and several files of one directory, are."""
    assert len(_package("a/b", "a/c", "a.b", "ab", "b/a").files) == 6


def test_a_package_has_its_manifest_at_the_top() -> None:
    """Without one, or with one further down only, it is none."""
    with pytest.raises(PackageError, match=r"no Component\.toml"):
        contents_of([_file("x/Component.toml")])


def test_a_package_has_bounds() -> None:
    """Too many files, or too many bytes, are refused before anything is done with them."""
    with pytest.raises(PackageError, match="files"):
        refuse_paths([str(number) for number in range(FILES_MAX + 1)])
    with pytest.raises(PackageError, match="larger"):
        contents_of([_file(MANIFEST_FILE), _file("a", TOTAL_MAX_BYTES), _file("b", 1)])
