"""Answering calls that make, remove and move names, truncate, and change what is said about files."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from ipc.libc import AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, RENAME_NOREPLACE
from ipc.libc import renameat2 as rename_at
from ipc.libc import utimensat as utimens_at
from ipc.policy.capability import WRITE
from ipc.warden.context import Answer, Context, signed
from ipc.warden.decide import Allowed, Refusal, decide_actions, decide_directory_rename, decide_kind, decide_widening
from ipc.warden.files import Found, Place, Unresolved
from ipc.warden.held_objects import raw, text, through
from ipc.warden.links import refuse_link, refuse_links_beneath
from ipc.warden.notify import CallFails
from ipc.warden.open_request import PERMISSIONS

_AT_CWD: Final = -100
_TIMES_BYTES: Final = 32
_OWN_DIRECTORY: Final = 0o700


def answer_mkdir(context: Context) -> Answer:
    """mkdir(2)."""
    return _mkdir(context, _AT_CWD, context.path(context.call.a0), context.call.a1)


def answer_mkdirat(context: Context) -> Answer:
    """mkdirat(2)."""
    call = context.call
    return _mkdir(context, call.a0, context.path(call.a1), call.a2)


def _mkdir(context: Context, directory: int, path: bytes, mode: int) -> Answer:
    if path.rstrip(b"/").rpartition(b"/")[2] in (b"", b".", b".."):
        raise CallFails(errno.EEXIST if path else errno.ENOENT)
    placed = context.place(directory, path, WRITE)
    if isinstance(placed, Refusal):
        return placed
    place, allowed = placed
    if context.files.at(place) is not None:
        raise CallFails(errno.EEXIST)
    storage = context.storage
    refusal = None if storage is None else storage.refuse_making(place.path)
    if refusal is not None:
        return refusal
    context.allow(allowed, place.path)
    # Never one that can't be listed: what lies in it would not be found when it is counted.
    os.mkdir(place.name, mode & PERMISSIONS | _OWN_DIRECTORY, dir_fd=place.parent.descriptor)
    if storage is not None:
        storage.made(place.name, place.parent.descriptor, place.path)
    return 0


def answer_unlink(context: Context) -> Answer:
    """unlink(2)."""
    return _remove(context, _AT_CWD, context.path(context.call.a0), directory=False)


def answer_rmdir(context: Context) -> Answer:
    """rmdir(2)."""
    return _remove(context, _AT_CWD, context.path(context.call.a0), directory=True)


def answer_unlinkat(context: Context) -> Answer:
    """unlinkat(2)."""
    call = context.call
    flags = signed(call.a2)
    if flags & ~AT_REMOVEDIR:
        raise CallFails(errno.EINVAL)
    return _remove(context, call.a0, context.path(call.a1), bool(flags))


def _remove(context: Context, base: int, path: bytes, directory: bool) -> Answer:
    placed = context.place(base, path, WRITE)
    if isinstance(placed, Refusal):
        return placed
    place, allowed = placed
    found = context.files.at(place)
    if found is None:
        raise CallFails(errno.ENOENT)
    if found.facts.forbidden_as:
        return _forbidden(found, place)
    if directory != found.facts.is_directory:
        raise CallFails(errno.ENOTDIR if directory else errno.EISDIR)
    if place.must_be_directory and not directory:
        raise CallFails(errno.ENOTDIR)
    context.allow(allowed, place.path)
    if directory:
        os.rmdir(place.name, dir_fd=place.parent.descriptor)
    else:
        os.unlink(place.name, dir_fd=place.parent.descriptor)
    if context.storage is not None:
        context.storage.removed(found, place.path)
    return 0


def _forbidden(found: Found, place: Place) -> Refusal:
    refusal = decide_kind(found.facts, WRITE, place.path, writing=True)
    assert refusal is not None
    return refusal


def answer_rename(context: Context) -> Answer:
    """rename(2)."""
    call = context.call
    return _rename(context, (_AT_CWD, call.a0), (_AT_CWD, call.a1), 0)


def answer_renameat(context: Context) -> Answer:
    """renameat(2)."""
    call = context.call
    return _rename(context, (call.a0, call.a1), (call.a2, call.a3), 0)


def answer_renameat2(context: Context) -> Answer:
    """renameat2(2): with RENAME_NOREPLACE or nothing; an exchange would be two renames with one answer."""
    call = context.call
    flags = call.a4 & 0xFFFF_FFFF
    if flags & ~RENAME_NOREPLACE:
        raise CallFails(errno.EINVAL)
    return _rename(context, (call.a0, call.a1), (call.a2, call.a3), flags)


def _rename(context: Context, old: tuple[int, int], new: tuple[int, int], flags: int) -> Answer:
    new_path = context.path(new[1])
    old_path = context.path(old[1])
    for path in (old_path, new_path):
        if path.rstrip(b"/").rpartition(b"/")[2] in (b"", b".", b".."):
            raise CallFails(errno.EBUSY if path else errno.ENOENT)
    source = context.place(old[0], old_path, WRITE)
    if isinstance(source, Refusal):
        return source
    target = context.place(new[0], new_path, WRITE)
    if isinstance(target, Refusal):
        return target
    (old_place, old_allowed), (new_place, new_allowed) = source, target
    found = context.files.at(old_place)
    if found is None:
        raise CallFails(errno.ENOENT)
    if (old_place.must_be_directory or new_place.must_be_directory) and not found.facts.is_directory:
        raise CallFails(errno.ENOTDIR)
    refusal = _moved(context, found, old_place, new_place)
    if refusal is not None:
        return refusal
    replaced = context.files.at(new_place)
    if replaced is not None and replaced.facts.forbidden_as:
        return _forbidden(replaced, new_place)
    storage = context.storage
    refusal = None if storage is None else storage.refuse_moving(found, old_place.path, new_place.path)
    if refusal is not None:
        return refusal
    context.allow(Allowed(new_allowed.by), new_place.path)
    context.allow(Allowed(old_allowed.by), old_place.path, to=new_place.path)
    rename_at(old_place.parent.descriptor, old_place.name, new_place.parent.descriptor, new_place.name, flags)
    if storage is not None:
        if replaced is not None and replaced.identity != found.identity:
            storage.removed(replaced, new_place.path)
        storage.moved(found, old_place.path, new_place.path)
    return _after_rename(context, found, old_place, new_place)


def _moved(context: Context, found: Found, old: Place, new: Place) -> Refusal | None:
    """Refuse what may not come under the new name."""
    facts = found.facts
    if facts.is_symlink and not facts.forbidden_as:
        return refuse_link(context, new, os.readlink(old.name, dir_fd=old.parent.descriptor))
    unfit = decide_kind(facts, WRITE, old.path, writing=False)
    if unfit is not None:
        return unfit
    if facts.is_directory:
        refusal = decide_directory_rename(context.policy, old.path, new.path)
        return refusal or refuse_links_beneath(context, found, old, new)
    return decide_widening(context.policy, old.path, new.path)


def _after_rename(context: Context, judged: Found, old: Place, new: Place) -> Answer:
    """Check that what was moved is what was judged: something else may have taken its name in between."""
    moved = context.files.at(new)
    if moved is None or moved.identity == judged.identity:
        return 0
    if moved.facts.is_file and judged.facts.is_file:
        return 0  # another file under the same name: rules go by name, so it was judged all the same
    with contextlib.suppress(OSError):
        rename_at(new.parent.descriptor, new.name, old.parent.descriptor, old.name, RENAME_NOREPLACE)
    context.done = None
    return Refusal(errno.EACCES, WRITE, old.path, "A1206", "something else took its name while it was being renamed")


def answer_link(context: Context) -> Answer:
    """link(2)."""
    call = context.call
    return _link(context, (_AT_CWD, call.a0), (_AT_CWD, call.a1), 0)


def answer_linkat(context: Context) -> Answer:
    """linkat(2), without AT_EMPTY_PATH: an object is linked by a name that it has."""
    call = context.call
    flags = signed(call.a4)
    if flags & AT_EMPTY_PATH:
        raise CallFails(errno.ENOENT)
    if flags & ~AT_SYMLINK_FOLLOW:
        raise CallFails(errno.EINVAL)
    return _link(context, (call.a0, call.a1), (call.a2, call.a3), flags)


def _link(context: Context, old: tuple[int, int], new: tuple[int, int], flags: int) -> Answer:
    new_path = context.path(new[1])
    old_path = context.path(old[1])
    placed = context.place(new[0], new_path, WRITE)
    if isinstance(placed, Refusal):
        return placed
    place, allowed = placed
    base = context.base(old[0], old_path, WRITE)
    if isinstance(base, Refusal):
        return base
    found = context.find(base, old_path, nofollow=not flags, actions=(WRITE,))
    if isinstance(found, Refusal):
        return found
    if isinstance(found, Unresolved):
        return context.missing(found, (WRITE,))
    answer = decide_actions(context.policy, (WRITE,), found.path)
    if isinstance(answer, Refusal):
        return answer
    unfit = decide_kind(found.facts, WRITE, found.path, writing=True)
    if unfit is not None:
        return unfit
    if found.facts.is_directory:
        raise CallFails(errno.EPERM)
    if place.must_be_directory:
        raise CallFails(errno.ENOENT)
    widening = decide_widening(context.policy, found.path, place.path)
    if widening is not None:
        return widening
    storage = context.storage
    refusal = None if storage is None else storage.refuse_linking(found, found.path, place.path)
    if refusal is not None:
        return refusal
    context.allow(answer, found.path, did=False, to=place.path)
    context.allow(allowed, place.path)
    # AT_SYMLINK_FOLLOW through the magic link: the very object that was judged gets the name.
    os.link(
        raw(through(found.descriptor)),
        place.name,
        dst_dir_fd=place.parent.descriptor,
        follow_symlinks=True,
    )
    if storage is not None:
        storage.linked(found, found.path, place.path)
    return 0


def answer_symlink(context: Context) -> Answer:
    """symlink(2)."""
    call = context.call
    return _symlink(context, context.path(call.a0), _AT_CWD, context.path(call.a1))


def answer_symlinkat(context: Context) -> Answer:
    """symlinkat(2)."""
    call = context.call
    return _symlink(context, context.path(call.a0), call.a1, context.path(call.a2))


def _symlink(context: Context, target: bytes, directory: int, path: bytes) -> Answer:
    if not target:
        raise CallFails(errno.ENOENT)
    placed = context.place(directory, path, WRITE)
    if isinstance(placed, Refusal):
        return placed
    place, allowed = placed
    refusal = refuse_link(context, place, target)
    if refusal is not None:
        return refusal
    if place.must_be_directory:
        raise CallFails(errno.ENOENT)
    storage = context.storage
    refusal = None if storage is None else storage.refuse_making(place.path)
    if refusal is not None:
        return refusal
    context.allow(allowed, place.path)
    os.symlink(target, place.name, dir_fd=place.parent.descriptor)
    if storage is not None:
        storage.made(place.name, place.parent.descriptor, place.path)
    return 0


def answer_truncate(context: Context) -> Answer:
    """truncate(2)."""
    call = context.call
    length = call.a1 - (1 << 64) if call.a1 >> 63 else call.a1
    if length < 0:
        raise CallFails(errno.EINVAL)
    found = _writable(context, _AT_CWD, context.path(call.a0), nofollow=False)
    if isinstance(found, Refusal):
        return found
    if found.facts.is_directory:
        raise CallFails(errno.EISDIR)
    if length > os.stat(through(found.descriptor)).st_size:
        # By path it only gets shorter: the worker's own RLIMIT_FSIZE bounds how far it grows, in ftruncate(2).
        raise CallFails(errno.EFBIG)
    if context.storage is not None:
        context.storage.will_truncate(found)
    os.truncate(through(found.descriptor), length)
    if context.storage is not None:
        context.storage.opened(found.descriptor, found.path, writes=False)
    return 0


def answer_utimensat(context: Context) -> Answer:
    """utimensat(2), by path and by descriptor."""
    call = context.call
    flags = signed(call.a3)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise CallFails(errno.EINVAL)
    times = context.memory.read(call, call.a2, _TIMES_BYTES) if call.a2 else None
    context.memory.check(call)
    path = context.path(call.a1) if call.a1 else b""
    if path:
        found = _writable(context, call.a0, path, bool(flags & AT_SYMLINK_NOFOLLOW))
    elif call.a1 and not flags & AT_EMPTY_PATH:
        raise CallFails(errno.ENOENT)
    else:
        found = _judged_for_writing(context, context.files.held(context.duplicate(call.a0)))
    if isinstance(found, Refusal):
        return found
    utimens_at(_AT_CWD, through(found.descriptor).encode(), times, 0)
    return 0


def _writable(context: Context, directory: int, path: bytes, nofollow: bool) -> Found | Refusal:
    if not path:
        raise CallFails(errno.ENOENT)
    base = context.base(directory, path, WRITE)
    if isinstance(base, Refusal):
        return base
    found = context.find(base, path, nofollow, (WRITE,))
    if isinstance(found, Refusal):
        return found
    if isinstance(found, Unresolved):
        return context.missing(found, (WRITE,))
    return _judged_for_writing(context, found)


def _judged_for_writing(context: Context, found: Found) -> Found | Refusal:
    answer = decide_actions(context.policy, (WRITE,), found.path)
    if isinstance(answer, Refusal):
        return answer
    unfit = decide_kind(found.facts, WRITE, found.path, writing=True)
    if unfit is not None:
        return unfit
    context.allow(answer, found.path)
    return found


def refuse_metadata(context: Context) -> Answer:
    """Refuse modes, owners, attributes and locks.

    No WASI interface has them, and with one identity for many components they would change what others may do.
    """
    call = context.call
    by_descriptor = context.name.startswith("f") and not context.name.endswith(("at", "at2"))
    resource = _described(context, call.a0) if by_descriptor else _named(context)
    number = errno.EOPNOTSUPP if context.name == "flock" or "xattr" in context.name else errno.EPERM
    return Refusal(number, WRITE, resource, "A1703", f"{context.name}: metadata is not a component's to change")


def _described(context: Context, register: int) -> str:
    return context.files.held(context.duplicate(register)).path


def _named(context: Context) -> str:
    has_directory = context.name.endswith(("at", "at2"))
    address = context.call.a1 if has_directory else context.call.a0
    return text(context.path(address)) if address else ""


def answer_no_attributes(context: Context) -> Answer:
    """Reading extended attributes: as on a file system that has none. Nothing is looked at, so nothing is decided."""
    del context
    raise CallFails(errno.EOPNOTSUPP)


def refuse_watch(context: Context) -> Answer:
    """inotify_add_watch(2)."""
    resource = text(context.path(context.call.a1))
    return Refusal(errno.EACCES, "filesystem.list", resource, "A1703", "watching files is not offered")
