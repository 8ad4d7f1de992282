"""A signature covers every byte: whatever is changed in a package or in a signature, it holds no more."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import signed
from hypothesis import assume, given
from hypothesis import strategies as st

from ipc.errors import ConfigError
from supervisor.packages.directory import read_directory
from supervisor.signing.package_signatures import verified_signers
from supervisor.signing.sshsig import Signature, read_signatures, verify

FILES = {"Component.toml": b"schema = 1\n", "a.wasm": b"\0asm\1\0\0\0", "assets/words": b"x", "assets/deep/empty": b""}
SIGNER = signed.signer("ssh-ed25519")
BLOCKS = {kind: signed.sshsig(signed.signer(kind), b"message") for kind in signed.KINDS}
_names = st.text("abA.", min_size=1, max_size=4).filter(lambda name: name.strip("."))


def _put(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


@st.composite
def _changes(draw: st.DrawFn) -> Callable[[Path], None]:
    """One change of the package: of a byte, of a name, of a file, of two files."""
    name = draw(st.sampled_from(sorted(FILES)))
    data = FILES[name]
    kind = draw(st.sampled_from(["byte", "more", "less", "rename", "remove", "add", "swap"]))
    place = draw(st.integers(0, len(data)))
    if kind == "byte" and place < len(data):
        changed = bytes([data[place] ^ draw(st.integers(1, 255))])
        return lambda top: _put(top, {name: data[:place] + changed + data[place + 1 :]})
    if kind == "less" and place < len(data):
        return lambda top: _put(top, {name: data[:place] + data[place + 1 :]})
    if kind == "rename":
        other = draw(_names)
        return lambda top: shutil.move(top / name, (top / name).with_name(other))
    if kind == "remove":
        return lambda top: (top / name).unlink()
    if kind == "add":
        other = draw(st.tuples(_names, _names).map("/".join) | _names)
        return lambda top: _put(top, {other: b""})
    if kind == "swap":
        return lambda top: _put(top, {"a.wasm": FILES["assets/words"], "assets/words": FILES["a.wasm"]})
    inserted = draw(st.binary(min_size=1, max_size=3))
    return lambda top: _put(top, {name: data[:place] + inserted + data[place:]})


@given(change=_changes())
def test_any_change_of_a_package_voids_a_signature(change: Callable[[Path], None]) -> None:
    """One byte, name or file, anywhere: no signature holds; and unchanged it does."""
    with tempfile.TemporaryDirectory(prefix="at-") as name:
        top = Path(name)
        _put(top, FILES)
        contents = read_directory(name)
        signatures = signed.sshsig(SIGNER, contents.statement)
        assert len(verified_signers(read_directory(name), signatures)) == 1
        try:
            change(top)
        except OSError:  # a name that can't be made there
            assume(False)
        try:
            changed = read_directory(name)
        except ConfigError:
            return  # no package any more
        assert changed.digest != contents.digest
        assert verified_signers(changed, signatures) == ()


@given(data=st.data(), kind=st.sampled_from(signed.KINDS))
def test_any_change_of_a_signature_voids_it(data: st.DataObject, kind: str) -> None:
    """A byte that is changed, put in or taken out: what still holds is the same signature."""
    block = BLOCKS[kind]
    place = data.draw(st.integers(0, len(block) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    kept = data.draw(st.sampled_from([place, place + 1]))
    put_in = data.draw(st.sampled_from([b"", byte]))
    changed = block[:place] + put_in + block[kept:]
    for found in read_signatures(changed):
        if isinstance(found, Signature) and not verify(found, b"message"):
            assert signed.blob_of(found.block) == signed.blob_of(block)
    (unchanged,) = read_signatures(block)
    assert isinstance(unchanged, Signature)
    assert verify(unchanged, b"message") == ""


@given(data=st.data(), kind=st.sampled_from(signed.KINDS))
def test_any_change_inside_a_signature_voids_it(data: st.DataObject, kind: str) -> None:
    """The same beneath the armor: every byte of the signature itself counts."""
    blob = signed.blob_of(BLOCKS[kind])
    place = data.draw(st.integers(0, len(blob) - 1))
    put_in = data.draw(st.binary(max_size=2))
    changed = blob[:place] + put_in + blob[place + data.draw(st.integers(0, 2)) :]
    assume(changed != blob)
    (found,) = read_signatures(signed.armor(changed))
    assert not isinstance(found, Signature) or verify(found, b"message")


@given(data=st.binary(max_size=400) | st.lists(st.sampled_from([*BLOCKS.values(), b"\n", b"-----"])).map(b"".join))
def test_nothing_that_is_read_is_an_error_of_ours(data: bytes) -> None:
    """Whatever bytes: signatures, text that is none, or a refusal of the whole."""
    try:
        found = read_signatures(data)
    except ConfigError:
        return
    for each in found:
        assert each.block.strip()
