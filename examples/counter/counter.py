"""Counts by name, durably: {"name": "visits", "add": 2} is answered by {"name": "visits", "count": 7}."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import storage
from wit_world.imports.types import Callback, ComponentMetadata, Error_Invalid, HealthStatus, Message


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config: bytes) -> None:
        pass

    def handle_message(self, message: Message) -> bytes:
        try:
            asked = json.loads(message.payload)
            name, add = str(asked["name"]), int(asked.get("add", 0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Err(Error_Invalid('expected {"name": TEXT, "add": NUMBER}')) from None
        return json.dumps({"name": name, "count": count(name, add)}).encode()

    def handle_callback(self, callback: Callback) -> None:
        pass

    def metadata(self) -> ComponentMetadata:
        return ComponentMetadata("counter", "1.0.0", "Counts by name")

    def health(self) -> HealthStatus:
        return HealthStatus.HEALTHY

    def shutdown(self) -> None:
        pass


def count(name: str, add: int) -> int:
    """Add to a count and return it. What the store refuses is raised as Err, and so goes to whoever asked."""
    key = f"count:{name}"
    while True:
        before = storage.get(key)
        after = int(before or b"0") + add
        # Nothing is lost if another instance counted in between: then this sets nothing, and we look again.
        if after == int(before or b"0") or storage.compare_and_set(key, before, str(after).encode()):
            return after
