"""A commit out of a git repository, by the git program, without ever checking anything out.

Nothing of the repository is a configuration, a hook, a filter, a submodule or a working tree here: what was fetched
lies in a bare repository of ours, and files are read from it as objects (git-cat-file(1)). The process is confined
already.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from typing import IO, Final
from urllib.parse import unquote

from ipc.package_stream import FILE, ORIGIN, RepositoryPlan, pack_head, pack_piece
from worker.git_answers import (
    BRANCHES,
    TAGS,
    GitError,
    TreeFile,
    Wanted,
    asked_references,
    choose,
    explain_failure,
    is_commit_id,
    read_references,
    read_tree,
)

FETCHED: Final = "refs/airssys/fetched"
REFERENCES_MAX_BYTES: Final = 64 << 20
TREE_MAX_BYTES: Final = 32 << 20
_WORDS_MAX_BYTES: Final = 8_192
_CHUNK_BYTES: Final = 1 << 18
_WHOLE_HISTORY: Final = 0x7FFF_FFFF
"""What git takes for a depth without end (shallow.h, INFINITE_DEPTH)."""
_EX_UNAVAILABLE: Final = 69

CONFIGURATION: Final = """\
[core]
    hooksPath = /dev/null
    fsmonitor = false
    attributesFile = /dev/null
    excludesFile = /dev/null
[init]
    templateDir =
[protocol]
    allow = never
[protocol "{transport}"]
    allow = always
[transfer]
    fsckObjects = true
    bundleURI = false
[fetch]
    fsckObjects = true
    unpackLimit = 1
    recurseSubmodules = false
    writeCommitGraph = false
[submodule]
    recurse = false
[http]
    followRedirects = false
    sslVerify = true
    lowSpeedLimit = 100
    lowSpeedTime = 60
[credential]
    helper =
    interactive = false
[gc]
    auto = 0
[maintenance]
    auto = false
[pack]
    threads = 1
"""
"""All of git's settings: neither the machine's nor the user's are read, and a repository has none here."""
SSH: Final = (
    "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oControlMaster=no -oControlPath=none -oForwardAgent=no"
    " -oClearAllForwardings=yes -oPermitLocalCommand=no -oUpdateHostKeys=no -oRequestTTY=no"
)

Write = Callable[[bytes], None]


class GitReader:
    """One repository, fetched into the plan's scratch directory and told from there."""

    def __init__(self, plan: RepositoryPlan) -> None:
        """Write git's settings."""
        self._plan = plan
        self._repository = os.path.join(plan.scratch, "repository")
        configuration = os.path.join(plan.scratch, "configuration")
        with open(configuration, "x", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(transport=plan.transport))
            if plan.transport == "file":
                # Whose repository it is doesn't matter: we have nothing that it could take. It is git-upload-pack(1)
                # that reads it, which is made for repositories of others. Of a working tree it asks about its .git.
                path = _quoted(unquote(plan.url.removeprefix("file://")))
                file.write(f'[safe]\n    directory = "{path}"\n    directory = "{path}/.git"\n')
        home = os.path.join(plan.scratch, "home")
        os.mkdir(home)
        self._environment = {
            **plan.environment,
            "PATH": os.pathsep.join(dict.fromkeys((os.path.dirname(plan.git), "/usr/bin", "/bin"))),
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "TMPDIR": plan.scratch,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": configuration,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": plan.transport,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "SSH_ASKPASS_REQUIRE": "never",
            "GIT_SSH_COMMAND": SSH,
            "GIT_SSH_VARIANT": "ssh",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
        }

    def tell(self, write: Write) -> None:
        """Fetch, and write which commit it is and every file of it; raises GitError."""
        self._run("init", "--bare", "--quiet", "--template=", "--", self._repository)
        wanted = self._choose()
        commit = self._fetch(wanted)
        tree = f"{commit}:{self._plan.subdirectory}"
        if self._plan.subdirectory and self._answer("cat-file", "-t", tree) != "tree":
            raise GitError(f"there is no directory {self._plan.subdirectory} in commit {commit[:12]}")
        files = tuple(read_tree(self._run("ls-tree", "-r", "-z", "-l", "--full-tree", tree, most_bytes=TREE_MAX_BYTES)))
        if len(files) > self._plan.files_max:
            raise GitError(f"it has {len(files)} files, which is more than a package may have")
        if sum(file.size_bytes for file in files) > self._plan.total_max_bytes:
            raise GitError(f"its files are larger than {self._plan.total_max_bytes >> 30} GiB")
        write(pack_head(ORIGIN, f"{commit} {wanted.branch}"))
        self._tell_files(files, write)

    def _choose(self) -> Wanted:
        asked = asked_references(self._plan.revision)
        printed = self._run(
            "ls-remote", "--symref", "--", self._plan.url, *asked, most_bytes=REFERENCES_MAX_BYTES, remote=True
        )
        return choose(read_references(printed), self._plan.revision)

    def _fetch(self, wanted: Wanted) -> str:
        """Fetch what is wanted, and return the commit's id."""
        if wanted.reference:
            what: tuple[str, ...] = ("--depth=1", "--", self._plan.url, f"+{wanted.reference}:{FETCHED}")
        else:
            # A server may hand out commits that are in no branch of its own, such as those of a fork: so the history
            # is fetched in which it has to be.
            # Written as a depth, for what can't send a part of it (git's simplest http) could send packs without end.
            what = (f"--depth={_WHOLE_HISTORY}", "--", self._plan.url, f"+{BRANCHES}*:{BRANCHES}*", f"+{TAGS}*:{TAGS}*")
        self._run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", *what, remote=True)
        if not wanted.reference:
            held = self._answer("cat-file", "-t", wanted.commit) == "commit" and self._answer(
                "for-each-ref", f"--contains={wanted.commit}", "--count=1", "--format=%(objectname)"
            )
            if not held:
                raise GitError(f"no branch or tag of the repository has the commit {wanted.commit[:12]} in its history")
            return wanted.commit
        commit = self._answer("rev-parse", "--verify", "--quiet", f"{FETCHED}^{{commit}}")
        if not is_commit_id(commit):
            raise GitError(f"{wanted.reference} is no commit")
        if wanted.commit and commit != wanted.commit:
            raise GitError(f"the repository changed meanwhile: {wanted.reference} is another commit\ntry again")
        return commit

    def _tell_files(self, files: Sequence[TreeFile], write: Write) -> None:
        command = (self._plan.git, f"--git-dir={self._repository}", "cat-file", "--batch")
        with self._start(command, subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for file in files:
                process.stdin.write(f"{file.object_id}\n".encode())
                process.stdin.flush()
                if process.stdout.readline(200) != f"{file.object_id} blob {file.size_bytes}\n".encode():
                    raise GitError(f"{file.path[:200]}: git can't read it")
                write(pack_head(FILE, file.path, file.size_bytes))
                _copy(process.stdout, file.size_bytes + 1, write)
            process.stdin.close()

    def _answer(self, *arguments: str) -> str:
        """Return what git says about a thing, "" where it says that there is none."""
        try:
            return self._run(*arguments).decode("utf-8", "replace").strip()
        except GitError:
            return ""

    def _run(self, *arguments: str, most_bytes: int = 1 << 16, remote: bool = False) -> bytes:
        """Run git and return what it printed; raises GitError where it fails or prints too much."""
        directory = () if arguments[0] == "init" else (f"--git-dir={self._repository}",)
        words = os.path.join(self._plan.scratch, "words")
        with open(words, "w+b") as errors:
            with self._start((self._plan.git, *directory, *arguments), subprocess.DEVNULL, errors) as process:
                assert process.stdout is not None
                printed = process.stdout.read(most_bytes + 1)
                if len(printed) > most_bytes:
                    process.kill()
            if len(printed) > most_bytes:
                raise GitError(f"git {arguments[0]} printed more than {most_bytes >> 20 or 1} MiB")
            if process.returncode == 0:
                return printed
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _WORDS_MAX_BYTES))
            said = errors.read(_WORDS_MAX_BYTES).decode("utf-8", "replace")
        if self._is_full():
            most = self._plan.pack_max_bytes >> 20
            raise GitError(
                f"it is larger than {most} MiB as git sends it\nname a branch or a tag, which has no history"
            )
        unavailable = remote and "fsck error" not in said
        raise GitError(explain_failure(said), _EX_UNAVAILABLE if unavailable else 65)

    def _is_full(self) -> bool:
        """Whether git has written as much as it may into one file (RLIMIT_FSIZE): then a signal has ended it."""
        packs = os.path.join(self._repository, "objects", "pack")
        sizes = [entry.stat().st_size for entry in os.scandir(packs)] if os.path.isdir(packs) else []
        return max(sizes, default=0) >= self._plan.pack_max_bytes

    def _start(
        self, command: Sequence[str], stdin: int, stderr: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=self._environment, cwd=self._plan.scratch
        )


def _copy(source: IO[bytes], size_bytes: int, write: Write) -> None:
    """Hand over a file's bytes, and take the newline behind them."""
    left = size_bytes
    while left:
        chunk = source.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise GitError("git ended in the middle of a file")
        left -= len(chunk)
        data = chunk if left else chunk[:-1]
        if data:
            write(pack_piece(data))


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace('"', '\\"')
