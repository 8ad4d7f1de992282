"""What git answers, read: which references there are, which of them is meant, what is in a commit. Pure.

All of it comes from whoever owns the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ipc.struct import Struct

HEAD: Final = "HEAD"
BRANCHES: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT: Final = re.compile(r"[0-9a-f]{7,63}")
_TREE_LINE: Final = re.compile(rb"([0-7]{6}) ([a-z]+) ([0-9a-f]{40}|[0-9a-f]{64}) +([0-9]{1,20}|-)\t(.+)", re.DOTALL)
_KINDS: Final = {"120000": "a symbolic link", "160000": "a submodule"}
_EMPTY_WORDS: Final = (
    "fatal: Could not read from remote",
    "Please make sure you have the correct access",
    "and the repository exists",
    "fatal: fetch-pack: invalid index-pack output",
    "fatal: fsck error in packed object",
)
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_FILES: Final = frozenset(("100644", "100755", "100664"))


class GitError(Exception):
    """There is no package in it, or none that is taken: why, and on another line what to do."""

    def __init__(self, message: str, exit_code: int = 65) -> None:
        """Keep what is said, and how the command ends."""
        super().__init__(message)
        self.exit_code = exit_code


class References(Struct, frozen=True):
    """What a repository says it has: name → object, and the branch that its HEAD stands for, "" for none."""

    objects: dict[str, str]
    head: str


class Wanted(Struct, frozen=True):
    """What is fetched: a reference; or every branch and tag (""), to look for a commit in them."""

    reference: str
    branch: str = ""
    commit: str = ""
    """The commit that it has to be, where one was named."""


class TreeFile(Struct, frozen=True):
    """A regular file of a commit."""

    path: str
    object_id: str
    size_bytes: int


def is_commit_id(text: str) -> bool:
    """Whether a text is a whole object id."""
    return _COMMIT.fullmatch(text) is not None


def asked_references(revision: str) -> tuple[str, ...]:
    """Return the names to ask a repository for; none where all are needed, since a commit may be at any."""
    if not revision:
        return (HEAD,)
    if is_commit_id(revision):
        return ()
    if revision.startswith("refs/"):
        return (revision, f"{revision}^{{}}")
    return (f"{BRANCHES}{revision}", f"{TAGS}{revision}", f"{TAGS}{revision}^{{}}")


def read_references(output: bytes) -> References:
    """Return what `git ls-remote --symref` printed; lines of another form are nobody's that could be asked for."""
    objects: dict[str, str] = {}
    head = ""
    for line in output.decode("utf-8", "surrogateescape").split("\n"):
        value, tab, name = line.partition("\t")
        if not tab:
            continue
        if value.startswith("ref: ") and name == HEAD:
            head = value.removeprefix("ref: ")
        elif is_commit_id(value):
            objects[name] = value
    return References(objects, head)


def choose(references: References, revision: str) -> Wanted:
    """Return what a revision means in a repository; raises GitError where it means nothing, or two things."""
    objects = references.objects
    if not revision:
        if HEAD not in objects:
            raise GitError("the repository has no default branch\nname a branch or a tag: …@REV")
        return Wanted(HEAD, references.head.removeprefix(BRANCHES) if references.head.startswith(BRANCHES) else "")
    if revision.startswith("refs/"):
        if not revision.startswith((BRANCHES, TAGS)) or revision not in objects:
            raise GitError(f"the repository has no {revision}")
        return Wanted(revision, revision.removeprefix(BRANCHES) if revision.startswith(BRANCHES) else "")
    named = [f"{kind}{revision}" for kind in (BRANCHES, TAGS) if f"{kind}{revision}" in objects]
    if len(named) > 1:
        raise GitError(
            f"{revision} is a branch and a tag\nsay which: …@refs/heads/{revision} or …@refs/tags/{revision}"
        )
    if named:
        return Wanted(named[0], revision if named[0].startswith(BRANCHES) else "")
    if is_commit_id(revision):
        tip = next((n for n, o in objects.items() if o == revision and n.startswith((BRANCHES, TAGS))), "")
        return Wanted(tip.removesuffix("^{}"), commit=revision)
    hint = "\na commit is named by its whole id" if _SHORT.fullmatch(revision) else ""
    raise GitError(f"the repository has no branch or tag {revision}{hint}")


def read_tree(output: bytes) -> Iterator[TreeFile]:
    """Yield the files that `git ls-tree -r -z -l` printed; raises GitError for what is no regular file."""
    for line in output.split(b"\0"):
        if not line:
            continue
        found = _TREE_LINE.fullmatch(line)
        if found is None:
            raise GitError("git prints a tree in a form that isn't known")
        mode, kind, object_id, size, path = (part.decode("utf-8", "surrogateescape") for part in found.groups())
        if mode not in _FILES or kind != "blob" or size == "-":
            what = _KINDS.get(mode, f"an entry of mode {mode}")
            raise GitError(f"{path[:200]}: {what}\na package holds files and directories only")
        yield TreeFile(path, object_id, int(size))


def explain_failure(words: str) -> str:
    """Return what git's own last words mean for whoever asked, and what to do."""
    lines = [line for line in words.splitlines() if line.strip() and not line.startswith(_EMPTY_WORDS)]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:", "ssh:"))] or lines
    said = telling[-1][:300] if telling else "git failed and said nothing"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in words:
        return (
            "the host's key is another than the one that is known: somebody may stand in between\n"
            "ask who runs the host; if the new key is theirs: ssh-keygen -R HOST, and connect once by hand"
        )
    if "host key is known for" in words:
        return "the host's key isn't known here\nconnect once by hand and compare the host's key: ssh HOST"
    hints = (
        ("Host key verification failed", "connect once by hand and compare the host's key: ssh HOST"),
        ("No user exists for uid", "ssh knows people by /etc/passwd; run it as a user who is there"),
        ("Permission denied (", "load the key that the host knows: ssh-add; ssh-add -l"),
        ("could not read Username", "the host wants a name and password; git+ssh:// uses your keys"),
        ("could not read Password", "the host wants a password; git+ssh:// uses your keys"),
        ("does not appear to be a git repository", "name the repository itself, such as …/NAME.git"),
        ("not found", "is the address right, and the repository not a private one?"),
        ("Could not resolve host", "is the host's name right, and is there a network?"),
        *((f"returned error: {code}", "the host points to another address: name that one") for code in _REDIRECTS),
    )
    for pattern, hint in hints:
        if pattern in words:
            line = next((line for line in words.splitlines() if pattern in line), said)
            return f"{line[:300]}\n{hint}"
    return said
