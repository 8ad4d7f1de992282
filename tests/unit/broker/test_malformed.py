"""Frames by the ten thousand that are almost messages, through the decoder and the core, in every phase."""

from __future__ import annotations

import random
from collections import Counter

from driving import Driver, admission
from mutations import mutate

from ipc.broker.events import Bounds, Malformed, Received
from ipc.broker.messages import Bye, Health, unpack_from_worker
from ipc.errors import PeerProtocolError

FRAMES = 25_000


def test_frames_that_are_almost_messages() -> None:
    """Each is refused as no batch of messages, or is one and is handled: nothing else is raised."""
    chosen = random.Random(7)
    driver = Driver()
    bounds = Bounds(messages_per_s=None, storage_bytes=10_000)
    driver.ready(admission("b"))
    driver.ready(admission("a", bounds=bounds))
    generation, met, longest = 1, Counter[str](), 0
    for number in range(FRAMES):
        frame = mutate(chosen)
        instance = f"a-{generation}"
        key, route = driver.keys[instance], driver.routes[instance]
        phase = driver.core._board.by_instance[instance].phase
        try:
            messages = tuple(unpack_from_worker(frame))
        except PeerProtocolError as error:
            met[f"malformed while it is {phase}"] += 1
            longest = max(longest, len(str(error)))
            if number % 8 == 0:
                driver.handle(Malformed(key, route, str(error), len(frame)))
        else:
            met[f"whole while it is {phase}"] += 1
            driver.handle(Received(key, route, messages, len(frame)))
        if driver.core._board.by_instance[instance].phase == "ended" or number % 50 == 49:
            assert len(driver.ended) <= 1, "one end for each"
            driver.dismiss(instance)
            generation += 1
            driver.admit(admission("a", bounds=bounds, generation=generation))
            driver.connect(f"a-{generation}")
            if generation % 3 == 1:
                driver.say(f"a-{generation}", Bye())
            elif generation % 3 == 2:
                driver.lose(f"a-{generation}")
                driver.routes[f"a-{generation}"] = b"\0none"
            for kept in (driver.ended, driver.records, driver.stores, driver.provides, driver.phases):
                kept.clear()
            driver.inbox.clear()
            driver.pass_time(10**6)
            driver.say("b-1", Health("healthy"))
    assert longest < 120, "nothing is quoted"
    assert met["malformed while it is ready"] > 3_000
    assert met["whole while it is ready"] > 300
    assert met["malformed while it is leaving"] > 30
    assert met["malformed while it is admitted"] > 30
