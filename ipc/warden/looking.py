"""Answering calls that look at files: the stat family, access, readlink, statfs, and listings.

Listings are filtered: getdents64(2) is answered from the worker's own open directory, whose position the descriptor
that we duplicate shares, so that rewinding and seeking work as ever.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from ipc.libc import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW
from ipc.policy.capability import LIST, READ, WRITE
from ipc.policy.rules import PARTLY_LISTED
from ipc.warden.context import Answer, Context, signed
from ipc.warden.decide import Allowed, Refusal, decide_actions, decide_any, decide_handle, decide_kind, may_show
from ipc.warden.files import Found, Unresolved
from ipc.warden.held_objects import join, reopen, text, through
from ipc.warden.notify import CallFails

STAT_BYTES: Final = {"x86_64": 144, "aarch64": 128}
_STATX_BYTES: Final = 256
_STATFS_BYTES: Final = 120
_STAT_FLAGS: Final = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | 0x800 | 0x6000  # AT_NO_AUTOMOUNT, AT_STATX_SYNC_TYPE
_ACCESS_FLAGS: Final = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | 0x200  # AT_EACCESS
_PATH_MAX: Final = 4096
_DIRENT: Final = struct.Struct("<QqHB")
_LARGEST_DIRENT_BYTES: Final = 280
"""19 bytes of head, a name of 255 bytes and its NUL, rounded up to 8: include/linux/dirent.h."""
_LISTING_BYTES: Final = 32 * 1024


def answer_stat(context: Context) -> Answer:
    """stat(2)."""
    return _stat(context, -100, context.call.a0, 0, context.call.a1)


def answer_lstat(context: Context) -> Answer:
    """lstat(2)."""
    return _stat(context, -100, context.call.a0, AT_SYMLINK_NOFOLLOW, context.call.a1)


def answer_newfstatat(context: Context) -> Answer:
    """newfstatat(2)."""
    call = context.call
    return _stat(context, call.a0, call.a1, signed(call.a3), call.a2)


def answer_statx(context: Context) -> Answer:
    """statx(2)."""
    call = context.call
    flags = signed(call.a2)
    found = _seen(context, call.a0, call.a1, flags, _STAT_FLAGS)
    if isinstance(found, Refusal):
        return found
    mask = call.a3 & 0xFFFF_FFFF
    context.buffer.statx(found, b"", AT_EMPTY_PATH | (flags & 0x6000), signed(mask))
    context.memory.write(call, call.a4, context.buffer, _STATX_BYTES)
    return 0


def _stat(context: Context, directory: int, address: int, flags: int, result: int) -> Answer:
    found = _seen(context, directory, address, flags, _STAT_FLAGS)
    if isinstance(found, Refusal):
        return found
    context.buffer.fstatat(found, b"", AT_EMPTY_PATH)
    context.memory.write(context.call, result, context.buffer, STAT_BYTES[context.machine])
    return 0


def _seen(context: Context, directory: int, address: int, flags: int, known: int) -> int | Refusal:
    """Return a descriptor of the object that may be looked at."""
    if flags & ~known:
        raise CallFails(errno.EINVAL)
    path = context.path(address) if address else b""
    if not path:
        if not flags & AT_EMPTY_PATH:
            raise CallFails(errno.ENOENT if address else errno.EFAULT)
        if signed(directory) < 0:
            raise CallFails(errno.EBADF)
        # What the worker holds open it may look at: fstat(2) by another name.
        return context.duplicate(directory)
    found = _look_at(context, directory, path, bool(flags & AT_SYMLINK_NOFOLLOW))
    return found if isinstance(found, Refusal) else found.descriptor


def _look_at(context: Context, directory: int, path: bytes, nofollow: bool) -> Found | Refusal:
    base = context.base(directory, path)
    if isinstance(base, Refusal):
        return base
    found = context.find(base, path, nofollow)
    if isinstance(found, Refusal):
        return found
    if isinstance(found, Unresolved):
        return context.missing(found, ())
    facts = found.facts
    told_as = LIST if facts.is_directory else READ
    answer = decide_handle(context.policy, found.path) if facts.is_directory else decide_any(context.policy, found.path)
    if isinstance(answer, Refusal):
        return answer
    unfit = decide_kind(facts, told_as, found.path, writing=False)
    if unfit is not None and not (facts.is_symlink and not facts.forbidden_as):
        return unfit
    context.allow(answer, found.path, did=False)
    context.subject = (told_as, found.path)
    return found


def answer_access(context: Context) -> Answer:
    """access(2)."""
    return _access(context, -100, context.call.a0, context.call.a1, 0)


def answer_faccessat(context: Context) -> Answer:
    """faccessat(2): it has no flags."""
    return _access(context, context.call.a0, context.call.a1, context.call.a2, 0)


def answer_faccessat2(context: Context) -> Answer:
    """faccessat2(2)."""
    call = context.call
    return _access(context, call.a0, call.a1, call.a2, signed(call.a3))


def _access(context: Context, directory: int, address: int, mode_register: int, flags: int) -> Answer:
    mode = signed(mode_register)
    if mode & ~7 or flags & ~_ACCESS_FLAGS:
        raise CallFails(errno.EINVAL)
    path = context.path(address)
    if not path:
        raise CallFails(errno.ENOENT)
    found = _look_at(context, directory, path, bool(flags & AT_SYMLINK_NOFOLLOW))
    if isinstance(found, Refusal):
        return found
    if found.facts.is_symlink:
        return 0
    wanted: list[str] = []
    if mode & os.R_OK:
        wanted.append(LIST if found.facts.is_directory else READ)
    if mode & os.W_OK:
        wanted.append(WRITE)
    answer = decide_actions(context.policy, tuple(wanted), found.path)
    if isinstance(answer, Refusal):
        return answer
    if mode & os.X_OK and found.facts.is_file:
        raise CallFails(errno.EACCES)  # nothing is ever executed
    if not os.access(through(found.descriptor), mode, effective_ids=True):
        return context.system_refuses(errno.EACCES, (*wanted, READ)[0], found.path)
    return 0


def answer_readlink(context: Context) -> Answer:
    """readlink(2)."""
    call = context.call
    return _readlink(context, -100, context.path(call.a0), call.a1, call.a2)


def answer_readlinkat(context: Context) -> Answer:
    """readlinkat(2)."""
    call = context.call
    return _readlink(context, call.a0, context.path(call.a1), call.a2, call.a3)


def _readlink(context: Context, directory: int, path: bytes, address: int, size_register: int) -> Answer:
    size = signed(size_register)
    if size <= 0:
        raise CallFails(errno.EINVAL)
    if not path:
        raise CallFails(errno.ENOENT)
    if path.endswith(b"/") or path.rpartition(b"/")[2] in (b".", b".."):
        found = _look_at(context, directory, path, nofollow=False)
        if isinstance(found, Refusal):
            return found
        raise CallFails(errno.EINVAL)
    placed = context.place(directory, path, READ)
    if isinstance(placed, Refusal):
        # A name that leads to a directory on the way to a grant: not a link, and that much may be known.
        looked = _look_at(context, directory, path, nofollow=True)
        if isinstance(looked, Found) and looked.facts.is_directory:
            raise CallFails(errno.EINVAL)
        return placed
    place, allowed = placed
    context.allow(allowed, place.path, did=False)
    target = os.readlink(place.name, dir_fd=place.parent.descriptor)[:size]
    context.buffer.view[: len(target)] = target
    context.memory.write(context.call, address, context.buffer, len(target))
    return len(target)


def answer_statfs(context: Context) -> Answer:
    """statfs(2)."""
    call = context.call
    path = context.path(call.a0)
    found = _look_at(context, -100, path, nofollow=False)
    if isinstance(found, Refusal):
        return found
    context.buffer.fstatfs(found.descriptor)
    context.memory.write(call, call.a1, context.buffer, _STATFS_BYTES)
    return 0


def answer_getdents64(context: Context) -> Answer:
    """getdents64(2): only names that the policy shows; never 0, which means the end, before the end."""
    call = context.call
    descriptor = context.duplicate(call.a0)
    space = call.a2 & 0xFFFF_FFFF
    stood_for = context.files.stand_in_of(descriptor)
    found = context.files.held(descriptor if stood_for is None else stood_for)
    if not found.facts.is_directory:
        raise CallFails(errno.ENOTDIR)
    refusal = decide_kind(found.facts, LIST, found.path, writing=False)
    if refusal is not None:
        return refusal
    answer = decide_any(context.policy, found.path, LIST)
    if isinstance(answer, Refusal):
        asked = context.partly is None or found.path in context.partly
        if not asked or not context.policy.reaches(found.path):
            return answer
        answer = Allowed(((LIST, PARTLY_LISTED),))
    context.allow(Allowed(((LIST, answer.by[0][1]),)), found.path, did=False)
    if stood_for is not None:
        # Something in it was granted meanwhile, or may be read now: the worker gets the directory itself.
        descriptor = context.files.keep(reopen(stood_for, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        context.listener.put(call, descriptor, signed(call.a0))
    return _list(context, descriptor, found.path, space, call.a1)


def _list(context: Context, descriptor: int, directory: str, space: int, address: int) -> Answer:
    view = context.buffer.view
    # At least room for one entry, so that a hidden name can't be felt by a buffer that is too small for it.
    length = min(max(space, _LARGEST_DIRENT_BYTES), _LISTING_BYTES)
    while True:
        start = os.lseek(descriptor, 0, os.SEEK_CUR) if space < length else 0
        count = context.buffer.getdents64(descriptor, length)
        if not count:
            return 0
        kept = position = 0
        last_offset = start
        full = False
        while position < count:
            _, offset, size, kind = _DIRENT.unpack_from(view, position)
            name = bytes(view[position + 19 : position + size]).split(b"\0", 1)[0]
            if name in (b".", b"..") or _shown(context, descriptor, directory, name, kind):
                if kept + size > space:
                    full = True
                    break
                view[kept : kept + size] = bytes(view[position : position + size])
                kept += size
            last_offset = offset
            position += size
        if full:
            os.lseek(descriptor, last_offset, os.SEEK_SET)
            if not kept:
                raise CallFails(errno.EINVAL)
        if kept:
            context.memory.write(context.call, address, context.buffer, kept)
            return kept
        context.memory.check(context.call)  # however many names are hidden, nobody searches them for a dead worker


def _shown(context: Context, descriptor: int, directory: str, name: bytes, kind: int) -> bool:
    if not name.isascii() and not _is_utf8(name):
        # WASI has no way to say it, and one such name would make the whole listing fail (EILSEQ).
        return False
    if kind == 0:  # DT_UNKNOWN: the file system doesn't say
        try:
            kind = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode >> 12
        except OSError:
            return False
    return may_show(context.policy, join(directory, text(name)), kind)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
