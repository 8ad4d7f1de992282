"""wasmtime's package for Python around handles of `worker.engine_api`, for what that doesn't declare: the types of a
component's functions, and functions of ours among its imports.

Only workers of actors and of calls load it, and compilers of components: it costs a process 5 MB (docs/adr/0014).
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import wasmtime
import wasmtime.component
from wasmtime import _ffi as ffi

from worker import engine_api as api
from worker.engine import Program

_kept: Final[list[object]] = []
"""An object that goes takes what it stands for along, which is not its own: none goes."""


def _around(kind: Any, handle: int, pointed: Any) -> Any:
    made = kind.__new__(kind)
    made._set_ptr(ctypes.cast(handle, ctypes.POINTER(pointed)))
    _kept.append(made)
    return made


def engine_of(handle: int) -> wasmtime.Engine:
    """Return the package's engine."""
    engine: wasmtime.Engine = _around(wasmtime.Engine, handle, ffi.wasm_engine_t)
    return engine


def store_of(handle: int, context: int, engine: wasmtime.Engine) -> wasmtime.Store:
    """Return the package's store."""
    store: wasmtime.Store = _around(wasmtime.Store, handle, ffi.wasmtime_store_t)
    store._Store__context = ctypes.cast(context, ctypes.POINTER(ffi.wasmtime_context_t))
    store.engine = engine
    return store


def component_of(handle: int) -> wasmtime.component.Component:
    """Return the package's component."""
    component: wasmtime.component.Component = _around(wasmtime.component.Component, handle, ffi.wasmtime_component_t)
    return component


def linker_of(handle: int, engine: wasmtime.Engine) -> wasmtime.component.Linker:
    """Return the package's linker of components."""
    linker: wasmtime.component.Linker = _around(wasmtime.component.Linker, handle, ffi.wasmtime_component_linker_t)
    linker.engine = engine
    linker.locked = False
    return linker


def functions_in(extern: Any, engine: wasmtime.Engine) -> dict[str, wasmtime.component.FuncType]:
    """Return the functions of an instance's type by name; types that are exported beside them are left out."""
    kind = extern.ty
    if not isinstance(kind, wasmtime.component.ComponentInstanceType):
        return {}
    found = {name: one.ty for name, one in kind.exports(engine).items()}
    return {name: one for name, one in found.items() if isinstance(one, wasmtime.component.FuncType)}


class Instance:
    """A component, instantiated: from here on it runs."""

    __slots__ = ("_instance", "store")

    def __init__(self, program: Program, linker: wasmtime.component.Linker) -> None:
        """Instantiate the program's component; raises EngineError."""
        assert program.component is not None
        self.store = store_of(program.store, program.context, linker.engine)
        try:
            self._instance = linker.instantiate(self.store, component_of(program.component))
        except wasmtime.WasmtimeError as error:
            raise api.EngineError(str(error)) from error

    def func(self, interface: str, name: str) -> wasmtime.component.Func:
        """Return an export that is there; an empty interface is the root."""
        parent = self._instance.get_export_index(self.store, interface) if interface else None
        index = self._instance.get_export_index(self.store, name, parent)
        assert index is not None
        func = self._instance.get_func(self.store, index)
        assert func is not None
        return func
