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
