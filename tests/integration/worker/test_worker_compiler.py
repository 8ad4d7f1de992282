"""The compiler process: what it refuses, its limits, and what it says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ipc.messages import Compiled, CompileFailed, WorkerLimits

if TYPE_CHECKING:
    from conftest import Stage


@pytest.mark.parametrize(
    ("wasm", "words"),
    [
        (b"\x7fELF\2\1\1\0rest", "precompiled"),
        (b"(module)", "WebAssembly text"),
        (b"hello", "not a WebAssembly binary"),
        (b"\0asm\x01\0\0\0\xff\xff\xff\xff", "failed to parse"),
    ],
)
def test_refused(stage: Stage, wasm: bytes, words: str) -> None:
    """What isn't a WebAssembly binary is refused by name, and leaves no artifact."""
    message, ended, artifact = stage.compile(wasm)
    assert isinstance(message, CompileFailed)
    assert words in message.message
    assert ended.wait_status == 0
    assert os.fstat(artifact).st_size == 0
    os.close(artifact)


def test_says_what_it_made(stage: Stage) -> None:
    """Kind, imports, exports and the artifact's length are reported (positive control of the refusals)."""
    import wasmtime

    wasm = bytes(wasmtime.wat2wasm('(module (import "a" "b" (func)) (func (export "c")))'))
    message, _, artifact = stage.compile(wasm)
    assert isinstance(message, Compiled)
    assert (message.wasm_kind, message.imports, message.exports) == ("module", ("a.b",), ("c",))
    assert message.artifact_bytes == os.fstat(artifact).st_size > 0
    os.close(artifact)


@pytest.mark.parametrize("memory_bytes", [1 << 20, 1 << 30])
def test_its_memory_is_bounded(stage: Stage, memory_bytes: int) -> None:
    """A compilation that needs more memory than allowed fails (control: with enough it succeeds)."""
    import wasmtime

    body = "(local.set 0 (i32.add (local.get 0) (i32.mul (local.get 0) (i32.const 3))))" * 4_000
    functions = "".join(f'(func (export "f{n}") (local i32) {body})' for n in range(24))
    wasm = bytes(wasmtime.wat2wasm(f"(module {functions})"))
    limits = WorkerLimits(memory_bytes, 0, cpu_s=60, file_size_bytes=1 << 30)
    message, ended, artifact = stage.compile(wasm, limits=limits)
    os.close(artifact)
    if memory_bytes > 1 << 24:
        assert isinstance(message, Compiled)
    else:
        assert not isinstance(message, Compiled) or ended.wait_status != 0
