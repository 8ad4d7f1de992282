"""What a `Component.toml` says, as values: a request by the component's author, never a grant.

Texts of capabilities, mounts, arguments and environment still hold their `${…}` variables here; `bind` fills them in.
"""

from collections.abc import Iterator
from typing import Final

from ipc.policy.capability import Metadata
from ipc.struct import Struct
from supervisor.config.quota import Quota as Quota

ParameterValue = str | int | bool

DIRECTORY: Final = "directory"
FILE: Final = "file"
STRING: Final = "string"
INTEGER: Final = "integer"
BOOLEAN: Final = "boolean"
CHOICE: Final = "choice"
PARAMETER_TYPES: Final = (DIRECTORY, FILE, STRING, INTEGER, BOOLEAN, CHOICE)


class Component(Struct, frozen=True):
    """Section `[component]`: what it is called and how it is started. `wasm` is relative to the manifest."""

    name: str
    version: str
    description: str
    wasm: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    mounts: tuple["Mount", ...]


class Mount(Struct, frozen=True):
    """Under which name the guest sees a host directory; `guest` is absolute or `.`. Grants nothing."""

    guest: str
    host: str
    line: int = 0


class Parameter(Struct, frozen=True):
    """Something only the host can know. A `default` may hold variables; None means that it has to be set."""

    name: str
    type: str
    description: str
    default: ParameterValue | None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    line: int = 0


class Request(Struct, frozen=True):
    """One thing that a manifest asks for: an action on a resource, as it is written."""

    action: str
    resource: str
    required: bool
    key: str
    line: int
    methods: tuple[str, ...] = ()
    metadata: Metadata = ()


class FilesystemCapability(Struct, frozen=True):
    """`capabilities.filesystem`: path patterns."""

    read: tuple[Request, ...] = ()
    write: tuple[Request, ...] = ()
    list: tuple[Request, ...] = ()


class NetworkCapability(Struct, frozen=True):
    """`capabilities.network`: URLs or `host:port` to connect to, `address:port` to listen on."""

    connect: tuple[Request, ...] = ()
    listen: tuple[Request, ...] = ()


class StorageCapability(Struct, frozen=True):
    """`capabilities.storage`: patterns of keys, separated by `:`."""

    read: tuple[Request, ...] = ()
    write: tuple[Request, ...] = ()


class MessagingCapability(Struct, frozen=True):
    """`capabilities.messaging`: patterns of component names, and of topics separated by `.`."""

    send: tuple[Request, ...] = ()
    receive: tuple[Request, ...] = ()
    publish: tuple[Request, ...] = ()
    subscribe: tuple[Request, ...] = ()


class SecretsCapability(Struct, frozen=True):
    """`capabilities.secrets`: environment variables whose value comes from the host."""

    env: tuple[Request, ...] = ()


class CustomCapability(Struct, frozen=True):
    """`capabilities.custom.NAME`: actions that some other component understands."""

    name: str
    actions: tuple[Request, ...]
    metadata: tuple[tuple[str, ParameterValue], ...]


class Capabilities(Struct, frozen=True):
    """`[capabilities]`, or `[capabilities.optional]` where a refusal doesn't keep the component from starting."""

    filesystem: FilesystemCapability = FilesystemCapability()
    network: NetworkCapability = NetworkCapability()
    storage: StorageCapability = StorageCapability()
    messaging: MessagingCapability = MessagingCapability()
    secrets: SecretsCapability = SecretsCapability()
    custom: tuple[CustomCapability, ...] = ()

    def requests(self) -> Iterator[Request]:
        """Yield everything that is asked for, in the order of the reference page."""
        yield from (*self.filesystem.read, *self.filesystem.write, *self.filesystem.list)
        yield from (*self.network.connect, *self.network.listen)
        yield from (*self.storage.read, *self.storage.write)
        yield from (*self.messaging.send, *self.messaging.receive, *self.messaging.publish, *self.messaging.subscribe)
        yield from self.secrets.env
        for custom in self.custom:
            yield from custom.actions


class Limits(Struct, frozen=True):
    """`[limits]`; None where nothing is written. `output_bytes` counts stdout and stderr together."""

    timeout_ns: int | None = None
    fuel: int | None = None
    output_bytes: int | None = None
    max_payload_bytes: int | None = None


class Supervision(Struct, frozen=True):
    """`[supervision]`; None where nothing is written."""

    restart: str | None = None
    shutdown_ns: int | None = None
    depends_on: tuple[str, ...] = ()


class Manifest(Struct, frozen=True):
    """A whole `Component.toml`: its path, the absolute directory that holds it, its SHA-256, and what it says."""

    file: str
    directory: str
    digest: str
    component: Component
    parameters: tuple[Parameter, ...]
    capabilities: Capabilities
    optional: Capabilities
    rationale: tuple[tuple[str, str], ...]
    quota: Quota
    limits: Limits
    supervision: Supervision

    def requests(self) -> Iterator[Request]:
        """Yield everything that is asked for, what is required first."""
        yield from self.capabilities.requests()
        yield from self.optional.requests()

    @property
    def wasm_path(self) -> str:
        """The absolute path of the WebAssembly file."""
        return f"{self.directory.rstrip('/')}/{self.component.wasm}"
