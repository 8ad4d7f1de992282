"""`capabilities`: what the component was granted. It only tells: whatever is done is decided again where it is done."""

from __future__ import annotations

from ipc import codec
from ipc.policy.capability import is_action
from ipc.policy.decision import Allow, PolicyDocument, compile_policy
from worker.host.types import STRING, Functions, function, interface
from worker.value_types import Bool, List

NAME = interface("capabilities")


class Capabilities:
    """Knows the grants of one component."""

    def __init__(self, document: bytes) -> None:
        """Take a packed PolicyDocument."""
        self._document = PolicyDocument.from_wire(codec.unpack_map(document, len(document)))
        self._policy = compile_policy(self._document)

    def functions(self) -> Functions:
        """Return the interface."""
        return {
            "granted": (function(returns=List(STRING)), self._granted),
            "allows": (function(STRING, STRING, returns=Bool()), self._allows),
        }

    def _granted(self) -> list[str]:
        # Names of files can be no UTF-8; text of a component always is.
        return [
            f"{grant.action}:{grant.pattern_text}".encode("utf-8", "replace").decode()
            for grant in self._document.grants
        ]

    def _allows(self, action: str, resource: str) -> bool:
        return is_action(action) and isinstance(self._policy.decide(action, resource), Allow)
