"""A manifest and what only the host knows → grants, mounts, arguments and environment with every variable filled in.

Pure: the current directory is an argument, and so is the function that finds a path's real name.
"""

import os.path
import re
from collections.abc import Callable, Mapping
from typing import Final

from ipc.policy.capability import Grant, pattern_problem
from ipc.struct import Struct
from supervisor.config.toml_reader import describe, one_of
from supervisor.config.toml_source import Problem
from supervisor.manifest import checks
from supervisor.manifest.parse import MANIFEST_NAME, ManifestErrors
from supervisor.manifest.template import PATTERN_CHARACTERS, TemplateError, Variable, substitute
from supervisor.manifest.values import (
    BOOLEAN,
    CHOICE,
    DIRECTORY,
    FILE,
    INTEGER,
    Manifest,
    Parameter,
    ParameterValue,
    Request,
)

MAX_VALUE_CHARACTERS: Final = 4096


class Variables(Struct, frozen=True):
    """The directories behind `${component}`, `${data}` and `${tmp}`: absolute real paths."""

    component: str
    data: str
    tmp: str


class BoundMount(Struct, frozen=True):
    """A host directory and the name by which the guest sees it."""

    guest: str
    host: str


class BoundSecret(Struct, frozen=True):
    """A secret's name; its value is fetched at the start and kept nowhere."""

    name: str
    required: bool


class BoundManifest(Struct, frozen=True):
    """What a component asks for on this host, nothing of it granted yet."""

    manifest: Manifest
    parameters: tuple[tuple[str, ParameterValue], ...]
    variables: Variables
    grants: tuple[Grant, ...]
    mounts: tuple[BoundMount, ...]
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    secrets: tuple[BoundSecret, ...]


def same_path(path: str) -> str:
    """Return the path unchanged: the default for `real_path`, where no file system is to be asked."""
    return path


def bind(
    manifest: Manifest,
    parameters: Mapping[str, ParameterValue],
    variables: Variables,
    *,
    cwd: str = "/",
    real_path: Callable[[str], str] = same_path,
) -> BoundManifest:
    """Fill in every variable; raise `ManifestErrors` with each parameter that is missing or wrong.

    Values come as typed by a person (`--set`, all strings) or from `airssys.toml` (typed). Relative paths are taken
    from `cwd`; `real_path` (`os.path.realpath`) resolves their symbolic links: patterns are judged on real objects.
    """
    binder = _Binder(manifest, parameters, variables, cwd, real_path)
    bound = binder.bind()
    if binder.problems:
        raise ManifestErrors(tuple(binder.problems))
    return bound


class _Binder:
    """One binding: values resolved on demand, so that defaults may refer to each other; problems are collected."""

    def __init__(
        self,
        manifest: Manifest,
        parameters: Mapping[str, ParameterValue],
        variables: Variables,
        cwd: str,
        real_path: Callable[[str], str],
    ) -> None:
        self.problems: list[Problem] = []
        self.missing: list[Parameter] = []
        self._manifest = manifest
        self._given = parameters
        self._variables = variables
        self._cwd = cwd
        self._real_path = real_path
        self._declared = {parameter.name: parameter for parameter in manifest.parameters}
        self._values: dict[str, ParameterValue] = {}

    def bind(self) -> BoundManifest:
        manifest = self._manifest
        for name in self._given:
            if name not in self._declared:
                declared = one_of(tuple(self._declared)) if self._declared else "no parameter at all"
                self._problem(f"parameters.{name}", 0, declared, f'the unknown parameter "{name}"')
        directories = (
            ("component", self._variables.component),
            ("data", self._variables.data),
            ("tmp", self._variables.tmp),
        )
        for name, directory in directories:
            expected = _check_value_path(directory)
            if expected is not None:
                self._problem(
                    f"${{{name}}}", 0, expected, describe(directory), "move it to a place without such characters"
                )
        for parameter in manifest.parameters:
            self._resolve(parameter)
        for parameter in self.missing:
            what = f" ({parameter.description})" if parameter.description else ""
            hint = f"--set {parameter.name}=VALUE{what}"
            self._problem(
                f"parameters.{parameter.name}", parameter.line, f"a value of type {parameter.type}", "nothing", hint
            )
        if self.problems:
            # What follows could only repeat the same problems in other words.
            return BoundManifest(manifest, (), self._variables, (), (), (), (), ())
        component = manifest.component
        return BoundManifest(
            manifest=manifest,
            parameters=tuple(self._values.items()),
            variables=self._variables,
            grants=tuple(self._grant(request) for request in manifest.requests()),
            mounts=tuple(self._mount(mount.guest, mount.host, mount.line) for mount in component.mounts),
            args=tuple(self._expand(text, f"component.args[{index}]", 0) for index, text in enumerate(component.args)),
            env=tuple((name, self._expand(text, f"component.env.{name}", 0)) for name, text in component.env),
            secrets=tuple(
                BoundSecret(request.resource, request.required)
                for request in manifest.requests()
                if request.action == "secrets.env"
            ),
        )

    def _problem(self, key: str, line: int, expected: str, got: str, hint: str = "") -> None:
        self.problems.append(Problem(self._manifest.file, line, key, expected, got, hint))

    def _grant(self, request: Request) -> Grant:
        text = (
            request.resource
            if request.action == "secrets.env"
            else self._expand(request.resource, request.key, request.line)
        )
        reason = pattern_problem(request.action, text)
        if reason is not None and not self.problems:
            self._problem(
                request.key, request.line, f"a pattern once the variables are filled in ({reason})", describe(text)
            )
        source = f"{MANIFEST_NAME}:{request.line}"
        return Grant(request.action, text, source, request.required, request.methods, request.metadata)

    def _mount(self, guest: str, host: str, line: int) -> BoundMount:
        text = self._expand(host, f'component.mounts."{guest}"', line)
        expected = _check_value_path(text)
        if expected is not None and not self.problems:
            self._problem(f'component.mounts."{guest}"', line, expected, describe(text))
        return BoundMount(guest, text.rstrip("/") or "/")

    def _expand(self, text: str, key: str, line: int) -> str:
        try:
            return substitute(text, self._value_of)
        except TemplateError as error:
            self._problem(key, line, error.expected, "more")
            return ""

    def _value_of(self, variable: Variable) -> str:
        name = variable.parameter
        if name is None:
            directories = {
                "component": self._variables.component,
                "data": self._variables.data,
                "tmp": self._variables.tmp,
            }
            return directories[variable.name].rstrip("/") or "/"
        value = self._values.get(name)
        if value is None and name in self._declared:
            value = self._resolve(self._declared[name])
        return str(value).lower() if isinstance(value, bool) else str(value if value is not None else "")

    def _resolve(self, parameter: Parameter) -> ParameterValue | None:
        """Return a parameter's value from what was given or from its default, which the parser found free of cycles."""
        if parameter.name in self._values:
            return self._values[parameter.name]
        if parameter.name in self._given:
            value: ParameterValue | None = self._given[parameter.name]
            origin = "given"
        else:
            value = parameter.default
            origin = "default"
            if isinstance(value, str) and parameter.type != CHOICE:
                value = self._expand(value, f"parameters.{parameter.name}.default", parameter.line)
        if value is None:
            if parameter not in self.missing:
                self.missing.append(parameter)
            return None
        typed, expected = _typed(parameter, value, self._cwd)
        if expected:
            where = f"parameters.{parameter.name}" + (".default" if origin == "default" else "")
            self._problem(where, parameter.line if origin == "default" else 0, expected, describe(value))
            typed = value
        elif isinstance(typed, str) and parameter.type in (DIRECTORY, FILE):
            typed = self._real_path(typed)
            again = _check_value_path(typed)
            if again is not None:
                self._problem(
                    f"parameters.{parameter.name}", 0, again, f"{describe(value)}, whose real path is {describe(typed)}"
                )
        self._values[parameter.name] = typed
        return typed


def _typed(parameter: Parameter, value: ParameterValue, cwd: str) -> tuple[ParameterValue, str]:
    """Return the value as the parameter's type, and what was expected instead where it isn't one."""
    if parameter.type == BOOLEAN:
        if isinstance(value, bool):
            return value, ""
        return value == "true", "" if value in ("true", "false") else "true or false"
    if parameter.type == INTEGER:
        return _integer(parameter, value)
    if isinstance(value, bool | int):
        return value, f"a {parameter.type}, written as a string"
    if parameter.type == CHOICE:
        return value, "" if value in parameter.choices else one_of(parameter.choices)
    if parameter.type in (DIRECTORY, FILE):
        path = value if value.startswith("/") else f"{cwd.rstrip('/')}/{value}"
        expected = _check_value_path(path) if value else f"the path of a {parameter.type}"
        return os.path.normpath(path), expected or ""
    return value, _check_text(value) or ""


def _integer(parameter: Parameter, value: ParameterValue) -> tuple[ParameterValue, str]:
    low, high = parameter.minimum, parameter.maximum
    expected = (
        "an integer"
        + (f" of at least {low}" if low is not None else "")
        + (f" up to {high}" if high is not None else "")
    )
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value)):
        return value, expected
    number = int(value)
    in_bounds = (low is None or number >= low) and (high is None or number <= high) and abs(number) < 2**63
    return number, "" if in_bounds else expected


def _check_text(text: str) -> str | None:
    """What a value may hold that could end up in a pattern."""
    if any(character in PATTERN_CHARACTERS for character in text):
        return f"a value without the pattern characters {PATTERN_CHARACTERS}"
    if ".." in text.split("/"):
        return 'a value without a ".." segment'
    if "${" in text or not text.isprintable() or len(text) > MAX_VALUE_CHARACTERS:
        return f"at most {MAX_VALUE_CHARACTERS:,} printable characters, without ${{"
    return None


def _check_value_path(path: str) -> str | None:
    """What a path may hold that could end up in a pattern."""
    wrong = _check_text(path)
    if wrong is not None:
        return wrong
    return checks.check_absolute_path(os.path.normpath(path) if path else path)
