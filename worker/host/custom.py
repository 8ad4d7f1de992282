"""`custom`: capabilities that an operator provides."""

from __future__ import annotations

from typing import Any

from ipc.broker.messages import Invoke, Value
from worker.hatch import RESULT, Hatch
from worker.host.types import PAYLOAD, STRING, Asking, Functions, check_name, check_size, fallible, interface, refusable
from worker.value_types import Ok

NAME = interface("custom")


class Custom:
    """Asks for one component."""

    def __init__(self, asking: Asking, through: Hatch) -> None:
        """Bind the parts."""
        self._ask = asking
        self._hatch = through

    def functions(self) -> Functions:
        """Return the interface."""
        return {"invoke": (fallible(STRING, STRING, PAYLOAD, returns=PAYLOAD), refusable(self._invoke))}

    def _invoke(self, capability: str, action: str, payload: bytes) -> Any:
        check_name(capability, "the capability's name")
        check_name(action, "the action's name")
        check_size(payload)
        answer = self._ask(lambda seq: Invoke(seq, capability, action, payload))
        assert isinstance(answer, Value)
        return Ok(self._hatch.give(RESULT, answer.value or b""))
