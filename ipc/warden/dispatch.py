"""Which function answers which system call: one table, total over the names that `ipc.syscalls` hands to the warden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ipc.syscalls import names_by_number
from ipc.warden import changing, connecting, looking, opening
from ipc.warden.context import Answer, Context

Answerer = Callable[[Context], Answer]

ANSWERERS: Final[dict[str, Answerer]] = {
    "open": opening.answer_open,
    "openat": opening.answer_openat,
    "openat2": opening.answer_openat2,
    "creat": opening.answer_creat,
    "stat": looking.answer_stat,
    "lstat": looking.answer_lstat,
    "statx": looking.answer_statx,
    "newfstatat": looking.answer_newfstatat,
    "access": looking.answer_access,
    "faccessat": looking.answer_faccessat,
    "faccessat2": looking.answer_faccessat2,
    "readlink": looking.answer_readlink,
    "readlinkat": looking.answer_readlinkat,
    "getdents64": looking.answer_getdents64,
    "statfs": looking.answer_statfs,
    "fcntl": opening.answer_duplicate,
    "mkdir": changing.answer_mkdir,
    "mkdirat": changing.answer_mkdirat,
    "rmdir": changing.answer_rmdir,
    "unlink": changing.answer_unlink,
    "unlinkat": changing.answer_unlinkat,
    "rename": changing.answer_rename,
    "renameat": changing.answer_renameat,
    "renameat2": changing.answer_renameat2,
    "link": changing.answer_link,
    "linkat": changing.answer_linkat,
    "symlink": changing.answer_symlink,
    "symlinkat": changing.answer_symlinkat,
    "truncate": changing.answer_truncate,
    "utimensat": changing.answer_utimensat,
    "utime": changing.refuse_metadata,
    "utimes": changing.refuse_metadata,
    "futimesat": changing.refuse_metadata,
    "chmod": changing.refuse_metadata,
    "fchmod": changing.refuse_metadata,
    "fchmodat": changing.refuse_metadata,
    "fchmodat2": changing.refuse_metadata,
    "chown": changing.refuse_metadata,
    "lchown": changing.refuse_metadata,
    "fchown": changing.refuse_metadata,
    "fchownat": changing.refuse_metadata,
    "setxattr": changing.refuse_metadata,
    "lsetxattr": changing.refuse_metadata,
    "fsetxattr": changing.refuse_metadata,
    "removexattr": changing.refuse_metadata,
    "lremovexattr": changing.refuse_metadata,
    "fremovexattr": changing.refuse_metadata,
    "flock": changing.refuse_metadata,
    "getxattr": changing.answer_no_attributes,
    "lgetxattr": changing.answer_no_attributes,
    "fgetxattr": changing.answer_no_attributes,
    "listxattr": changing.answer_no_attributes,
    "llistxattr": changing.answer_no_attributes,
    "flistxattr": changing.answer_no_attributes,
    "inotify_add_watch": changing.refuse_watch,
    "socket": connecting.answer_socket,
    "connect": connecting.answer_connect,
}


def answerers_by_number(machine: str) -> dict[int, tuple[str, Answerer]]:
    """Return number → (name, answerer) for one architecture; a KeyError here is a call that nobody would answer."""
    return {number: (name, ANSWERERS[name]) for number, (_, name) in names_by_number(machine).items()}
