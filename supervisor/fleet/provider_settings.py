"""`[providers.NAME]` of airssys.toml: what serves custom capabilities on this host. Pure."""

from __future__ import annotations

import re
from typing import Final

from ipc.struct import Struct
from supervisor.config import units
from supervisor.config.toml_reader import Section
from supervisor.manifest import checks

DEFAULT_TIMEOUT_NS: Final = 10 * 10**9
DEFAULT_PAYLOAD_BYTES: Final = 1_000_000
DEFAULT_MEMORY_BYTES: Final = 256 * 10**6
MIN_MEMORY_BYTES: Final = 16 * 10**6
PARALLEL_MAX: Final = 16
PROCESSES_MAX: Final = 32
"""Of all providers together: each may hold a payload in the broker's memory, either way."""
_ENTRY_POINT: Final = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
)


class ProviderSettings(Struct, frozen=True):
    """One provider: a Python entry point (`module:function`, looked for in `path`, too) or a command."""

    name: str
    capabilities: tuple[str, ...]
    python: str = ""
    path: str = ""
    command: tuple[str, ...] = ()
    timeout_ns: int = DEFAULT_TIMEOUT_NS
    max_payload_bytes: int = DEFAULT_PAYLOAD_BYTES
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    parallel: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def program(self) -> str:
        """What is run, in words."""
        return self.python or self.command[0]


def read_providers(section: Section) -> tuple[ProviderSettings, ...]:
    """Read the section; what is wrong is noted in the document."""
    found: list[ProviderSettings] = []
    served: dict[str, str] = {}
    for name, inner in section.sections():
        expected = checks.check_name(name)
        if expected is not None:
            section.problem(name, expected, f'the key "{name}"')
        provider = _read_provider(name, inner)
        found.append(provider)
        for capability in provider.capabilities:
            if capability in served:
                key = "capabilities" if "capabilities" in inner else None
                inner.problem(key, "a capability that one provider serves", f'"{capability}", as {served[capability]}')
            served.setdefault(capability, name)
    processes = sum(provider.parallel for provider in found)
    if processes > PROCESSES_MAX:
        section.problem(None, f"at most {PROCESSES_MAX} processes of all providers (parallel)", str(processes))
    return tuple(found)


def _read_provider(name: str, section: Section) -> ProviderSettings:
    from ipc.provider.protocol import settings_problem  # only where there is a provider: every command starts faster

    python = section.text("python", _check_entry_point)
    path = section.text("path", checks.check_absolute_path)
    command = section.texts("command", checks.check_no_nul, distinct=False)
    if ("python" in section) == ("command" in section):
        section.problem(None, "one of python and command", "both" if "python" in section else "neither")
    if "path" in section and "python" not in section:
        section.problem("path", "path beside python only", "command")
    if "command" in section and not (command and command[0].startswith("/")):
        section.problem("command", "an absolute path, and its arguments", "an array that does not begin with one")
    capabilities = section.texts("capabilities", checks.check_name)
    timeout_ns = section.quantity("timeout", _positive_duration)
    payload_bytes = section.quantity("max_payload", _payload)
    memory_bytes = section.quantity("memory", _memory)
    parallel = section.integer("parallel", minimum=1, maximum=PARALLEL_MAX)
    environment = section.text_map("env", checks.check_no_nul, checks.check_environment_name)
    settings = section.free_table("settings")
    expected = settings_problem(settings)
    if expected:
        section.problem("settings", expected, "something else")
    section.finish()
    return ProviderSettings(
        name=name,
        capabilities=capabilities or (name,),
        python=python,
        path=path,
        command=command,
        timeout_ns=DEFAULT_TIMEOUT_NS if timeout_ns is None else timeout_ns,
        max_payload_bytes=DEFAULT_PAYLOAD_BYTES if payload_bytes is None else payload_bytes,
        memory_bytes=DEFAULT_MEMORY_BYTES if memory_bytes is None else memory_bytes,
        parallel=parallel or 1,
        environment=environment,
        settings=tuple(settings.items()),
    )


def _check_entry_point(text: str) -> str | None:
    return None if _ENTRY_POINT.fullmatch(text) else 'an entry point, "module:function"'


def _positive_duration(text: str) -> int:
    duration_ns = units.parse_duration_ns(text)
    if not 10**6 <= duration_ns <= 3600 * 10**9:
        raise units.UnitError(text, "a duration from 1ms to 1h")
    return duration_ns


def _payload(text: str) -> int:
    from ipc.broker.messages import MAX_PAYLOAD_BYTES  # as above

    size_bytes = units.parse_size_bytes(text)
    if not 1 <= size_bytes <= MAX_PAYLOAD_BYTES:
        raise units.UnitError(text, f"a size of at most {units.format_size(MAX_PAYLOAD_BYTES)}")
    return size_bytes


def _memory(text: str) -> int:
    size_bytes = units.parse_size_bytes(text)
    if not MIN_MEMORY_BYTES <= size_bytes < units.UNLIMITED:
        raise units.UnitError(text, f"a size of at least {units.format_size(MIN_MEMORY_BYTES)}")
    return size_bytes
