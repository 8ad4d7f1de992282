"""One call of one export of any component: its arguments are JSON, and so is what it returns.

The guest has WASI as a command has. What it prints itself goes to standard error: standard output has the result alone.
"""

from __future__ import annotations

import os
import re
from typing import Final

from ipc.messages import EngineSettings, Finished, WorkerJob
from ipc.struct import replace
from worker import engine_api as api
from worker import engine_package as package
from worker.abi import Function
from worker.engine import COMPONENT, Program, ProgramError, Runner, provided, refuse_missing
from worker.exported import Exported, NoSuchFunctionError, find, functions_of
from worker.json_values import JsonError, arguments_of, json_text
from worker.value_types import Err

_STDOUT: Final = 1
_STDERR: Final = 2
_MESSAGE_CHARACTERS: Final = 8_000
"""Names are the component's to choose, and a packet is bounded."""
_OWN_INTERFACES: Final = "airssys:core/"
_ASKED: Final = re.compile(r"unknown import: `([^`]{1,100})` has not been defined")
"""What the engine says of a function that is called and isn't there."""


def divide_streams() -> int:
    """Have what the guest prints go to standard error; return the descriptor of standard output, for the result."""
    result = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    return result


class Call:
    """A component, loaded, with the function that is to be called and its arguments."""

    def __init__(
        self, runner: Runner, settings: EngineSettings, job: WorkerJob, artifact: str | bytes, output: int
    ) -> None:
        """Load the component; nothing of it runs. The result goes to `output`. Raises ProgramError."""
        assert job.call is not None
        if job.wasm_kind != COMPONENT:
            raise ProgramError("it is a core module, whose functions have no WIT types: make it a component first")
        self._call, self._limits = job.call, job.limits
        self._runner = runner
        self._output = output
        self._exported: Exported
        self.program = Program.load(runner, settings, job, artifact, self._check)

    def _check(self, component: int) -> None:
        """Find the function and read its arguments."""
        imports = api.component_imports(self._runner.engine, component)
        self._is_actor = any(name.startswith(_OWN_INTERFACES) for name in imports)
        refuse_missing([name for name in imports if not (provided(name) or name.startswith(_OWN_INTERFACES))])
        try:
            exported = find(functions_of(component, self._runner.engine), self._call.interface, self._call.function)
        except NoSuchFunctionError as error:
            raise ProgramError(str(error)[:_MESSAGE_CHARACTERS]) from error
        if exported.signature is None:
            raise ProgramError(f"{exported.full_name} can't be called: {exported.unfit}"[:_MESSAGE_CHARACTERS])
        try:
            self._arguments = arguments_of(self._call.arguments, exported.signature)
        except JsonError as error:
            message = f"{error}\nit is {exported.full_name}: {exported.words}"
            raise ProgramError(message[:_MESSAGE_CHARACTERS]) from error
        self._exported, self._signature = exported, exported.signature

    def run(self) -> Finished:
        """Call it to its end; whatever it does becomes a value. A result that is an error has the exit code 1."""
        try:
            finished = self.program.finished_by(self._run)
        except MemoryError:
            message = "the values of the call need more memory than its limit"
            return Finished("limit", 75, message, "memory", self._limits.memory_bytes)
        except OSError as error:
            return Finished("host_error", 70, f"its result can't be written: {os.strerror(error.errno or 0)}")
        asked = _ASKED.search(finished.message) if self._is_actor else None
        if asked is not None:
            message = f"it asked {asked[1]}, which answers under `airssys up` alone"
            return replace(finished, outcome="trapped", exit_code=134, message=message)
        return finished

    def _run(self) -> int:
        linker = package.linker_of(self._runner.components, package.engine_of(self._runner.engine))
        if self._is_actor:
            assert self.program.component is not None
            # Nobody is there whom it could ask: a function that tries is ended, and told of by name.
            linker.define_unknown_imports_as_traps(package.component_of(self.program.component))
        instance = package.Instance(self.program, linker)
        func = instance.func(self._exported.interface, self._exported.name)
        value = Function(instance.store, func)(*self._arguments)
        document = memoryview(json_text(value, self._signature.result).encode() + b"\n")
        while document:
            document = document[os.write(self._output, document) :]
        return int(isinstance(value, Err))
