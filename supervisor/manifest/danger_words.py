"""Why a capability is as dangerous as it is said to be: what somebody could do with it who means ill. Pure."""

from __future__ import annotations

from typing import Final

_OWN: Final = "nothing but its own files is there"
_WHY: Final = {
    ("filesystem.read", "own"): _OWN,
    (
        "filesystem.read",
        "medium",
    ): "it learns what these files hold, and may pass it on by all else that it may do",
    ("filesystem.read", "high"): "people keep keys, passwords and private files there",
    ("filesystem.read", "critical"): "every secret of this machine that its user can read is among it",
    ("filesystem.list", "own"): _OWN,
    ("filesystem.list", "medium"): "it learns what is kept there, and nothing of what the files hold",
    ("filesystem.list", "high"): "it learns which keys, programs and private files there are, and not what they hold",
    ("filesystem.list", "critical"): "it learns the name of every file on this machine",
    ("filesystem.write", "own"): _OWN,
    (
        "filesystem.write",
        "high",
    ): "it may destroy or exchange what is there, and whoever uses that relies on it",
    ("filesystem.write", "critical"): "programs, settings or keys lie there: who changes them decides what runs next",
    (
        "network.connect",
        "high",
    ): "whatever it knows can leave this machine there, and what comes back is the other side's",
    ("network.connect", "critical"): "whatever it knows can leave this machine, to anybody",
    ("network.listen", "high"): "others on the network can reach it, and it can hand them what it knows",
    ("network.listen", "critical"): "anybody on the network can reach it, on any port",
    ("secrets.env", "high"): "it gets the secret itself, and can keep it or pass it on",
    ("storage.read", "low"): "it reads values of its own; under a key that begins with @, what others have shared",
    ("storage.read", "high"): "it reads all of its own values",
    ("storage.write", "medium"): "it changes values of its own; under a key that begins with @, what others rely on",
    ("storage.write", "high"): "it may change all of its own values",
    ("messaging.send", "medium"): "whom it sends to acts on it, with rights of their own",
    ("messaging.send", "high"): "any component can be made to act by it, with rights of its own",
    ("messaging.receive", "low"): "it learns what is sent to it",
    ("messaging.receive", "high"): "anybody's messages reach it",
    ("messaging.publish", "low"): "who has subscribed to it reads what it says",
    ("messaging.publish", "high"): "it speaks on every topic, and who has subscribed may act on that",
    ("messaging.subscribe", "low"): "it learns what is published there",
    ("messaging.subscribe", "high"): "it learns all that is published",
}
_CUSTOM: Final = "the provider does it with rights of its own, which nothing here limits further"


def why_dangerous(action: str, danger: str) -> str:
    """Return the reason in a clause; "" for a pair that is never given."""
    return _CUSTOM if action.startswith("custom.") else _WHY.get((action, danger), "")
