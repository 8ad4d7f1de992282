"""Answering open, openat, openat2 and creat: judge the real object, then hand over that very object.

Its descriptor carries exactly the granted rights.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import Final

from ipc.messages import ARTIFACT_PATH
from ipc.policy.capability import READ, WRITE
from ipc.policy.decision import Policy
from ipc.syscalls import LOOKING_ONLY
from ipc.warden.context import Answer, Context, Injection, signed
from ipc.warden.decide import Allowed, Refusal, decide_actions, decide_handle, decide_open
from ipc.warden.files import Base, Files, Found, Place, Unresolved
from ipc.warden.held_objects import real_path, reopen, text
from ipc.warden.notify import CallFails, ForbiddenCall
from ipc.warden.open_request import O_CREAT, O_TRUNC, O_WRONLY, OpenRequest, normalise_flags, parse_open
from ipc.warden.storage import Storage

_ALWAYS: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: should the object turn out to be a pipe after all, nobody waits for its other end."""
ACCESS_NOTHING: Final = 3
"""Linux's access mode 3: checked like O_RDWR, and the descriptor can neither be read, written nor mapped; open(2)."""
_ARTIFACT: Final = ARTIFACT_PATH.encode()
_OPEN_HOW: Final = struct.Struct("<QQQ")
_OPEN_HOW_MAX: Final = 4096
_RACES_MAX: Final = 3
_DUPLICATES_FROM_MAX: Final = 4
"""The least number that a duplicate may be asked to have. A worker's streams and its channel have the first four."""


def answer_open(context: Context) -> Answer:
    """open(2), without a directory."""
    call = context.call
    return _open(context, -100, context.path(call.a0), call.a1 & 0xFFFF_FFFF, call.a2 & 0xFFFF_FFFF, 0, False)


def answer_creat(context: Context) -> Answer:
    """creat(2)."""
    call = context.call
    flags = O_CREAT | O_WRONLY | O_TRUNC
    return _open(context, -100, context.path(call.a0), flags, call.a1 & 0xFFFF_FFFF, 0, False)


def answer_openat(context: Context) -> Answer:
    """openat(2)."""
    call = context.call
    path = context.path(call.a1)
    return _open(context, call.a0, path, call.a2 & 0xFFFF_FFFF, call.a3 & 0xFFFF_FFFF, 0, False)


def answer_openat2(context: Context) -> Answer:
    """openat2(2): its structure is copied once, and must be as long as it says, with nothing unknown in it."""
    call = context.call
    if call.a3 < _OPEN_HOW.size:
        raise CallFails(errno.EINVAL)
    if call.a3 > _OPEN_HOW_MAX:
        raise CallFails(errno.E2BIG)
    path, how = context.path_and(call.a1, call.a2, call.a3)
    if any(how[_OPEN_HOW.size :]):
        raise CallFails(errno.E2BIG)
    flags, mode, resolve = _OPEN_HOW.unpack_from(how)
    return _open(context, call.a0, path, flags, mode, resolve, True)


def answer_duplicate(context: Context) -> Answer:
    """fcntl(2) with F_DUPFD_CLOEXEC: WASI keeps a second handle of a directory; same open file, same rights.

    Not left to the kernel, so that descriptors get into a worker one way only (`ipc.warden.storage`). What else comes
    here as fcntl its filter would have allowed, if anything that works made that call.
    """
    call = context.call
    if signed(call.a1) != fcntl.F_DUPFD_CLOEXEC:
        raise ForbiddenCall
    if not 0 <= signed(call.a2) <= _DUPLICATES_FROM_MAX:
        raise CallFails(errno.EINVAL)
    duplicate = context.duplicate(call.a0)
    if context.connection is not None and stat.S_ISSOCK(os.fstat(duplicate).st_mode):
        raise ForbiddenCall  # of its connection to the broker a worker has no second one
    if context.storage is not None:
        context.storage.duplicated(duplicate)
    return Injection(duplicate)


def _open(context: Context, directory: int, path: bytes, flags: int, mode: int, resolve: int, strict: bool) -> Answer:
    request = parse_open(normalise_flags(flags, context.machine), mode, resolve, strict)
    if isinstance(request, int):
        raise CallFails(request)
    if request.path_only:
        context.name += LOOKING_ONLY
    if path[:1] == b"/" and not resolve:
        if path == _ARTIFACT and context.artifact is not None and request.actions == (READ,):
            return _deliver_artifact(context)
        root = context.files.roots.get(text(path))
        if root is not None and not request.changes:
            return _deliver_root(context, root)
    for _ in range(_RACES_MAX):
        base = context.base(directory, path, WRITE if request.changes else READ)
        if isinstance(base, Refusal):
            return base
        found = context.find(
            base, path, request.nofollow or request.exclusive, request.actions, request.directory, resolve
        )
        if isinstance(found, Refusal):
            return found
        if isinstance(found, Found):
            return _open_found(context, request, found)
        if not (request.create and found.errno == errno.ENOENT):
            return context.missing(found, request.actions, request.directory)
        answer = _create(context, request, base, path)
        if answer is not None:
            return answer
    raise CallFails(errno.ENOENT)


def _open_found(context: Context, request: OpenRequest, found: Found) -> Answer:
    answer = decide_open(context.policy, request, found.path, found.facts)
    if isinstance(answer, Refusal):
        return answer
    if found.facts.is_symlink:
        # No descriptor can stand for a link (ADDFD takes no O_PATH descriptor). EPERM and not ELOOP: cap-std then asks
        # by statx(2) instead, which is decided and answered like everything else.
        raise CallFails(errno.EPERM)
    if request.changes and context.storage is not None:
        return _open_to_change(context, request, found, answer, context.storage)
    context.allow(answer, found.path, did=request.truncate)
    if found.facts.is_directory:
        context.subject = context.subject or ("filesystem.list", found.path)
        return Injection(_reopen(context, found, os.O_RDONLY | os.O_DIRECTORY))
    if request.path_only:
        return Injection(_reopen_to_look(context, found))
    return Injection(_reopen(context, found, _flags(request)))


def _open_to_change(context: Context, request: OpenRequest, found: Found, allowed: Allowed, storage: Storage) -> Answer:
    """Open a file that exists for what may make it larger, if there is room."""
    refusal = storage.refuse_writing(found, request.write, request.truncate)
    if refusal is not None:
        return refusal
    context.allow(allowed, found.path, did=request.truncate)
    if request.truncate:
        storage.will_truncate(found)
    descriptor = _reopen(context, found, _flags(request))
    if request.write or request.truncate:
        storage.opened(descriptor, found.path, request.write)
    return Injection(descriptor)


def _flags(request: OpenRequest) -> int:
    access = os.O_RDWR if request.read and request.write else os.O_WRONLY if request.write else os.O_RDONLY
    return access | request.kept_flags | (os.O_TRUNC if request.truncate else 0)


def _reopen(context: Context, found: Found, flags: int) -> int:
    """Open the very object that was judged, through its magic link, with exactly these rights."""
    return context.files.keep(reopen(found.descriptor, flags | _ALWAYS))


def _reopen_to_look(context: Context, found: Found) -> int:
    """Open for a stat: with no right at all if the identity may, else with a right that is granted anyway."""
    rights = context.policy.rights(found.path)
    choices = [ACCESS_NOTHING]
    if "read" in rights:
        choices.append(os.O_RDONLY)
    if "write" in rights and not found.facts.mode & 0o6000:
        choices.append(os.O_WRONLY)
    for access in choices:
        storage = context.storage if access == os.O_WRONLY else None
        if storage is not None and storage.refuse_writing(found, writes=True, truncate=False):
            continue
        try:
            descriptor = _reopen(context, found, access)
            if storage is not None:
                storage.opened(descriptor, found.path, writes=True)
            return descriptor
        except OSError as error:
            # EROFS, ETXTBSY: access mode 3 is checked as if it could write.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
                raise
    # No descriptor can be had without rights that were not granted. EPERM: see _open_found; statx(2) gets an answer.
    raise CallFails(errno.EPERM)


def _create(context: Context, request: OpenRequest, base: Base, path: bytes) -> Answer | None:
    """Make a new file in the directory that is held; None when something else made one meanwhile."""
    place = context.files.place(base, path)
    if isinstance(place, Unresolved):
        return context.missing(place, request.actions)
    answer = decide_actions(context.policy, request.actions, place.path)
    if isinstance(answer, Refusal):
        return answer
    unfit = context.unfit_parent(place, WRITE)
    if unfit is not None:
        return unfit
    if place.must_be_directory:
        raise CallFails(errno.EISDIR)
    standing = context.files.at(place)
    if standing is not None:
        if standing.facts.is_symlink:
            raise CallFails(errno.EEXIST if request.exclusive else errno.ELOOP)
        return None
    return _create_at(context, request, place, answer)


def _create_at(context: Context, request: OpenRequest, place: Place, allowed: Allowed) -> Answer | None:
    storage = context.storage
    refusal = None if storage is None else storage.refuse_making(place.path, request.write)
    if refusal is not None:
        return refusal
    context.allow(allowed, place.path)
    access = os.O_RDWR if request.read and request.write else os.O_WRONLY if request.write else os.O_RDONLY
    flags = access | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | request.kept_flags | _ALWAYS
    try:
        descriptor = os.open(place.name, flags, request.mode, dir_fd=place.parent.descriptor)
    except FileExistsError:
        if request.exclusive:
            raise
        context.done = None
        return None
    context.files.keep(descriptor)
    if real_path(descriptor) != place.path:
        os.unlink(place.name, dir_fd=place.parent.descriptor)
        context.done = None
        return Refusal(errno.EACCES, WRITE, place.path, "A1204", "its directory was moved while it was being created")
    if storage is not None:
        storage.opened(descriptor, place.path, request.write, created=True)
    return Injection(descriptor)


def _deliver_artifact(context: Context) -> Answer:
    """Hand over the compiled code, read-only and once; it is the component's own and sealed, no file of anyone's."""
    artifact = context.artifact
    assert artifact is not None
    context.artifact = None
    context.files.keep(artifact)
    return Injection(context.files.keep(reopen(artifact, os.O_RDONLY | os.O_CLOEXEC)))


def prepare_root(policy: Policy, files: Files, path: str) -> None:
    """Hold a mount's directory before the worker asks for it; raises OSError when this identity can't open it."""
    root = files.add_root(path)
    if _granted_root(policy, files, root) is None:
        files.stand_in_for(root)


def _granted_root(policy: Policy, files: Files, root: int) -> Found | None:
    """Return a mount's directory as it is now, unless nothing in it is granted."""
    found = files.held(root)
    unfit = found.facts.special_filesystem or found.facts.forbidden_as or found.facts.links == 0
    return None if unfit or not isinstance(decide_handle(policy, found.path), Allowed) else found


def _deliver_root(context: Context, root: int) -> Answer:
    """Hand over a mount's directory, or an empty stand-in for it where nothing in it is granted or it can't be read."""
    found = _granted_root(context.policy, context.files, root)
    if found is not None:
        with contextlib.suppress(PermissionError):
            return Injection(_reopen(context, found, os.O_RDONLY | os.O_DIRECTORY))
    return Injection(context.files.stand_in_for(root))
