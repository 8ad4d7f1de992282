"""Pure parts of the layers: which rights, which bounds, which program."""

import resource

import pytest

from ipc.messages import ConfinementPlan, LayerReport, WorkerLimits
from worker import landlock, limits
from worker.compiler import RefusedInputError, wasm_kind
from worker.confine import Confinement, ConfinementError
from worker.engine import _trim, provided

LIMITS = WorkerLimits(memory_bytes=64 << 20, output_bytes=1 << 20, cpu_s=7, open_files=99, file_size_bytes=1 << 30)


@pytest.mark.parametrize(
    ("abi", "fs", "net", "scoped", "length"),
    [
        (1, 0x1FFF, 0, 0, 8),
        (2, 0x3FFF, 0, 0, 8),
        (3, 0x7FFF, 0, 0, 8),
        (4, 0x7FFF, 3, 0, 16),
        (5, 0xFFFF, 3, 0, 16),
        (6, 0xFFFF, 3, 3, 24),
        (7, 0xFFFF, 3, 3, 24),
        (99, 0xFFFF, 3, 3, 24),
    ],
)
def test_landlock_takes_all_that_the_abi_knows(abi: int, fs: int, net: int, scoped: int, length: int) -> None:
    """For each ABI, every right it has is handled and no other, which an older kernel would refuse."""
    assert landlock.rights(abi) == (fs, net, scoped, length)


def test_landlock_names_what_is_missing() -> None:
    """A kernel of an older ABI is partial, and the missing rights are named."""
    assert landlock.report(7).status == "enforced"
    old = landlock.report(2)
    assert old.status == "partial"
    for words in ("truncate", "TCP", "ioctl", "signals"):
        assert words in old.detail


def test_bounds() -> None:
    """Each rlimit comes from the job; the address space leaves room for every reservation that may be made."""
    bounds = limits.plan(LIMITS, data_in_use_bytes=10 << 20, own_uid=True)
    assert bounds[resource.RLIMIT_DATA] == (10 << 20) + LIMITS.memory_bytes + limits.LOADING_SLACK_BYTES
    assert bounds[resource.RLIMIT_AS] > LIMITS.memories * (4 << 30)
    assert bounds[resource.RLIMIT_NOFILE] == 99
    assert bounds[resource.RLIMIT_FSIZE] == 1 << 30
    assert bounds[resource.RLIMIT_CPU] == 7
    assert bounds[resource.RLIMIT_CORE] == 0
    assert resource.RLIMIT_NPROC in bounds
    assert resource.RLIMIT_NPROC not in limits.plan(LIMITS, 0, own_uid=False)


def test_a_required_layer_must_be_there() -> None:
    """Unavailable is an error for a required layer and a report for another; off is reported as off."""
    confinement = Confinement(ConfinementPlan(required=("landlock",), off=("seccomp",)))
    confinement.note(LayerReport("namespaces", "unavailable", "no"))
    with pytest.raises(ConfinementError, match="landlock"):
        confinement.note(LayerReport("landlock", "unavailable", "no"))
    assert not confinement.wanted("seccomp")
    assert [(r.layer, r.status) for r in confinement.layers] == [("namespaces", "unavailable"), ("seccomp", "off")]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("wasi:cli/environment@0.2.0", True),
        ("wasi:filesystem/types@0.2.6", True),
        ("wasi:sockets/tcp@0.2.3", True),
        ("wasi:http/outgoing-handler@0.2.0", False),
        ("wasi:cli/environment@0.3.0", False),
        ("wasi:cli/environment", False),
        ("wasi:nn/graph@0.2.0", False),
        ("acme:thing/api@0.2.0", False),
    ],
)
def test_what_is_provided(name: str, there: bool) -> None:
    """Imports of WASI 0.2.x are satisfied, wasi:http and everything else is not."""
    assert provided(name) is there


@pytest.mark.parametrize(("head", "kind"), [(b"\0asm\x01\0\0\0", "module"), (b"\0asm\x0d\0\x01\0", "component")])
def test_kinds(head: bytes, kind: str) -> None:
    """Modules and components differ in bytes 4 to 8."""
    assert wasm_kind(head) == kind


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x7fELF\2\1\1\0", "precompiled"),
        (b"(module)", "text"),
        (b"  (component", "text"),
        (b"", "not a WebAssembly binary"),
        (b"\0asm\x02\0\0\0", "unknown version"),
        (b"#!/bin/s", "not a WebAssembly binary"),
    ],
)
def test_refused_input(head: bytes, words: str) -> None:
    """What isn't compiled here is refused with a word for what it is."""
    with pytest.raises(RefusedInputError, match=words):
        wasm_kind(head)


def test_messages_name_the_cause_first_and_are_bounded() -> None:
    """A trap's message starts with its cause; a long backtrace is cut."""
    text = "error while executing at wasm backtrace:\n" + "\n".join(f"    {n}: f" for n in range(100))
    text += "\n\nCaused by:\n    0: memory fault\n    1: wasm trap: out of bounds memory access"
    shown = _trim(text)
    assert shown.startswith("memory fault / wasm trap: out of bounds memory access\n")
    assert "more lines" in shown
    assert len(shown.splitlines()) < 20
