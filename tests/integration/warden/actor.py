"""A process that makes native file calls as told, all notified to a warden: stands for a worker that was broken into.

Run as `python -I actor.py FD`: makes a filter, sends its listener through FD, then runs the Python it is sent there.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import socket
import struct
import sys
import threading

FOR_THE_CODE_THAT_IS_SENT = (errno, mmap, threading)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS: dict[str, int] = {}


def sys_call(name: str, *arguments: object) -> int:
    """Make one system call by name, and return its result or its negative errno."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = libc.syscall(ctypes.c_long(NUMBERS[name]), *wide)
    return -ctypes.get_errno() if result < 0 else result


def openat2(directory: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0x0A) -> int:
    """openat2(2) as cap-std makes it: beneath the directory, no magic links."""
    how = ctypes.create_string_buffer(struct.pack("<QQQ", flags, mode, resolve), 24)
    return sys_call("openat2", directory, path, how, 24)


def listing(descriptor: int, size: int) -> tuple[list[str], int]:
    """Read one getdents64(2) buffer of `size` bytes: the names, and the result."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    count = sys_call("getdents64", descriptor, buffer, size)
    names = []
    at = 0
    while at < count:
        length = struct.unpack_from("<H", buffer.raw, at + 16)[0]
        names.append(buffer.raw[at + 19 : at + length].split(b"\0")[0].decode("utf-8", "surrogateescape"))
        at += length
    return names, count


def names(descriptor: int, size: int = 4096) -> list[str]:
    """Read a whole directory, sorted, without . and .. ."""
    found: list[str] = []
    while True:
        part, count = listing(descriptor, size)
        if count < 0:
            return [f"errno {-count}"]
        if count == 0:
            return sorted(n for n in found if n not in (".", ".."))
        found += part


def install(numbers: list[int]) -> int:
    """Notify these system calls; return the listener."""
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
    code = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    for number in numbers:
        code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x7FC00000)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *c) for c in code))
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(program)))
    libc.prctl(38, 1, 0, 0, 0)
    seccomp = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    for flags in (8 | 32, 8):  # NEW_LISTENER, with WAIT_KILLABLE_RECV where the kernel has it
        listener: int = libc.syscall(ctypes.c_long(seccomp), ctypes.c_long(1), ctypes.c_long(flags), header)
        if listener >= 0:
            return listener
    raise OSError(ctypes.get_errno(), "seccomp")


def main() -> None:
    """Confine, then follow orders until the other end is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    order = json.loads(channel.recv(65536))
    NUMBERS.update(order["numbers"])
    if order["uid"] is not None:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    # As a worker: no capability, also not those over its own namespace.
    libc.capset(struct.pack("<Ii", 0x20080522, 0), bytes(24))
    if order["dumpable"] and order["uid"] is None:
        libc.prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)  # PR_SET_PTRACER: Yama lets an attacher in
    # Without a namespace an ordinary warden has no capability: the actor must stay dumpable.
    libc.prctl(4, int(order["dumpable"] and order["uid"] is None), 0, 0, 0)
    space: dict[str, object] = dict(globals())
    listener = install(order["notified"])
    socket.send_fds(channel, [b"listener"], [listener])
    os.close(listener)
    while True:
        source = channel.recv(1 << 20)
        if not source:
            return
        answer: dict[str, object]
        try:
            space["result"] = None
            exec(source, space)
            answer = {"result": space["result"]}
        except OSError as error:
            answer = {"errno": error.errno, "name": errno.errorcode.get(error.errno or 0, "?")}
        except BaseException as error:
            answer = {"error": repr(error)}
        channel.send(json.dumps(answer, default=repr).encode())


main()
