"""Who gets what is published on a topic. Pure.

The patterns of all live components' `messaging.subscribe` grants are one index. A topic is looked up once, each
component found decides on it by its whole policy, and the answer is kept until somebody comes or goes.
"""

from __future__ import annotations

from typing import Final

from ipc.broker.sessions import Session
from ipc.policy.decision import Allow
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import Pattern
from ipc.policy.rules import host_pattern

ACTION: Final = "messaging.subscribe"
TOPICS_MAX: Final = 1_024
"""Topics of which the subscribers are kept; beyond, the one that was looked up first goes. A publisher with ever new
topics costs itself a look-up each time, and others one."""


class Subscriptions:
    """The index, and the subscribers of the topics that were published on lately."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._by_pattern: dict[str, dict[str, Session]] = {}
        self._texts: tuple[str, ...] = ()
        self._index: PatternIndex | None = None
        self._topics: dict[str, tuple[Session, ...]] = {}

    def add(self, session: Session) -> None:
        """A component has come."""
        for text in session.rights.granted(ACTION):
            if text not in self._by_pattern:
                self._index = None
            self._by_pattern.setdefault(text, {})[session.instance] = session
        self._topics.clear()

    def remove(self, session: Session) -> None:
        """A component is going."""
        for text in session.rights.granted(ACTION):
            subscribers = self._by_pattern.get(text)
            if subscribers is not None and subscribers.pop(session.instance, None) is not None and not subscribers:
                del self._by_pattern[text]
                self._index = None
        self._topics.clear()

    def of(self, topic: str) -> tuple[Session, ...]:
        """The subscribers of a well-formed topic."""
        known = self._topics.get(topic)
        if known is not None:
            return known
        if self._index is None:
            self._texts = tuple(self._by_pattern)
            patterns = [host_pattern(ACTION, text, text) for text in self._texts]
            self._index = PatternIndex(
                (pattern, number) for number, pattern in enumerate(patterns) if isinstance(pattern, Pattern)
            )
        found: dict[str, Session] = {}
        for number in self._index.matches(topic):
            found.update(self._by_pattern[self._texts[number]])
        subscribers = tuple(
            session for session in found.values() if isinstance(session.rights.decide(ACTION, topic), Allow)
        )
        while len(self._topics) >= TOPICS_MAX:
            del self._topics[next(iter(self._topics))]
        self._topics[topic] = subscribers
        return subscribers
