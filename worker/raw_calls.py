"""System calls by their number, as attacks make them; machine code for those that the C library has no function for."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import Final

from worker import libc

_C: Final = ctypes.CDLL(None, use_errno=True)
_long, _ulong = ctypes.c_long, ctypes.c_ulong
_raw = ctypes.CFUNCTYPE(_long, _long, *[_ulong] * 6, use_errno=True)(("syscall", _C))
_MACHINE: Final = os.uname().machine  # a sealed worker may not ask
_MAX_ERRNO: Final = 4095
_GADGET_BYTES: Final = 4096


class Buffer:
    """Bytes at an address that stays the same, for a raw system call to read or fill."""

    __slots__ = ("_memory", "address", "length")

    def __init__(self, data: bytes) -> None:
        """Copy `data` into memory of its own."""
        self.length = len(data)
        self._memory = ctypes.create_string_buffer(data, max(1, len(data)))
        self.address = ctypes.addressof(self._memory)


def raw_call(number: int, arguments: Sequence[int]) -> tuple[int, int]:
    """Make any system call; returns its result and errno (0 without an error): syscall(2)."""
    ctypes.set_errno(0)
    result: int = _raw(number, *_six(arguments))
    return result, ctypes.get_errno() if result == -1 else 0


def code_address() -> int:
    """Return the address of a function of the C library: executable code that nothing may write to."""
    return ctypes.cast(_C.getpid, ctypes.c_void_p).value or 0


def _six(arguments: Sequence[int]) -> list[int]:
    return [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * (6 - len(arguments)))]


class Gadgets:
    """Machine code that makes system calls the C library has no function for (x86_64); map it before the seal."""

    _CALL: Final = bytes.fromhex(
        "4889f8"  # mov rax, rdi         long f(number, a, b, c, d, e)
        "4889f7"  # mov rdi, rsi
        "4889d6"  # mov rsi, rdx
        "4889ca"  # mov rdx, rcx
        "4d89c2"  # mov r10, r8
        "4d89c8"  # mov r8, r9
        "0f05"  #   syscall
        "4885c0"  # test rax, rax
        "7401"  #   jz child
        "c3"  #     ret
    )
    # In the child; it touches no stack, which after a vfork, or in a thread that was given none, is the parent's too.
    _END: Final = bytes.fromhex(
        "b83c000000"  # mov eax, 60 (exit)
        "31ff"  #   xor edi, edi
        "0f05"  #   syscall
    )
    _STAY: Final = bytes.fromhex(
        "31d2"  #   xor edx, edx
        "4d31d2"  # xor r10, r10
        "be80000000"  # mov esi, 128 (FUTEX_WAIT, private: for ever while a word is 0)
        "488d3d00000000"  # lea rdi, [here]
        "4881e700f0ffff"  # and rdi, -4096
        "4881c7f80f0000"  # add rdi, 4088 (the end of this page, which is empty)
        "b8ca000000"  # mov eax, 202 (futex)
        "0f05"  #   syscall
        "ebd8"  #   jmp to the start
    )
    _CALL_I386: Final = bytes.fromhex(
        "53"  #     push rbx             long f(number, a, b, c)
        "89f8"  #   mov eax, edi
        "89f3"  #   mov ebx, esi
        "4889d7"  # mov rdi, rdx
        "4889ca"  # mov rdx, rcx
        "89f9"  #   mov ecx, edi
        "cd80"  #   int 0x80
        "4898"  #   cdqe
        "5b"  #     pop rbx
        "c3"  #     ret
    )

    def __init__(self) -> None:
        """Map one page with all of it; on another architecture there is none, and calls answer ENOSYS."""
        self._end_child = self._keep_child = self._i386 = 0
        if _MACHINE != "x86_64":
            return
        page = libc.reserve(_GADGET_BYTES)
        libc.make_usable(page, _GADGET_BYTES)
        pieces = (self._CALL + self._END, self._CALL + self._STAY, self._CALL_I386)
        addresses = [page + sum(map(len, pieces[:n])) for n in range(len(pieces))]
        for address, piece in zip(addresses, pieces, strict=True):
            ctypes.memmove(address, piece, len(piece))
        self._end_child, self._keep_child, self._i386 = addresses
        libc.make_unwritable(page, _GADGET_BYTES)

    def call_and_end_child(self, number: int, arguments: Sequence[int]) -> tuple[int, int]:
        """Make a system call with five arguments at most; a process in which it returns 0 ends at once."""
        return self._call(self._end_child, number, arguments)

    def call_and_keep_child(self, number: int, arguments: Sequence[int]) -> tuple[int, int]:
        """Make a system call with five arguments at most; a thread in which it returns 0 waits for ever."""
        return self._call(self._keep_child, number, arguments)

    def call_i386(self, number: int, arguments: Sequence[int]) -> tuple[int, int]:
        """Make a call of the 32-bit table with three arguments at most, by `int 0x80`."""
        return self._call(self._i386, number, arguments)

    def _call(self, address: int, number: int, arguments: Sequence[int]) -> tuple[int, int]:
        if not address:
            return -1, errno.ENOSYS
        function = ctypes.CFUNCTYPE(_long, _long, *[_ulong] * 5)(address)
        result: int = function(number, *_six(arguments)[:5])
        return (-1, -result) if -_MAX_ERRNO <= result < 0 else (result, 0)
