"""Waiting for a word of a process that a test has started."""

from __future__ import annotations

import subprocess


def until_said(process: subprocess.Popen[bytes], word: bytes = b"ready") -> None:
    """Return once it has printed the word; fails where it ends without that."""
    said = b""
    while word not in said:
        chunk = process.stdout.read1(100)
        assert chunk, process.stderr.read()
        said += chunk
