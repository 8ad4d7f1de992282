"""How far a component is trusted: because of where it came from or who signed it, never because of what it says."""

from typing import Literal

TrustLevel = Literal["trusted", "unknown", "dev"]
