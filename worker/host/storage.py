"""`storage`: the component's own namespace, kept by the broker; what has returned is durable."""

from __future__ import annotations

from typing import Any

from ipc.broker.messages import (
    MAX_KEY_BYTES,
    MAX_LISTED,
    Accepted,
    CompareAndSet,
    Delete,
    Exists,
    Get,
    ListKeys,
    Names,
    Numbers,
    Set,
    Usage,
    Value,
)
from worker.hatch import RESULT, Hatch
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
    interface,
    refusable,
)
from worker.value_types import Bool, List, Ok, Option, Tuple

NAME = interface("storage")
UNLIMITED = (1 << 64) - 1
"""What `usage` gives as the limit where there is none."""


class Storage:
    """Asks for one component."""

    def __init__(self, asking: Asking, through: Hatch) -> None:
        """Bind the parts."""
        self._ask = asking
        self._hatch = through

    def functions(self) -> Functions:
        """Return the interface."""
        optional = Option(PAYLOAD)
        return {
            "get": (fallible(STRING, returns=optional), refusable(self._get)),
            "set": (fallible(STRING, PAYLOAD), refusable(self._set)),
            "delete": (fallible(STRING, returns=Bool()), refusable(self._delete)),
            "exists": (fallible(STRING, returns=Bool()), refusable(self._exists)),
            "list-keys": (fallible(STRING, STRING, U32, returns=List(STRING)), refusable(self._list_keys)),
            "usage": (fallible(returns=Tuple((U64, U64))), refusable(self._usage)),
            "compare-and-set": (
                fallible(STRING, optional, optional, returns=Bool()),
                refusable(self._compare_and_set),
            ),
        }

    def _get(self, key: str) -> Any:
        check_name(key, "the key", MAX_KEY_BYTES)
        answer = self._ask(lambda seq: Get(seq, key))
        assert isinstance(answer, Value)
        return Ok(None if answer.value is None else self._hatch.give(RESULT, answer.value))

    def _set(self, key: str, value: bytes) -> Any:
        check_name(key, "the key", MAX_KEY_BYTES)
        check_size(value)
        self._ask(lambda seq: Set(seq, key, value))
        return Ok()

    def _delete(self, key: str) -> Any:
        check_name(key, "the key", MAX_KEY_BYTES)
        return self._whether(self._ask(lambda seq: Delete(seq, key)))

    def _exists(self, key: str) -> Any:
        check_name(key, "the key", MAX_KEY_BYTES)
        return self._whether(self._ask(lambda seq: Exists(seq, key)))

    def _list_keys(self, prefix: str, after: str, limit: int) -> Any:
        check_name(prefix, "the prefix", MAX_KEY_BYTES)
        check_name(after, "the key", MAX_KEY_BYTES)
        answer = self._ask(lambda seq: ListKeys(seq, prefix, after, min(limit, MAX_LISTED)))
        assert isinstance(answer, Names)
        return Ok(list(answer.names))

    def _usage(self) -> Any:
        answer = self._ask(Usage)
        assert isinstance(answer, Numbers)
        usage, limit = answer.numbers[:2]
        return Ok((usage, UNLIMITED if limit < 0 else limit))

    def _compare_and_set(self, key: str, expected: bytes | None, value: bytes | None) -> Any:
        check_name(key, "the key", MAX_KEY_BYTES)
        check_size(expected, value)
        return self._whether(self._ask(lambda seq: CompareAndSet(seq, key, expected, value)))

    @staticmethod
    def _whether(answer: object) -> Ok:
        assert isinstance(answer, Accepted)
        return Ok(answer.count != 0)
