"""What the author of a provider in Python imports: the request of a component's, and how to say no to it.

from ipc.provider import Refusal, Request

def serve(request: Request) -> bytes:
    if request.action != "read":
        raise Refusal("invalid", f"there is no action {request.action}")
    return b"..."
"""

from ipc.provider.protocol import Request
from ipc.provider.refusal import Refusal

__all__ = ["Refusal", "Request"]
