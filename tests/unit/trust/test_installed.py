"""What is installed is trusted by what was recorded of its origin, and by the sources and the clock of today."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.packages.installed import EXPOSED_MAX, Installed
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import read_public_key
from supervisor.trust.decide import Exposure
from supervisor.trust.installed import judge_installed, recorded_exposures, revoked_keys
from supervisor.trust.sources import KeySource, LocalSource

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGsyfOZGhJXUmSmLBLvDbqHJVHXUEmIuGLYEW/wDjQxP"
HERE = Provenance("directory", "/srv/components/csv")
PACKAGE = Installed("csv", "", "1.0.0", "a" * 64, "csv.wasm", HERE, HERE.url, exposed=())
LOCAL = LocalSource(0, "airssys.toml:2", "/srv/components/*")
SIGNED = KeySource(1, "airssys.toml:4", read_public_key(KEY), valid_before_s=1_000)


def test_where_it_came_from_counts() -> None:
    """A recorded origin that an entry covers is trusted; another isn't, nor one where nobody looked."""
    assert judge_installed(PACKAGE, [LOCAL], 0).level == "trusted"
    elsewhere = replace(PACKAGE, provenance=Provenance("directory", "/tmp/csv"))
    assert judge_installed(elsewhere, [LOCAL], 0).level == "unknown"
    assert judge_installed(replace(PACKAGE, exposed=None), [LOCAL], 0).level == "unknown"
    assert judge_installed(PACKAGE, [], 0).level == "unknown"


def test_who_could_have_exchanged_it_there_counts() -> None:
    """A place that others could write to when it was installed isn't trusted, though they can't any more."""
    open_to_all = replace(PACKAGE, exposed=((HERE.url, "is writable by others"),))
    assert judge_installed(open_to_all, [LOCAL], 0).level == "unknown"


def test_very_many_places_are_not_overlooked() -> None:
    """What is recorded is bounded, and says of the whole place that there is more."""
    many = [Exposure(f"/elsewhere/{number}", "x") for number in range(EXPOSED_MAX + 1)]
    recorded = recorded_exposures(HERE, many)
    assert recorded is not None
    assert len(recorded) == EXPOSED_MAX + 1
    assert judge_installed(replace(PACKAGE, exposed=recorded), [LOCAL], 0).level == "unknown"
    assert recorded_exposures(HERE, many[:1]) == (("/elsewhere/0", "x"),)
    assert recorded_exposures(HERE, None) is None


@pytest.mark.parametrize(("now_s", "level"), [(999, "trusted"), (1_001, "unknown")])
def test_whose_key_it_is_is_asked_today(now_s: int, level: str) -> None:
    """Who had signed it is recorded; until when that counts, the settings say."""
    signed = replace(PACKAGE, signers=(KEY,), provenance=Provenance("archive", "/tmp/csv.tar.gz"))
    assert judge_installed(signed, [SIGNED], now_s).level == level


def test_a_revoked_key_vouches_for_nothing() -> None:
    """A key that was revoked since makes nothing trusted, and no two packages one source."""
    revoked = replace(SIGNED, revoked=True, valid_before_s=None)
    assert judge_installed(replace(PACKAGE, signers=(KEY,)), [revoked], 0).level == "unknown"
    assert revoked_keys([LOCAL, revoked]) == {KEY}
    assert revoked_keys([LOCAL, SIGNED]) == frozenset()
