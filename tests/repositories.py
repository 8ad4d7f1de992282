"""Git repositories made by the real git, also such as nobody makes by accident."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from archives import MANIFEST, WASM

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    **{f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
FILES = {"Component.toml": MANIFEST, "thing.wasm": WASM}


class Repository:
    """A bare repository that everybody may read, and commits in it made of whatever entries."""

    def __init__(self, path: Path) -> None:
        """Make an empty one."""
        self.path = path
        self.git("init", "-q", "--bare", "-b", "main", str(path), anywhere=True)

    @property
    def source(self) -> str:
        """What `airssys install` is told."""
        return f"git+file://{self.path}"

    def git(self, *arguments: str, stdin: bytes = b"", anywhere: bool = False, **environment: str) -> str:
        """Run git in it and return what it prints."""
        where = () if anywhere else (f"--git-dir={self.path}",)
        command = ["git", *where, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, env=ENVIRONMENT | environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def blob(self, data: bytes) -> str:
        """Store a file's bytes."""
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """Store a tree of (mode, name, object) as they are, whatever git thinks of them."""
        raw = b"".join(b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(one)) for mode, name, one in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw)

    def package(self, *more: tuple[str, bytes, str]) -> str:
        """Store the tree of a package with more entries in it; they are sorted as git wants them."""
        files = [("100644", name.encode(), self.blob(data)) for name, data in FILES.items()]
        return self.tree(*sorted([*files, *more], key=lambda entry: entry[1] + b"/" * (entry[0] == "40000")))

    def commit(self, tree: str, *parents: str, branch: str = "main") -> str:
        """Commit a tree to a branch."""
        options = [option for parent in parents for option in ("-p", parent)]
        commit = self.git("commit-tree", tree, *options, "-m", "x")
        self.git("update-ref", f"refs/heads/{branch}", commit)
        self.open_up()
        return commit

    def open_up(self) -> None:
        """Let everybody read it: git, started by root, is somebody else."""
        for directory, _, names in os.walk(self.path):
            os.chmod(directory, 0o755)
            for name in names:
                path = os.path.join(directory, name)
                os.chmod(path, os.stat(path).st_mode | 0o444)
