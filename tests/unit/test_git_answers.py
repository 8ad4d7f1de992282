"""What git answers, read: names and trees of a repository whose owner may have chosen every byte of them."""

from __future__ import annotations

import pytest

from worker.git_answers import (
    GitError,
    References,
    TreeFile,
    Wanted,
    asked_references,
    choose,
    explain_failure,
    read_references,
    read_tree,
)

ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40
LISTED = (
    f"ref: refs/heads/main\tHEAD\n{ONE}\tHEAD\n{ONE}\trefs/heads/main\n{TWO}\trefs/heads/both\n{TWO}\trefs/heads/f/x\n"
    f"{ONE}\trefs/tags/both\n{THREE}\trefs/tags/v1\n{TWO}\trefs/tags/v1^{{}}\n{ONE}\trefs/pull/1/head\n"
)
THERE = read_references(LISTED.encode())


def test_references_are_read() -> None:
    """Names and objects, and the branch that HEAD stands for."""
    assert THERE.head == "refs/heads/main"
    assert THERE.objects["refs/tags/v1^{}"] == TWO
    assert read_references(b"") == References({}, "")
    assert read_references(b"nonsense\n\xff\tx\nzz\trefs/heads/main\n") == References({}, "")


@pytest.mark.parametrize(
    ("revision", "wanted"),
    [
        ("", Wanted("HEAD", "main")),
        ("main", Wanted("refs/heads/main", "main")),
        ("f/x", Wanted("refs/heads/f/x", "f/x")),
        ("v1", Wanted("refs/tags/v1")),
        ("refs/heads/both", Wanted("refs/heads/both", "both")),
        ("refs/tags/both", Wanted("refs/tags/both")),
        (ONE, Wanted("refs/heads/main", commit=ONE)),
        (TWO, Wanted("refs/heads/both", commit=TWO)),
        ("4" * 40, Wanted("", commit="4" * 40)),
    ],
)
def test_what_a_revision_means(revision: str, wanted: Wanted) -> None:
    """A branch is recorded as one; a tag and a commit aren't, wherever they are."""
    assert choose(THERE, revision) == wanted


@pytest.mark.parametrize(
    ("revision", "why"),
    [
        ("none", "no branch or tag none"),
        ("1111111", "by its whole id"),
        ("both", "a branch and a tag"),
        ("refs/pull/1/head", "has no refs/pull"),
        ("refs/heads/none", "has no refs/heads/none"),
    ],
)
def test_what_a_revision_doesnt_mean(revision: str, why: str) -> None:
    """What isn't there, isn't named whole, or could be two things."""
    with pytest.raises(GitError, match=why):
        choose(THERE, revision)


def test_a_repository_without_a_head() -> None:
    """An empty one has no default branch; one whose HEAD is a mere commit has no branch to record."""
    with pytest.raises(GitError, match="no default branch"):
        choose(References({}, ""), "")
    assert choose(References({"HEAD": ONE}, ""), "") == Wanted("HEAD")
    assert choose(References({"HEAD": ONE}, "refs/elsewhere/x"), "") == Wanted("HEAD")


def test_only_what_is_needed_is_asked_for() -> None:
    """Whole names, of which git makes no patterns; everything only for a commit."""
    assert asked_references("") == ("HEAD",)
    assert asked_references("x") == ("refs/heads/x", "refs/tags/x", "refs/tags/x^{}")
    assert asked_references("refs/tags/x") == ("refs/tags/x", "refs/tags/x^{}")
    assert asked_references(ONE) == ()


def test_a_tree_is_read() -> None:
    """Files, whether executable or not; a name may hold whatever isn't a NUL."""
    lines = f"100644 blob {ONE}      12\ta/b\0" + f"100755 blob {TWO}       0\tc\td\ne\0"
    assert list(read_tree(lines.encode())) == [TreeFile("a/b", ONE, 12), TreeFile("c\td\ne", TWO, 0)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"120000 blob {ONE}       9\tlink", "link: a symbolic link"),
        (f"160000 commit {ONE}       -\tsub", "sub: a submodule"),
        (f"040000 tree {ONE}       -\td", "an entry of mode 040000"),
        (f"100644 blob {ONE}       -\td", "an entry of mode"),
        (f"104755 blob {ONE}       1\td", "an entry of mode"),
        (f"100644 blob {ONE[:20]}       1\td", "isn't known"),
        (f"100644 blob {ONE}       1\t", "isn't known"),
    ],
)
def test_what_no_package_has_in_its_tree(line: str, why: str) -> None:
    """Links, submodules and whatever else is no regular file are refused by name."""
    with pytest.raises(GitError, match=why):
        list(read_tree(f"{line}\0".encode()))


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("x\nHost key verification failed.\r\nfatal: Could not read from remote repository.\n", "Host key", "by hand"),
        ("No ED25519 host key is known for h and\nHost key verification failed.\r\n", "isn't known here", "by hand"),
        ("@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @\nHost key verification failed.", "between", "-R HOST"),
        ("No user exists for uid 54321\r\nfatal: Could not read from remote repository.", "No user", "/etc/passwd"),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.", "denied", "ssh-add"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "Username", r"git\+ssh"),
        ("fatal: unable to access 'https://h/': The requested URL returned error: 301", "301", "another address"),
        (
            "ssh: connect to host h port 22: Connection refused\r\nfatal: Could not read from remote repository.",
            "ref",
            "",
        ),
        ("something else", "something else", ""),
        ("", "said nothing", ""),
    ],
)
def test_gits_last_words_are_explained(words: str, said: str, hint: str) -> None:
    """The line that tells something, and what to do about it."""
    what, _, do = explain_failure(words).partition("\n")
    assert said in what
    assert hint.replace("\\", "") in do
