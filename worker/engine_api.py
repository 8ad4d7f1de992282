"""The part of the engine's C API that is used here, declared by hand, and Python's exceptions for its errors.

wasmtime's own package for Python declares all of it, 762 functions with a class or two each: 5.5 MB in every process
that is forked from the zygote, and a quarter of the zygote's start. Its library is used as it is; a test compares each
declaration below with the package's (tests/unit/test_engine_api.py).

A handle is an address. What was made for a program stays until the process ends, but for what a rehearsal made.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_ubyte, c_uint64, c_void_p
from typing import Any, Final

_out: Final = POINTER(c_void_p)

TRAP_INTERRUPT: Final = 10
TRAP_OUT_OF_FUEL: Final = 11
EXTERN_FUNC: Final = 0
COMPONENT_RESULT: Final = 19


class Bytes(ctypes.Structure):
    """`wasm_byte_vec_t`: owned by the engine's side until `bytes_delete`."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))


class Imports(ctypes.Structure):
    """`wasm_importtype_vec_t`."""

    _fields_ = (("size", c_size_t), ("data", _out))


class Exports(ctypes.Structure):
    """`wasm_exporttype_vec_t`."""

    _fields_ = (("size", c_size_t), ("data", _out))


class Func(ctypes.Structure):
    """`wasmtime_func_t`."""

    _fields_ = (("store_id", c_uint64), ("private", c_void_p))


class _ExternUnion(ctypes.Union):
    _fields_ = (("func", Func), ("other", c_uint64 * 3))


class Extern(ctypes.Structure):
    """`wasmtime_extern_t`; only functions are looked into."""

    _fields_ = (("kind", c_ubyte), ("of", _ExternUnion))


class Instance(ctypes.Structure):
    """`wasmtime_instance_t`."""

    _fields_ = (("store_id", c_uint64), ("private", c_size_t))


class ComponentFunc(ctypes.Structure):
    """`wasmtime_component_func_t`."""

    _fields_ = (("private", c_uint64 * 4),)


class ComponentInstance(ctypes.Structure):
    """`wasmtime_component_instance_t`."""

    _fields_ = (("private", c_uint64 * 2),)


class _ComponentResult(ctypes.Structure):
    _fields_ = (("is_ok", c_bool), ("value", c_void_p))


class _ComponentUnion(ctypes.Union):
    _fields_ = (("result", _ComponentResult), ("other", c_uint64 * 3))


class ComponentValue(ctypes.Structure):
    """`wasmtime_component_val_t`; only a `result` is looked into."""

    _fields_ = (("kind", c_ubyte), ("of", _ComponentUnion))


FINALIZER: Final = ctypes.CFUNCTYPE(None, c_void_p)
MEMORY_GET: Final = ctypes.CFUNCTYPE(c_size_t, c_void_p, POINTER(c_size_t), POINTER(c_size_t))
MEMORY_GROW: Final = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t)


class LinearMemory(ctypes.Structure):
    """`wasmtime_linear_memory_t`: what one memory is asked by."""

    _fields_ = (("env", c_void_p), ("get_memory", MEMORY_GET), ("grow_memory", MEMORY_GROW), ("finalizer", FINALIZER))


MEMORY_NEW: Final = ctypes.CFUNCTYPE(
    c_size_t, c_void_p, c_void_p, c_size_t, c_size_t, c_size_t, c_size_t, POINTER(LinearMemory)
)


class MemoryCreator(ctypes.Structure):
    """`wasmtime_memory_creator_t`."""

    _fields_ = (("env", c_void_p), ("new_memory", MEMORY_NEW), ("finalizer", FINALIZER))


def _find_library() -> str:
    spec = importlib.util.find_spec("wasmtime")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'wasmtime'", name="wasmtime")
    return os.path.join(spec.submodule_search_locations[0], f"linux-{os.uname().machine}", "_libwasmtime.so")


LIBRARY: Final = _find_library()
_LIBRARY: Final = ctypes.CDLL(LIBRARY)
declared: dict[str, Any] = {}
"""Every function below by its name in C: for the test that compares."""


def _declare(name: str, result: type[Any] | None, *arguments: type[Any]) -> Any:
    function = _LIBRARY[name]
    function.argtypes, function.restype = arguments, result
    declared[name] = function
    return function


bytes_delete = _declare("wasm_byte_vec_delete", None, POINTER(Bytes))
_error_new = _declare("wasmtime_error_new", c_void_p, c_char_p)
_error_delete = _declare("wasmtime_error_delete", None, c_void_p)
_error_message = _declare("wasmtime_error_message", None, c_void_p, POINTER(Bytes))
_error_exit_status = _declare("wasmtime_error_exit_status", c_bool, c_void_p, POINTER(c_int))
_trap_delete = _declare("wasm_trap_delete", None, c_void_p)
_trap_message = _declare("wasm_trap_message", None, c_void_p, POINTER(Bytes))
_trap_code = _declare("wasmtime_trap_code", c_bool, c_void_p, POINTER(c_ubyte))

config_new = _declare("wasm_config_new", c_void_p)
config_epoch_interruption = _declare("wasmtime_config_epoch_interruption_set", None, c_void_p, c_bool)
config_consume_fuel = _declare("wasmtime_config_consume_fuel_set", None, c_void_p, c_bool)
config_parallel_compilation = _declare("wasmtime_config_parallel_compilation_set", None, c_void_p, c_bool)
config_memory_init_cow = _declare("wasmtime_config_memory_init_cow_set", None, c_void_p, c_bool)
config_memory_creator = _declare("wasmtime_config_host_memory_creator_set", None, c_void_p, POINTER(MemoryCreator))
engine_new = _declare("wasm_engine_new_with_config", c_void_p, c_void_p)
engine_increment_epoch = _declare("wasmtime_engine_increment_epoch", None, c_void_p)

store_new = _declare("wasmtime_store_new", c_void_p, c_void_p, c_void_p, c_void_p)
store_delete = _declare("wasmtime_store_delete", None, c_void_p)
store_context = _declare("wasmtime_store_context", c_void_p, c_void_p)
store_limiter = _declare("wasmtime_store_limiter", None, c_void_p, c_int64, c_int64, c_int64, c_int64, c_int64)
context_set_epoch_deadline = _declare("wasmtime_context_set_epoch_deadline", None, c_void_p, c_uint64)
context_set_fuel = _declare("wasmtime_context_set_fuel", c_void_p, c_void_p, c_uint64)
context_get_fuel = _declare("wasmtime_context_get_fuel", c_void_p, c_void_p, POINTER(c_uint64))
context_set_wasi = _declare("wasmtime_context_set_wasi", c_void_p, c_void_p, c_void_p)

wasi_config_new = _declare("wasi_config_new", c_void_p)
wasi_config_set_argv = _declare("wasi_config_set_argv", c_bool, c_void_p, c_size_t, POINTER(c_char_p))
wasi_config_set_env = _declare("wasi_config_set_env", c_bool, c_void_p, c_size_t, POINTER(c_char_p), POINTER(c_char_p))
wasi_config_inherit_stdin = _declare("wasi_config_inherit_stdin", None, c_void_p)
wasi_config_inherit_stdout = _declare("wasi_config_inherit_stdout", None, c_void_p)
wasi_config_inherit_stderr = _declare("wasi_config_inherit_stderr", None, c_void_p)
wasi_config_preopen_dir = _declare("wasi_config_preopen_dir", c_bool, c_void_p, c_char_p, c_char_p, c_bool)

module_new = _declare("wasmtime_module_new", c_void_p, c_void_p, c_char_p, c_size_t, _out)
module_delete = _declare("wasmtime_module_delete", None, c_void_p)
module_serialize = _declare("wasmtime_module_serialize", c_void_p, c_void_p, POINTER(Bytes))
module_deserialize = _declare("wasmtime_module_deserialize", c_void_p, c_void_p, c_char_p, c_size_t, _out)
module_deserialize_file = _declare("wasmtime_module_deserialize_file", c_void_p, c_void_p, c_char_p, _out)
_module_imports = _declare("wasmtime_module_imports", None, c_void_p, POINTER(Imports))
_imports_delete = _declare("wasm_importtype_vec_delete", None, POINTER(Imports))
_import_module = _declare("wasm_importtype_module", POINTER(Bytes), c_void_p)
_import_name = _declare("wasm_importtype_name", POINTER(Bytes), c_void_p)
_module_exports = _declare("wasmtime_module_exports", None, c_void_p, POINTER(Exports))
_exports_delete = _declare("wasm_exporttype_vec_delete", None, POINTER(Exports))
_export_name = _declare("wasm_exporttype_name", POINTER(Bytes), c_void_p)
linker_new = _declare("wasmtime_linker_new", c_void_p, c_void_p)
linker_define_wasi = _declare("wasmtime_linker_define_wasi", c_void_p, c_void_p)
linker_get = _declare(
    "wasmtime_linker_get", c_bool, c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, POINTER(Extern)
)
extern_delete = _declare("wasmtime_extern_delete", None, POINTER(Extern))
linker_instantiate_pre = _declare("wasmtime_linker_instantiate_pre", c_void_p, c_void_p, c_void_p, _out)
instance_pre_delete = _declare("wasmtime_instance_pre_delete", None, c_void_p)
instance_pre_instantiate = _declare(
    "wasmtime_instance_pre_instantiate", c_void_p, c_void_p, c_void_p, POINTER(Instance), _out
)
instance_export_get = _declare(
    "wasmtime_instance_export_get", c_bool, c_void_p, POINTER(Instance), c_char_p, c_size_t, POINTER(Extern)
)
func_call = _declare(
    "wasmtime_func_call", c_void_p, c_void_p, POINTER(Func), c_void_p, c_size_t, c_void_p, c_size_t, _out
)

component_new = _declare("wasmtime_component_new", c_void_p, c_void_p, c_char_p, c_size_t, _out)
component_serialize = _declare("wasmtime_component_serialize", c_void_p, c_void_p, POINTER(Bytes))
component_deserialize = _declare("wasmtime_component_deserialize", c_void_p, c_void_p, c_char_p, c_size_t, _out)
component_deserialize_file = _declare("wasmtime_component_deserialize_file", c_void_p, c_void_p, c_char_p, _out)
_component_type = _declare("wasmtime_component_type", c_void_p, c_void_p)
_component_import_count = _declare("wasmtime_component_type_import_count", c_size_t, c_void_p, c_void_p)
_component_import = _declare(
    "wasmtime_component_type_import_nth", c_bool, c_void_p, c_void_p, c_size_t, _out, POINTER(c_size_t), _out
)
_component_export_count = _declare("wasmtime_component_type_export_count", c_size_t, c_void_p, c_void_p)
_component_export = _declare(
    "wasmtime_component_type_export_nth", c_bool, c_void_p, c_void_p, c_size_t, _out, POINTER(c_size_t), _out
)
_component_extern_delete = _declare("wasmtime_component_extern_delete", None, c_void_p)
component_linker_new = _declare("wasmtime_component_linker_new", c_void_p, c_void_p)
component_linker_add_wasip2 = _declare("wasmtime_component_linker_add_wasip2", c_void_p, c_void_p)
component_linker_instantiate = _declare(
    "wasmtime_component_linker_instantiate", c_void_p, c_void_p, c_void_p, c_void_p, POINTER(ComponentInstance)
)
component_instance_get_export_index = _declare(
    "wasmtime_component_instance_get_export_index",
    c_void_p,
    POINTER(ComponentInstance),
    c_void_p,
    c_void_p,
    c_char_p,
    c_size_t,
)
component_instance_get_func = _declare(
    "wasmtime_component_instance_get_func",
    c_bool,
    POINTER(ComponentInstance),
    c_void_p,
    c_void_p,
    POINTER(ComponentFunc),
)
component_func_call = _declare(
    "wasmtime_component_func_call",
    c_void_p,
    POINTER(ComponentFunc),
    c_void_p,
    c_void_p,
    c_size_t,
    POINTER(ComponentValue),
    c_size_t,
)


class EngineError(Exception):
    """What the engine said of a call that failed."""


class ExitError(EngineError):
    """Not an error but the program's own end: WASI's `proc_exit`, with its code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"it exited with {code}")
        self.code = code


class TrapError(EngineError):
    """The program was ended by the engine; `code` is one of TRAP_…, or None where there is none."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class CallError(EngineError):
    """A guest's function was called, and what it was given or gave can't be passed: the guest's own fault."""


def check(error: int | None, trap: c_void_p | None = None) -> None:
    """Raise what a call returned: its error, or the trap that it put into `trap`; both are freed."""
    if error:
        raise _take_error(error)
    if trap is not None and trap.value:
        raise _take_trap(trap.value)


def new_error(message: bytes) -> int:
    """Return a new error, for a callback to give away."""
    error: int | None = _error_new(message)
    return error or 0


def _take_error(error: int) -> EngineError:
    status = c_int()
    try:
        if _error_exit_status(error, ctypes.byref(status)):
            return ExitError(status.value)
        message = Bytes()
        _error_message(error, ctypes.byref(message))
        return EngineError(take_bytes(message).decode())
    finally:
        _error_delete(error)


def _take_trap(trap: int) -> TrapError:
    code = c_ubyte()
    known = _trap_code(trap, ctypes.byref(code))
    message = Bytes()
    _trap_message(trap, ctypes.byref(message))
    _trap_delete(trap)
    # Of C's kind: its last byte is 0.
    return TrapError(take_bytes(message)[:-1].decode(), code.value if known else None)


def take_bytes(vector: Bytes) -> bytes:
    """Copy what the engine filled in, and free it."""
    data = ctypes.string_at(vector.data, vector.size) if vector.size else b""
    bytes_delete(ctypes.byref(vector))
    return data


def made(call: Any, *arguments: object) -> int:
    """Make a call that returns an error, or puts a handle where its last argument says; return the handle."""
    handle = c_void_p()
    check(call(*arguments, ctypes.byref(handle)))
    assert handle.value
    return handle.value


def module_imports(module: int) -> list[tuple[str, str]]:
    """Return module and name of everything that a module imports."""
    types = Imports()
    _module_imports(module, ctypes.byref(types))
    found = [(_text(_import_module(handle)), _text(_import_name(handle))) for handle in types.data[: types.size]]
    _imports_delete(ctypes.byref(types))
    return found


def module_exports(module: int) -> list[str]:
    """Return the names of everything that a module exports."""
    types = Exports()
    _module_exports(module, ctypes.byref(types))
    found = [_text(_export_name(handle)) for handle in types.data[: types.size]]
    _exports_delete(ctypes.byref(types))
    return found


def component_imports(engine: int, component: int) -> list[str]:
    """Return the names of everything that a component imports."""
    return list(_component_names(engine, component, _component_import_count, _component_import))


def component_exports(engine: int, component: int) -> list[str]:
    """Return the names of everything that a component exports."""
    return list(_component_names(engine, component, _component_export_count, _component_export))


def _component_names(engine: int, component: int, count: Any, nth: Any) -> Iterator[str]:
    kind = _component_type(component)
    for number in range(count(kind, engine)):
        name, length, item = c_void_p(), c_size_t(), c_void_p()
        found = nth(kind, engine, number, ctypes.byref(name), ctypes.byref(length), ctypes.byref(item))
        assert found
        assert name.value is not None
        yield ctypes.string_at(name.value, length.value).decode()
        _component_extern_delete(item)


def texts(values: list[str]) -> ctypes.Array[c_char_p]:
    """Return an array of C strings."""
    return (c_char_p * len(values))(*(value.encode() for value in values))


def _text(name: Any) -> str:
    """Return a borrowed name; "" where there is none."""
    return ctypes.string_at(name.contents.data, name.contents.size).decode() if name and name.contents.size else ""
