"""Digests of files: {"file": "orders.csv"} is answered by its size, lines and SHA-256, which are in a report too."""

import hashlib
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Callback, ComponentMetadata, Error_Failed, Error_Invalid, HealthStatus, Message


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config: bytes) -> None:
        pass

    def handle_message(self, message: Message) -> bytes:
        try:
            name = str(json.loads(message.payload)["file"])
        except (ValueError, KeyError, TypeError):
            raise Err(Error_Invalid('expected {"file": NAME}')) from None
        try:
            report = json.dumps(digest(name))
            with open(f"/out/{name}.json", "w") as file:
                file.write(report)
        except OSError as error:
            # What isn't granted, and what isn't there: the warden has decided, and it is an error like any other.
            raise Err(Error_Failed(f"{name}: {error.strerror}")) from None
        return report.encode()

    def handle_callback(self, callback: Callback) -> None:
        pass

    def metadata(self) -> ComponentMetadata:
        return ComponentMetadata("digest", "1.0.0", "Digests of files")

    def health(self) -> HealthStatus:
        return HealthStatus.HEALTHY

    def shutdown(self) -> None:
        pass


def digest(name: str) -> dict[str, object]:
    """Read a file of the granted directory to its end, and say what is in it."""
    sha256, size, lines = hashlib.sha256(), 0, 0
    with open(f"/in/{name}", "rb") as file:
        while part := file.read(65536):
            sha256.update(part)
            size += len(part)
            lines += part.count(b"\n")
    return {"file": name, "bytes": size, "lines": lines, "sha256": sha256.hexdigest()}
