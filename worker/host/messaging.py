"""`host-messaging`: sending, requesting, publishing; who may do it is the broker's to say."""

from __future__ import annotations

from typing import Any

from ipc.broker.messages import Accepted, Broadcast, Cancel, Publish, Request, Send
from worker.broker_link import BrokerLink
from worker.host.types import (
    PAYLOAD,
    STRING,
    U32,
    U64,
    Asking,
    Functions,
    check_name,
    check_size,
    fallible,
    function,
    interface,
    refusable,
)
from worker.value_types import Ok

NAME = interface("host-messaging")


class Messaging:
    """Speaks for one component."""

    def __init__(self, link: BrokerLink, asking: Asking, name: str) -> None:
        """Bind the parts; `name` is what others call the component."""
        self._link = link
        self._ask = asking
        self._name = name

    def functions(self) -> Functions:
        """Return the interface."""
        return {
            "send": (fallible(STRING, PAYLOAD), refusable(self._send)),
            "request": (fallible(STRING, PAYLOAD, U32, returns=U64), refusable(self._request)),
            "cancel-request": (fallible(U64), refusable(self._cancel)),
            "broadcast": (fallible(PAYLOAD, returns=U32), refusable(self._broadcast)),
            "publish": (fallible(STRING, PAYLOAD, returns=U32), refusable(self._publish)),
            "self-id": (function(returns=STRING), self._self_id),
        }

    def _send(self, to: str, payload: bytes) -> Any:
        check_name(to, "the receiver's name")
        check_size(payload)
        self._ask(lambda seq: Send(seq, to, payload))
        return Ok()

    def _request(self, to: str, payload: bytes, timeout_ms: int) -> Any:
        check_name(to, "the receiver's name")
        check_size(payload)
        answer = self._ask(lambda seq: Request(seq, to, payload, timeout_ms))
        assert isinstance(answer, Accepted)
        return Ok(answer.correlation)

    def _cancel(self, correlation: int) -> Any:
        if not self._link.forget(correlation):
            self._ask(lambda seq: Cancel(seq, correlation))
            self._link.note_cancelled(correlation)
        return Ok()

    def _broadcast(self, payload: bytes) -> Any:
        check_size(payload)
        answer = self._ask(lambda seq: Broadcast(seq, payload))
        assert isinstance(answer, Accepted)
        return Ok(answer.count)

    def _publish(self, topic: str, payload: bytes) -> Any:
        check_name(topic, "the topic")
        check_size(payload)
        answer = self._ask(lambda seq: Publish(seq, topic, payload))
        assert isinstance(answer, Accepted)
        return Ok(answer.count)

    def _self_id(self) -> str:
        return self._name
