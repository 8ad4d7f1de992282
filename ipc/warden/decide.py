"""What a file call asks for, and what the rules say to it: pure functions of values.

The shell around it resolves names to objects and carries out what is answered here. Flags: open(2), openat2(2).
"""

from __future__ import annotations

import errno
import stat
from typing import Final, Protocol

from ipc.policy.capability import LIST, READ, WRITE
from ipc.policy.decision import Allow, Deny
from ipc.policy.quota import QuotaLevel
from ipc.struct import Struct
from ipc.warden.open_request import OpenRequest

SETID: Final = stat.S_ISUID | stat.S_ISGID


class Refusal(Struct, frozen=True):
    """A refused call: what the worker's call returns, and what the audit log and a person are told."""

    errno: int
    action: str
    resource: str
    code: str
    reason: str
    rule: str = ""
    nearest: str | None = None
    quota: QuotaLevel | None = None


_KIND: Final = 0o170000
"""S_IFMT: the bits of a mode that say what kind of object it is, inode(7)."""


class Allowed(Struct, frozen=True):
    """What was allowed, and by which rules: (action, rule) each."""

    by: tuple[tuple[str, str], ...]


class Facts(Struct, frozen=True):
    """What is known of an object that is held open."""

    mode: int
    links: int
    special_filesystem: str = ""
    forbidden_as: str = ""
    write_forbidden_as: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode & _KIND == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.mode & _KIND == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link itself."""
        return self.mode & _KIND == stat.S_IFLNK


class FilePolicy(Protocol):
    """What is used of `ipc.policy.decision.Policy`."""

    def decide(self, action: str, resource: str) -> Allow | Deny:
        """Answer for one action on one resource."""

    def reaches(self, directory: str) -> bool:
        """Answer whether some grant covers the directory, something beneath it, or lies on the way to one."""

    def rights(self, resource: str, is_directory: bool = False) -> frozenset[str]:
        """Return which of read, write, list are allowed."""

    def shows(self, path: str, is_directory: bool) -> bool:
        """Answer whether a listing may show this name."""

    def subtrees_alike(self, a: str, b: str) -> bool:
        """Answer whether no rule tells what lies beneath `a` from what lies beneath `b`."""

    def may_stand_for(self, name: str, target: str) -> bool:
        """Answer whether a symbolic link gives nothing a name under which it would be forbidden."""


_SPECIAL_FILESYSTEMS: Final = {
    0x9FA0: "proc",
    0x6265_6572: "sysfs",
    0x1CD1: "devpts",
    0x27E0EB: "cgroup",
    0x6367_7270: "cgroup2",
    0x6462_6720: "debugfs",
    0x7472_6163: "tracefs",
    0x7363_6673: "securityfs",
    0xCAFE_4A11: "bpf",
    0x6265_6570: "configfs",
    0x6165_676C: "pstore",
    0xDE5E_81E4: "efivarfs",
    0x1980_0202: "mqueue",
    0x6E73_6673: "nsfs",
    0x4249_4E4D: "binfmt_misc",
    0x6573_5543: "fusectl",
    0xF97C_FF8C: "selinuxfs",
    0x5041_5258: "pidfs",
    0x534F_434B: "sockfs",
    0x5049_5045: "pipefs",
    0x0904_1934: "anon_inodefs",
}
"""Magic numbers of file systems that are interfaces, not files: include/uapi/linux/magic.h. devtmpfs has tmpfs's
number; there the guarded path /dev and the refusal of everything but regular files and directories hold."""


def special_filesystem(magic: int) -> str:
    """Return the name of the file system with this magic if it is one that is guarded, else an empty string."""
    return _SPECIAL_FILESYSTEMS.get(magic, "")


def refuse(deny: Deny, action: str, resource: str, number: int = errno.EACCES) -> Refusal:
    """Turn the policy's word into the refusal of a call."""
    return Refusal(number, action, resource, deny.code, deny.reason, deny.rule, deny.nearest)


def decide_actions(policy: FilePolicy, actions: tuple[str, ...], path: str) -> Allowed | Refusal:
    """Decide every action on `path`; the first refusal wins."""
    if len(actions) == 1:  # nearly always
        action = actions[0]
        answer = policy.decide(action, path)
        return refuse(answer, action, path) if isinstance(answer, Deny) else Allowed(((action, answer.rule),))
    by = []
    for action in actions:
        answer = policy.decide(action, path)
        if isinstance(answer, Deny):
            return refuse(answer, action, path)
        by.append((action, answer.rule))
    return Allowed(tuple(by))


def decide_any(policy: FilePolicy, path: str, told_as: str = READ) -> Allowed | Refusal:
    """Decide a look at `path` from outside (a stat), which needs any of the three rights; a refusal is `told_as`."""
    first: Deny | None = None
    for action in (told_as, *(a for a in (READ, LIST, WRITE) if a != told_as)):
        answer = policy.decide(action, path)
        if isinstance(answer, Allow):
            return Allowed(((action, answer.rule),))
        first = first or answer
    assert first is not None
    return refuse(first, told_as, path)


def decide_handle(policy: FilePolicy, path: str) -> Allowed | Refusal:
    """Decide a handle on a directory: it confers nothing by itself, and is given where a grant can be reached."""
    if policy.reaches(path):
        return Allowed(())
    return decide_any(policy, path, LIST)


def decide_kind(facts: Facts, action: str, path: str, writing: bool) -> Refusal | None:
    """Refuse what no grant opens: forbidden objects under another name, devices, pipes, sockets, interfaces, set-id."""
    if facts.forbidden_as:
        reason = f"this is {facts.forbidden_as} under another name, which is forbidden whatever is granted"
        return Refusal(errno.EACCES, action, path, "A1101", reason)
    if writing and facts.write_forbidden_as:
        reason = f"this is {facts.write_forbidden_as} under another name, which nobody's component may change"
        return Refusal(errno.EACCES, action, path, "A1101", reason)
    if facts.special_filesystem:
        reason = f"it is on a {facts.special_filesystem} file system, which is guarded"
        return Refusal(errno.EACCES, action, path, "A1102", reason)
    if not (facts.is_directory or facts.is_file):
        kind = "a symbolic link" if facts.is_symlink else _special(facts.mode)
        return Refusal(
            errno.EACCES, action, path, "A1205", f"it is {kind}: only regular files and directories are opened"
        )
    if facts.links == 0:
        return Refusal(errno.EACCES, action, path, "A1209", "it has been unlinked: no name, so no rule for it")
    if writing and facts.is_file and facts.mode & SETID:
        return Refusal(errno.EPERM, action, path, "A1208", "it is a set-id file: never opened for writing")
    return None


def _special(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
    ):
        if test(mode):
            return name
    return "a block device"


def decide_open(policy: FilePolicy, request: OpenRequest, path: str, facts: Facts) -> Allowed | Refusal:
    """Decide the opening of an existing object on its real path."""
    told_as = LIST if facts.is_directory and not request.changes else (request.actions or (READ,))[-1]
    if facts.forbidden_as or facts.special_filesystem:
        refusal = decide_kind(facts, told_as, path, request.changes)
        assert refusal is not None
        return refusal
    if facts.is_symlink and not request.path_only:
        answer = decide_any(policy, path, told_as)
        return answer if isinstance(answer, Refusal) else Refusal(errno.ELOOP, told_as, path, "", "")
    if facts.is_directory:
        answer = decide_handle(policy, path)
        if isinstance(answer, Allowed) and request.changes:
            return Refusal(errno.EISDIR, WRITE, path, "", "")
    elif request.path_only:
        answer = decide_any(policy, path)
    else:
        answer = decide_actions(policy, request.actions, path)
    if isinstance(answer, Refusal):
        if request.directory and not facts.is_directory and policy.reaches(path):
            # The same answer as for a name that isn't there: a directory could be, and this says that none is.
            return Refusal(errno.ENOENT, answer.action, path, "", "")
        return answer
    kind = decide_kind(facts, told_as, path, request.changes)
    if kind is not None and not (facts.is_symlink and request.path_only):
        return kind
    if request.directory and not facts.is_directory:
        return Refusal(errno.ENOTDIR, told_as, path, "", "")
    if request.exclusive:
        return Refusal(errno.EEXIST, WRITE, path, "", "")
    return answer


def decide_missing(policy: FilePolicy, path: str, actions: tuple[str, ...], directory: bool, number: int) -> Refusal:
    """Answer for a name that can't be resolved, for the reason `number`.

    Its errno is told only where a grant covers the name: elsewhere what exists and what doesn't answer alike.
    """
    if policy.rights(path) or (directory and policy.reaches(path)):
        return Refusal(number, (actions or (READ,))[-1], path, "", "")
    told_as = actions[0] if actions else LIST if directory else READ
    answer = decide_any(policy, path, told_as)
    if isinstance(answer, Allowed):
        return Refusal(number, told_as, path, "", "")
    return answer


def decide_widening(policy: FilePolicy, source: str, target: str) -> Refusal | None:
    """Refuse giving the file at `source` the name `target` if that name confers a right that the file has not."""
    gained = policy.rights(target) - policy.rights(source)
    for right in ("read", "list", "write"):
        if right in gained:
            action = f"filesystem.{right}"
            answer = policy.decide(action, source)
            if isinstance(answer, Deny):
                reason = f"under the name {target} it could be used for {right}, which is refused here: {answer.reason}"
                return Refusal(errno.EACCES, action, source, "A1211", reason, answer.rule, answer.nearest)
    return None


def decide_directory_rename(policy: FilePolicy, source: str, target: str) -> Refusal | None:
    """Refuse renaming a directory where what lies beneath could come under other rules."""
    if policy.rights(source) >= policy.rights(target) and policy.subtrees_alike(source, target):
        return None
    reason = f"renamed to {target}, what is beneath it would come under other rules"
    return Refusal(errno.EXDEV, WRITE, source, "A1206", reason)


def link_leads_to(parent: str, target: str) -> str | None:
    """Return the path that a symbolic link in `parent` names; None for one that is absolute or climbs after going down.

    By its words: what it leads to may itself be a link.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    at = [part for part in parent.split("/") if part]
    if target.startswith("/") or ".." in parts[climbs:] or climbs > len(at):
        return None
    return "/" + "/".join(at[: len(at) - climbs] + parts[climbs:])


def decide_link_target(policy: FilePolicy, path: str, target: str, leads_to: str | None) -> Refusal | None:
    """Refuse a symbolic link `path` that leads where nothing is granted, or where its own name would spare from a rule.

    That a grant lies further down isn't enough: by a link to `/` everything would have a name in here, and whoever else
    follows links beneath a directory that a component may write in would follow it out.
    """
    if leads_to is None or not _is_granted(policy, leads_to):
        reason = f"a symbolic link to {target!r}: absolute or escaping targets are refused"
        return Refusal(errno.EACCES, WRITE, path, "A1204", reason)
    if not policy.may_stand_for(path, leads_to):
        reason = f"as a symbolic link to {target!r} it would give files there names that are forbidden to write"
        return Refusal(errno.EACCES, WRITE, path, "A1101", reason)
    return None


def _is_granted(policy: FilePolicy, path: str) -> bool:
    """Whether something is granted on an object, as a file or a directory, or on what lies directly beneath."""
    beneath = f"{path.rstrip('/')}/x"
    return bool(policy.rights(path) or policy.rights(path, True) or policy.rights(beneath))


DT_DIR: Final = 4
DT_REG: Final = 8
DT_LNK: Final = 10


def may_show(policy: FilePolicy, path: str, entry_type: int) -> bool:
    """Answer whether a listing shows this name, a dirent of type `entry_type` (readdir(3)).

    What no call could look at is not shown: wasmtime's `fd_readdir` looks at every name and fails as a whole if one is
    refused.
    """
    return entry_type in (DT_REG, DT_DIR, DT_LNK) and policy.shows(path, entry_type == DT_DIR)
