"""What a manifest asks for in terms that two manifests share, whatever their parameters will be worth. Pure.

A variable becomes a mark that is equal in both manifests only where it must be worth the same in both: the same
directory, or a parameter with the same name, type, bounds and default.
"""

from __future__ import annotations

import hashlib

from ipc.policy.capability import FILE_ACTIONS, Grant
from ipc.policy.inclusion import UNKNOWN
from supervisor.manifest import Manifest, Parameter, Request
from supervisor.manifest.template import Variable, parse_template, variables_in


class Terms:
    """The texts of one manifest, with marks in place of variables."""

    def __init__(self, manifest: Manifest) -> None:
        """Look at the manifest's parameters."""
        self._parameters = {parameter.name: parameter for parameter in manifest.parameters}
        self._marks: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Return the text with its marks; what only looks like one is doubled, so that it never equals one."""
        return "".join(
            part.replace(UNKNOWN, UNKNOWN * 2) if isinstance(part, str) else self._mark(part)
            for part in parse_template(text)
        )

    def grant(self, request: Request) -> Grant:
        """Return the grant that the request would be."""
        text = request.resource if request.action == "secrets.env" else self.text(request.resource)
        if request.action in FILE_ACTIONS and not text.startswith("/"):
            text = f"/{text}"  # a variable that holds an absolute path stands at the beginning
        source = f"{request.key}:{request.line}"
        return Grant(request.action, text, source, request.required, request.methods, request.metadata)

    def _mark(self, variable: Variable) -> str:
        name = variable.name
        if name not in self._marks:
            parameter = self._parameters.get(variable.parameter or "")
            meaning = "" if parameter is None else self._meaning(parameter)
            self._marks[name] = f"{UNKNOWN}{name}{meaning}{UNKNOWN}"
        return self._marks[name]

    def _meaning(self, parameter: Parameter) -> str:
        """Return a digest of all that decides what the parameter will be worth; the parser refused cycles."""
        default = parameter.default
        if isinstance(default, str) and variables_in(default):
            default = self.text(default)
        decides = (parameter.type, type(default).__name__, default, parameter.choices)
        return hashlib.sha256(repr((decides, parameter.minimum, parameter.maximum)).encode()).hexdigest()[:16]
