"""Storage that two components share under `airssys up`, and that a third one is kept from."""

from __future__ import annotations

import json

import pytest

GRANTS = """[capabilities.storage]
read = [{read}]
write = [{write}]
"""
HOST = """schema = 1
[storage.shared.prices]
components = ["feed", "shop", "all"]
quota = "1kB"
[components.all]
allow_broad = ["storage.read:**", "storage.write:**"]
"""


@pytest.mark.any_user
def test_two_share_what_a_third_one_cannot_have(airssys, up, component) -> None:
    """What one writes the other reads, as granted; who is granted all keys, or is not named by the host, does not."""
    config = airssys.directory / "airssys.toml"
    config.write_text(HOST)
    grants = {
        "feed": ('"@prices:**"', '"@prices:**"'),
        "shop": ('"@prices:eu:*", "@prices:both:*"', '"@prices:both:*"'),
        "all": ('"**"', '"**"'),
        "stranger": ('"@prices:**"', '"@prices:**"'),
    }
    places = [
        component(name, "actors/misbehaving.wasm", GRANTS.format(read=read, write=write))
        for name, (read, write) in grants.items()
    ]

    def told(name: str, order: str) -> str:
        return str(airssys("call", name, "-", stdin=order.encode()).stdout)

    with up(*places, "--grant", "asked", "--config", str(config)) as running:
        for name in grants:
            running.until(f"{name}: running as")
        assert told("feed", "set @prices:eu:x 5") == "ok"
        assert told("feed", "set @prices:us:x 6") == "ok"
        assert told("shop", "get @prices:eu:x") == "ok some 5"
        assert told("shop", "get @prices:us:x").startswith("not-permitted: no grant covers it")
        assert told("shop", "set @prices:eu:x 7").startswith("not-permitted: no grant covers it")
        assert told("feed", "cas @prices:both:n - 1") == "ok true"
        assert told("shop", "cas @prices:both:n - 2") == "ok false"
        assert told("shop", "cas @prices:both:n 1 2") == "ok true"
        assert told("feed", "get @prices:both:n") == "ok some 2"
        for name in ("all", "stranger"):
            assert told(name, "get @prices:eu:x").startswith("not-permitted: the host shares no such storage"), name
        assert told("all", "set prices:eu:x mine") == "ok"
        assert told("feed", "get @prices:eu:x") == "ok some 5"
        full = told("feed", "set @prices:eu:y " + "y" * 900)
        assert full.startswith("over-quota: usage 233 limit 1000"), full
    lines = airssys("audit", "query", "--json", "--decision", "denied").stdout.splitlines()
    denied = [json.loads(line)["code"] for line in lines]
    assert denied.count("A1814") == 2
