"""A package as one file: a .tar.gz whose bytes follow from the package's files alone, its signatures included."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.host.clearing import remove_tree
from supervisor.manifest import Manifest
from supervisor.packages.contents import MANIFEST_FILE, SIGNATURE_FILE, Contents, PackageError
from supervisor.packages.directory import CHUNK_BYTES, copy_directory, read_signatures
from supervisor.terminal import visible

ENDING: Final = ".tar.gz"
_MODE: Final = 0o644
_GZIP_WINDOW: Final = 31
"""zlib's word for gzip; the header that it writes has no time and no name."""
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


class Bundle(Struct, frozen=True):
    """What was written: `digest` is the package's, `sha256` the file's own."""

    path: str
    size_bytes: int
    sha256: str
    digest: str
    files: int
    is_signed: bool


def pack(directory: str, manifest: Manifest, output: str) -> Bundle:
    """Write a component directory as a bundle, in one step: at every moment the file is the old one or the new one.

    The same package gives the same bytes, with the same zlib. Raises ConfigError for what is no package.
    """
    _refuse_inside(directory, output)
    copy = tempfile.mkdtemp(prefix="airssys-pack-")
    try:
        contents = copy_directory(directory, copy)
        # What is read twice may differ: the manifest that was checked has to be the one that is packed.
        packed = contents.file(MANIFEST_FILE)
        if packed is None or packed.sha256 != manifest.digest:
            raise PackageError(f"{visible(directory)}: it changed while it was read", hint="try again")
        signatures = read_signatures(directory)
        with _replacing(output) as sink:
            writer = _Gzip(sink)
            for chunk in _tar(copy, contents, signatures):
                writer.write(chunk)
            writer.finish()
        return Bundle(
            os.path.abspath(output),
            writer.size_bytes,
            writer.sha256,
            contents.digest,
            len(contents.files),
            bool(signatures),
        )
    finally:
        remove_tree(copy)


class _Gzip:
    """Packs what is written, and hashes what comes out."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP_WINDOW)
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        self._put(self._packer.compress(data))

    def finish(self) -> None:
        self._put(self._packer.flush())

    def _put(self, packed: bytes) -> None:
        self._digest.update(packed)
        self.size_bytes += len(packed)
        self._sink.write(packed)


def _tar(directory: str, contents: Contents, signatures: bytes) -> Iterator[bytes]:
    """Yield the archive: files in the order of their paths' bytes, without owners, times, modes or directories."""
    entries: list[tuple[str, int, Callable[[], Iterator[bytes]]]] = [
        (each.path, each.size_bytes, partial(_read, os.path.join(directory, each.path))) for each in contents.files
    ]
    if signatures:
        entries.append((SIGNATURE_FILE, len(signatures), partial(iter, (signatures,))))
    total = 0
    for path, size_bytes, chunks in sorted(entries, key=lambda entry: entry[0].encode()):
        header = tarfile.TarInfo(path)
        header.size, header.mode = size_bytes, _MODE
        head = header.tobuf(tarfile.PAX_FORMAT)
        yield head
        yield from chunks()
        padding = bytes(-size_bytes % tarfile.BLOCKSIZE)
        yield padding
        total += len(head) + size_bytes + len(padding)
    yield _END + bytes(-(total + len(_END)) % tarfile.RECORDSIZE)


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextlib.contextmanager
def _replacing(output: str) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the place of `output` once it is whole and durable, and is gone otherwise."""
    directory, name = os.path.split(os.path.abspath(output))
    beginning = os.path.join(directory, f".{name[:200]}.{secrets.token_hex(4)}")
    try:
        file = open(beginning, "xb")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{visible(output)}: {os.strerror(error.errno or 0).lower()}") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beginning, output)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beginning)
        raise


def _refuse_inside(directory: str, output: str) -> None:
    place = os.path.realpath(os.path.dirname(os.path.abspath(output)))
    top = os.path.realpath(directory)
    if place == top or place.startswith(f"{top}/"):
        raise ConfigError(
            f"{visible(output)}: in the package itself, of which it would be a part",
            hint=f"write it elsewhere: airssys pack {visible(directory)} -o ../{visible(os.path.basename(output))}",
        )
    if os.path.isdir(output):
        raise ConfigError(f"{visible(output)}: a directory", hint=f"name a file: -o …/NAME{ENDING}")
