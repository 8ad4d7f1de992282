"""`Component.toml` → `Manifest`: every section and key, whether this version enforces it or not."""

import hashlib
import os
from typing import Final

from ipc.struct import replace
from supervisor.config import units
from supervisor.config.quota_reader import read_quota
from supervisor.config.toml_reader import Check, Document, Section, describe, one_of
from supervisor.config.toml_source import ConfigFileError, KeyPath, Problem, TomlSource, parse_toml, read_toml_bytes
from supervisor.manifest import checks
from supervisor.manifest.template import variables_in
from supervisor.manifest.values import (
    BOOLEAN,
    CHOICE,
    DIRECTORY,
    FILE,
    INTEGER,
    PARAMETER_TYPES,
    STRING,
    Capabilities,
    Component,
    CustomCapability,
    FilesystemCapability,
    Limits,
    Manifest,
    MessagingCapability,
    Mount,
    NetworkCapability,
    Parameter,
    ParameterValue,
    Request,
    SecretsCapability,
    StorageCapability,
    Supervision,
)

MANIFEST_NAME: Final = "Component.toml"
SCHEMA: Final = 1
MAX_INTEGER: Final = 2**63 - 1
MAX_PARAMETERS: Final = 64
"""More than a person would set; bounds how deep defaults can refer to each other."""


class ManifestErrors(ConfigFileError):  # noqa: N818 - it is many, and its name says so
    """A manifest can't be used; carries every `Problem` that was found in it."""


def load_manifest(directory: str) -> Manifest:
    """Read and check `directory/Component.toml`, and that its wasm file lies beneath it; raise `ManifestErrors`."""
    file = os.path.join(directory, MANIFEST_NAME)
    real_directory = os.path.realpath(directory)
    try:
        data = read_toml_bytes(file, file)
        manifest = parse_manifest(data, file=file, directory=real_directory)
    except ManifestErrors:
        raise
    except ConfigFileError as error:
        problems = error.problems
        if _is_missing(file):
            hint = "a component is a directory with one; a bare program is named by its .wasm file"
            problems = tuple(replace(problem, hint=hint) for problem in problems)
        raise ManifestErrors(problems) from None
    _require_wasm_beneath(manifest)
    return manifest


def _is_missing(file: str) -> bool:
    try:
        os.lstat(file)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def parse_manifest(data: bytes, *, file: str, directory: str) -> Manifest:
    """Check the bytes of a manifest that stands in `directory` (absolute); raise `ManifestErrors`. Pure."""
    try:
        source = parse_toml(data, file)
    except ConfigFileError as error:
        raise ManifestErrors(error.problems) from None
    document = Document(source)
    manifest = read_document(document, directory, hashlib.sha256(data).hexdigest())
    if document.problems:
        raise ManifestErrors(tuple(document.problems))
    return manifest


def read_document(document: Document, directory: str, digest: str) -> Manifest:
    """Read every key of a manifest; what is wrong is noted in the document. `supervisor.config.schema` reads along."""
    return _ManifestReader(document).read(document.source, directory, digest)


def _require_wasm_beneath(manifest: Manifest) -> None:
    """Refuse a wasm file that is reached by a symbolic link out of the component's directory."""
    real = os.path.realpath(manifest.wasm_path)
    got = ""
    if not real.startswith(manifest.directory.rstrip("/") + "/"):
        got = f"a symbolic link to {real}"
    elif not os.path.exists(real):
        got = f"no file at {manifest.wasm_path}"
    elif not os.path.isfile(real):
        got = f"something that is no regular file at {manifest.wasm_path}"
    if got:
        expected = "a regular file beneath the component's directory"
        raise ManifestErrors((Problem(manifest.file, 0, "component.wasm", expected, got),))


class _ManifestReader:
    """Reads one document; the parameters come first, because everything else may refer to them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._parameters: dict[str, Parameter] = {}

    def read(self, source: TomlSource, directory: str, digest: str) -> Manifest:
        root = self._document.root
        root.fixed("schema", SCHEMA, missing=f"schema = {SCHEMA} as the first line")
        component = root.section("component")
        self._read_parameters(root.section("parameters"))
        capabilities = root.section("capabilities")
        optional = capabilities.section("optional")
        manifest = Manifest(
            file=source.file,
            directory=directory,
            digest=digest,
            component=self._component(component),
            parameters=tuple(self._parameters.values()),
            capabilities=self._capabilities(capabilities, required=True),
            optional=self._capabilities(optional, required=False),
            rationale=capabilities.text_map("rationale", checks.check_one_line),
            quota=read_quota(root.section("quota")),
            limits=self._limits(root.section("limits")),
            supervision=self._supervision(root.section("supervision")),
        )
        optional.finish()
        capabilities.finish()
        root.finish()
        self._cross_checks(manifest, capabilities)
        return manifest

    def _component(self, section: Section) -> Component:
        anywhere = self._text(checks.check_no_nul)
        component = Component(
            name=section.text("name", checks.check_name, required=True),
            version=section.text("version", checks.check_version, required=True),
            description=section.text("description", checks.check_one_line),
            wasm=section.text("wasm", checks.check_wasm_path, required=True),
            args=section.texts("args", anywhere, distinct=False),
            env=section.text_map("env", anywhere, checks.check_environment_name),
            mounts=self._mounts(section),
        )
        section.finish()
        return component

    def _mounts(self, section: Section) -> tuple[Mount, ...]:
        pairs = section.text_map("mounts", self._text(checks.check_absolute_path, path=True), checks.check_guest_path)
        path = (*section.path, "mounts")
        return tuple(Mount(guest, host, self._line((*path, guest))) for guest, host in pairs)

    def _text(self, check: Check, *, path: bool = False) -> Check:
        return checks.with_variables(self._parameters, check, path=path)

    def _line(self, path: KeyPath) -> int:
        return self._document.source.origin(path).line

    def _read_parameters(self, section: Section) -> None:
        if len(section.values) > MAX_PARAMETERS:
            self._document.add(section.path, f"at most {MAX_PARAMETERS} parameters", f"{len(section.values):,}")
            return
        defaults: list[tuple[Section, Parameter]] = []
        for name, inner in section.sections():
            expected = checks.check_parameter_name(name)
            if expected is not None:
                section.problem(name, expected, f'the key "{name}"')
            parameter = self._parameter(name, inner)
            inner.finish()
            self._parameters[name] = parameter
            defaults.append((inner, parameter))
        for inner, parameter in defaults:
            if isinstance(parameter.default, str):
                path = parameter.type in (DIRECTORY, FILE)
                check = checks.check_absolute_path if path else checks.check_no_nul
                inner.text("default", self._text(check, path=path))
        self._refuse_default_cycle(section)

    def _parameter(self, name: str, section: Section) -> Parameter:
        kind = section.choice("type", PARAMETER_TYPES, default=STRING, required=True)
        needed = "the choices, at least one"
        choices = section.texts("choices", checks.check_one_line, needed=needed) if kind == CHOICE else ()
        bounds = {
            key: section.integer(key, minimum=-MAX_INTEGER, maximum=MAX_INTEGER)
            for key in ("minimum", "maximum")
            if kind == INTEGER
        }
        return Parameter(
            name=name,
            type=kind,
            description=section.text("description", checks.check_one_line),
            default=self._default(section, kind, choices),
            choices=choices,
            minimum=bounds.get("minimum"),
            maximum=bounds.get("maximum"),
            line=self._line(section.path),
        )

    def _default(self, section: Section, kind: str, choices: tuple[str, ...]) -> ParameterValue | None:
        value = section.raw("default")
        if value is None:
            return None
        expected = ""
        if kind == BOOLEAN:
            expected = "" if isinstance(value, bool) else "true or false"
        elif kind == INTEGER:
            expected = "" if isinstance(value, int) and not isinstance(value, bool) else "an integer"
        elif kind == CHOICE:
            expected = "" if value in choices else one_of(choices) if choices else "one of the choices"
        elif not isinstance(value, str):
            expected = "a string"
        if expected:
            section.problem("default", expected, describe(value))
        return value if isinstance(value, str | int | bool) and not expected else None

    def _refuse_default_cycle(self, section: Section) -> None:
        visited: set[str] = set()
        for start in self._parameters:
            trail: list[str] = []
            pending = [iter((start,))]
            # Depth first, each parameter once.
            while pending:
                name = next(pending[-1], None)
                if name is None:
                    pending.pop()
                    if trail:
                        trail.pop()
                elif name in trail:
                    cycle = [*trail[trail.index(name) :], name]
                    section.problem(name, "defaults without a cycle", " → ".join(cycle))
                    return
                elif name in self._parameters and name not in visited:
                    visited.add(name)
                    trail.append(name)
                    pending.append(iter(self._used_by_default(name)))

    def _used_by_default(self, name: str) -> tuple[str, ...]:
        default = self._parameters[name].default
        used = variables_in(default) if isinstance(default, str) else ()
        return tuple(variable.parameter for variable in used if variable.parameter is not None)

    def _capabilities(self, section: Section, *, required: bool) -> Capabilities:
        filesystem, network = section.section("filesystem"), section.section("network")
        storage, messaging, secrets = (
            section.section("storage"),
            section.section("messaging"),
            section.section("secrets"),
        )

        def patterns(inner: Section, verb: str) -> tuple[Request, ...]:
            return self._requests(inner, verb, required)

        capabilities = Capabilities(
            filesystem=FilesystemCapability(*(patterns(filesystem, verb) for verb in ("read", "write", "list"))),
            network=NetworkCapability(self._connects(network, required), patterns(network, "listen")),
            storage=StorageCapability(patterns(storage, "read"), patterns(storage, "write")),
            messaging=MessagingCapability(
                *(patterns(messaging, verb) for verb in ("send", "receive", "publish", "subscribe"))
            ),
            secrets=SecretsCapability(self._secrets(secrets, required)),
            custom=tuple(self._custom(name, inner, required) for name, inner in section.section("custom").sections()),
        )
        for inner in (filesystem, network, storage, messaging, secrets):
            inner.finish()
        return capabilities

    def _requests(self, section: Section, verb: str, required: bool) -> tuple[Request, ...]:
        action = f"{section.path[-1]}.{verb}"
        check = self._text(checks.check_request(action), path=action.startswith("filesystem."))
        return self._each(section, verb, action, required, check)

    def _secrets(self, section: Section, required: bool) -> tuple[Request, ...]:
        return self._each(section, "env", "secrets.env", required, checks.check_environment_name)

    def _each(self, section: Section, key: str, action: str, required: bool, check: Check) -> tuple[Request, ...]:
        written = section.raw(key)
        texts = section.texts(key, check)
        index_of = (
            {text: index for index, text in enumerate(written) if isinstance(text, str)}
            if isinstance(written, list)
            else {}
        )
        return tuple(self._request(action, text, required, (*section.path, key, index_of[text])) for text in texts)

    def _request(
        self, action: str, resource: str, required: bool, path: KeyPath, methods: tuple[str, ...] = ()
    ) -> Request:
        origin = self._document.source.origin(path)
        key = ".".join(str(part) for part in path if isinstance(part, str))
        return Request(action, resource, required, key, origin.line, methods)

    def _connects(self, section: Section, required: bool) -> tuple[Request, ...]:
        check = self._text(checks.check_request("network.connect"))
        found: list[Request] = []
        for path, value in section.elements("connect"):
            if isinstance(value, dict):
                inner = self._document.section_at(path, value)
                url = inner.text("url", check, required=True)
                methods = inner.texts("methods", checks.check_method)
                if methods and url and "://" not in url and not variables_in(url):
                    inner.problem("methods", "methods beside a URL only", f'"{url}"')
                inner.finish()
                found.append(self._request("network.connect", url, required, path, methods))
            elif isinstance(value, str):
                expected = check(value)
                if expected is not None:
                    self._document.add(path, expected, describe(value))
                found.append(self._request("network.connect", value, required, path))
            else:
                self._document.add(path, "a string or a table { url, methods }", describe(value))
        return tuple(found)

    def _custom(self, name: str, section: Section, required: bool) -> CustomCapability:
        expected = checks.check_name(name)
        if expected is not None:
            section.problem(None, expected, f'the key "{name}"')
        actions = section.texts("actions", checks.check_action, needed="the actions that are asked for")
        metadata: list[tuple[str, ParameterValue]] = []
        inner = section.section("metadata")
        for key in inner.values:
            value = inner.scalar(key)
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                inner.problem(key, "an integer of 64 bits", describe(value))
            elif value is not None:
                metadata.append((key, value))
        section.finish()
        path = (*section.path, "actions")
        requests = tuple(
            replace(self._request(f"custom.{name}.{action}", "**", required, path), metadata=tuple(metadata))
            for action in actions
        )
        return CustomCapability(name, requests, tuple(metadata))

    def _limits(self, section: Section) -> Limits:
        limits = Limits(
            timeout_ns=section.quantity(
                "timeout", units.positive_only(units.parse_duration_ns, "a duration longer than zero")
            ),
            fuel=section.integer("fuel", minimum=1, maximum=MAX_INTEGER),
            output_bytes=section.quantity("output", units.finite_only(units.parse_size_bytes)),
            max_payload_bytes=section.quantity("max_payload", units.finite_only(units.parse_size_bytes)),
        )
        section.finish()
        return limits

    def _supervision(self, section: Section) -> Supervision:
        restarts = ("permanent", "transient", "temporary")
        restart = section.choice("restart", restarts, default="") or None
        supervision = Supervision(
            restart=restart,
            shutdown_ns=section.quantity("shutdown", units.parse_duration_ns),
            depends_on=section.texts("depends_on", checks.check_name),
        )
        section.finish()
        return supervision

    def _cross_checks(self, manifest: Manifest, capabilities: Section) -> None:
        component = self._document.root.section("component")
        environment = {name for name, _ in manifest.component.env}
        for request in manifest.requests():
            if request.action == "secrets.env" and request.resource in environment:
                component.section("env").problem(
                    request.resource, "a name that isn't a secret's too", f'"{request.resource}" in both'
                )
        asked = {request.action for request in manifest.requests()} | {"secrets.env"}
        rationale = capabilities.section("rationale")
        for key, _ in manifest.rationale:
            if key not in asked:
                choices = one_of(tuple(sorted(asked)))
                rationale.problem(key, f"an action that this manifest asks for ({choices})", f'the key "{key}"')
        if manifest.component.name in manifest.supervision.depends_on:
            self._document.add(
                ("supervision", "depends_on"),
                "dependencies without a cycle",
                f"{manifest.component.name} → {manifest.component.name}",
            )
