"""What `worker.engine_api` declares of the engine's C API is what wasmtime's own package declares."""

import ctypes

import pytest
from wasmtime import TrapCode, _ffi
from wasmtime import _bindings as package

from worker import engine_api as api

_STRUCTURES = {
    api.Bytes: package.wasm_byte_vec_t,
    api.Imports: package.wasm_importtype_vec_t,
    api.Exports: package.wasm_exporttype_vec_t,
    api.Func: package.wasmtime_func_t,
    api.Extern: package.wasmtime_extern_t,
    api.Instance: package.wasmtime_instance_t,
    api.ComponentFunc: package.wasmtime_component_func_t,
    api.ComponentInstance: package.wasmtime_component_instance_t,
    api.ComponentValue: package.wasmtime_component_val_t,
    api.LinearMemory: package.wasmtime_linear_memory_t,
    api.MemoryCreator: package.wasmtime_memory_creator_t,
}
_FUNCTIONS = {
    api.MEMORY_NEW: package.wasmtime_new_memory_callback_t,
    api.MEMORY_GET: package.wasmtime_memory_get_callback_t,
    api.MEMORY_GROW: package.wasmtime_memory_grow_callback_t,
}


def _kind(declared: object) -> object:
    """Return what of a type reaches the machine: a scalar's letter, a structure, what a pointer points to (or None)."""
    inner = getattr(declared, "_type_", None)
    if inner in ("P", "z") or (isinstance(declared, type) and issubclass(declared, ctypes._CFuncPtr)):
        return ("pointer", None)
    if isinstance(inner, str):
        return inner
    if inner is not None:
        return ("pointer", _kind(inner))
    return _STRUCTURES.get(declared, declared)  # type: ignore[call-overload]


def _same(ours: object, theirs: object) -> bool:
    return _matches(_kind(ours), _kind(theirs))


def _matches(mine: object, other: object) -> bool:
    if not (isinstance(mine, tuple) and isinstance(other, tuple)):
        return mine == other
    # We say `void *` where it doesn't matter to what; not where the package does.
    return mine[1] is None or _matches(mine[1], other[1])


@pytest.mark.parametrize("name", sorted(api.declared))
def test_a_function_is_declared_as_the_package_declares_it(name: str) -> None:
    """Result and arguments of each function are of the same kinds, as many, in the same order."""
    ours, theirs = api.declared[name], getattr(package, f"_{name}")
    assert len(ours.argtypes) == len(theirs.argtypes)
    assert _same(ours.restype, theirs.restype)
    for mine, other in zip(ours.argtypes, theirs.argtypes, strict=True):
        assert _same(mine, other), (mine, other)


@pytest.mark.parametrize("ours", _STRUCTURES, ids=lambda structure: structure.__name__)
def test_a_structure_has_the_packages_size(ours: type[ctypes.Structure]) -> None:
    """Each structure is as large, and aligned as, the package's: what the engine writes to it fits."""
    theirs = _STRUCTURES[ours]
    assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    assert ctypes.alignment(ours) == ctypes.alignment(theirs)


def test_what_is_looked_into_is_where_the_package_has_it() -> None:
    """The fields that are read, or filled in, are at the same places, of the same sizes."""
    looked_into = (api.Bytes, api.Imports, api.Exports, api.Extern, api.ComponentValue)
    for ours in (*looked_into, api.LinearMemory, api.MemoryCreator):
        for name, *_ in ours._fields_:
            mine, other = getattr(ours, name), getattr(_STRUCTURES[ours], name)
            assert (mine.offset, mine.size) == (other.offset, other.size), (ours, name)
    result, theirs = api._ComponentResult, package.wasmtime_component_valresult_t
    assert (result.is_ok.offset, result.is_ok.size) == (theirs.is_ok.offset, theirs.is_ok.size)
    assert package.wasmtime_component_valunion_t.result.offset == api._ComponentUnion.result.offset == 0
    assert package.wasmtime_extern_union_t.func.offset == api._ExternUnion.func.offset == 0


def test_a_callback_is_declared_as_the_package_declares_it() -> None:
    """The callbacks by which the engine asks for memory take and give what it passes."""
    for ours, theirs in _FUNCTIONS.items():
        assert _same(ours._restype_, theirs._restype_)
        assert len(ours._argtypes_) == len(theirs._argtypes_)
        assert all(map(_same, ours._argtypes_, theirs._argtypes_))


def test_the_numbers_are_the_packages() -> None:
    """The constants that are compared with what the engine says are the package's."""
    assert TrapCode.INTERRUPT.value == api.TRAP_INTERRUPT
    assert TrapCode.OUT_OF_FUEL.value == api.TRAP_OUT_OF_FUEL
    assert package.dll._name == api.LIBRARY
    assert _ffi.WASMTIME_EXTERN_FUNC.value == api.EXTERN_FUNC
    assert _ffi.WASMTIME_COMPONENT_RESULT.value == api.COMPONENT_RESULT
