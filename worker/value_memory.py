"""Where values of the component model lie (component/val.h): the process's memory, lent to the engine or its own.

A value has 32 bytes: its kind, and what follows from it. A list of bytes has 32 for each byte.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, Final

from wasmtime import _bindings as bindings
from wasmtime import _ffi as ffi

VALUE_BYTES: Final = 32
PAYLOAD_AT: Final = 8
ENTRY_BYTES: Final = 16 + VALUE_BYTES
VALUE: Final = struct.Struct("<B7xQQQ")
VECTOR: Final = struct.Struct("<QQ")
WORD: Final = struct.Struct("<Q")


_NAMES: Final = (
    *("BOOL", "CHAR", "STRING", "LIST", "RECORD", "TUPLE", "VARIANT", "ENUM", "OPTION", "RESULT", "FLAGS"),
    *("S8", "U8", "S16", "U16", "S32", "U32", "S64", "U64", "F32", "F64"),
)
KINDS: Final = {name: int(getattr(ffi, f"WASMTIME_COMPONENT_{name}").value) for name in _NAMES}

# PYFUNCTYPE keeps the interpreter's lock: these take less time than giving it up. Addresses are plain integers.
_address = ctypes.c_void_p
_size = ctypes.c_size_t
new_vector = ctypes.PYFUNCTYPE(None, _address, _size, ctypes.c_char_p)(("wasm_byte_vec_new", bindings.dll))
new_list = ctypes.PYFUNCTYPE(None, _address, _size)(("wasmtime_component_vallist_new_uninit", bindings.dll))
new_record = ctypes.PYFUNCTYPE(None, _address, _size)(("wasmtime_component_valrecord_new_uninit", bindings.dll))
new_tuple = ctypes.PYFUNCTYPE(None, _address, _size)(("wasmtime_component_valtuple_new_uninit", bindings.dll))
new_flags = ctypes.PYFUNCTYPE(None, _address, _size)(("wasmtime_component_valflags_new_uninit", bindings.dll))
new_boxed = ctypes.PYFUNCTYPE(_address, ctypes.c_char_p)(("wasmtime_component_val_new", bindings.dll))
delete = ctypes.PYFUNCTYPE(None, _address)(("wasmtime_component_val_delete", bindings.dll))

memory: Final[Any] = (ctypes.c_char * (1 << 47)).from_address(0)
"""All of this process's memory, by address. A strided slice of it copies a list's bytes seven times faster than a
memoryview does, a short one four times faster than string_at; and no array type is made for each length."""
_KEPT_VALUES: Final = 1 << 16
"""For how many bytes of a list their values are kept ready for the next one, at 32 bytes each."""


class _Rows:
    """A list of bytes as the engine wants it: a row for each, of which only one byte changes."""

    __slots__ = ("_content", "address", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._content = bytearray(VALUE.pack(KINDS["U8"], 0, 0, 0)) * count
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._content))

    def fill(self, value: bytes) -> None:
        self._content[PAYLOAD_AT : len(value) * VALUE_BYTES : VALUE_BYTES] = value


class Lender:
    """Memory of ours that the engine reads during one call of a guest: it never owns a call's arguments."""

    __slots__ = ("_address", "_beside", "_room", "_rows", "_rows_taken", "_used")

    def __init__(self) -> None:
        self._room = ctypes.create_string_buffer(16 * 1024)
        self._address = ctypes.addressof(self._room)
        self._used = 0
        self._beside: list[object] = []
        self._rows = _Rows(1024)
        self._rows_taken = False

    def vector(self, data: bytes) -> tuple[int, int]:
        """Lend bytes."""
        return len(data), self._lend(data)

    def array(self, _allocate: object, count: int, content: bytes) -> tuple[int, int]:
        """Lend an array of values or entries."""
        return count, self._lend(content)

    def box(self, value: bytes) -> int:
        """Lend one value."""
        return self._lend(value)

    def rows(self, value: bytes) -> tuple[int, int]:
        """Lend a list of bytes."""
        count = len(value)
        rows = self._rows
        if self._rows_taken or rows.count < count:
            rows = _Rows(1 << (count - 1).bit_length() if count else 1)
            if self._rows_taken or rows.count > _KEPT_VALUES:
                self._beside.append(rows)
            else:
                self._rows = rows
        self._rows_taken = self._rows_taken or rows is self._rows
        rows.fill(value)
        return count, rows.address

    def take_back(self) -> None:
        """The call is over."""
        self._used = 0
        self._rows_taken = False
        self._beside.clear()

    def _lend(self, data: bytes) -> int:
        start = self._used
        self._used = start + (len(data) + 7 & ~7)
        if self._used <= len(self._room):
            address = self._address + start
        else:
            self._used = start
            beside = ctypes.create_string_buffer(len(data))
            self._beside.append(beside)
            address = ctypes.addressof(beside)
        ctypes.memmove(address, data, len(data))
        return address


class Giver:
    """Memory of the engine's own: it frees what a host function returns."""

    __slots__ = ("_address", "_out", "_rows")

    def __init__(self) -> None:
        self._out = ctypes.create_string_buffer(VECTOR.size)
        self._address = ctypes.addressof(self._out)
        self._rows = _Rows(1)

    def vector(self, data: bytes) -> tuple[int, int]:
        """Give bytes."""
        new_vector(self._address, len(data), data)
        size, pointer = VECTOR.unpack(self._out)
        return size, pointer

    def array(self, allocate: Callable[[int, int], None], count: int, content: bytes) -> tuple[int, int]:
        """Give an array of values or entries."""
        allocate(self._address, count)
        size, pointer = VECTOR.unpack(self._out)
        ctypes.memmove(pointer, content, len(content))
        return size, pointer

    def box(self, value: bytes) -> int:
        """Give one value."""
        return int(new_boxed(value))

    def rows(self, value: bytes) -> tuple[int, int]:
        """Give a list of bytes."""
        count, rows = len(value), self._rows
        if rows.count < count:
            rows = _Rows(1 << (count - 1).bit_length())
            if rows.count <= _KEPT_VALUES:
                self._rows = rows
        rows.fill(value)
        new_list(self._address, count)
        size, pointer = VECTOR.unpack(self._out)
        ctypes.memmove(pointer, rows.address, count * VALUE_BYTES)
        return size, pointer


Source = Lender | Giver
"""Where a value that is being made gets its memory from."""
