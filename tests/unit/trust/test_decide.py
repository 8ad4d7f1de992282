"""Deciding on trust: by origin and signers alone, total, with the rule named."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import PublicKey, read_public_key
from supervisor.trust.decide import Exposure, TrustDecision, decide_trust
from supervisor.trust.sources import KeySource, LocalSource, TrustSource, git_source, oci_source

KEY = read_public_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBog0BgK8OeQlo29bEgWXHvOD06Z7Lhci9DshhmUyaEx alice")
OTHER = read_public_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB119oYygkWuK1IHPF14qlWMctinhgPEyIFUOrGC1iRm alice")
NOW_S = 1_800_000_000
GIT = git_source(0, "airssys.toml:3", "https://git.example.com/plugins/*", "main")
LOCAL = LocalSource(1, "airssys.toml:6", "/srv/components/**")
OCI = oci_source(2, "airssys.toml:8", "registry.example.com/plugins/*")
SIGNED = KeySource(3, "airssys.toml:10", KEY, "alice@example.com")
ALL: tuple[TrustSource, ...] = (GIT, LOCAL, OCI, SIGNED)
FROM_GIT = Provenance("git", "https://git.example.com/plugins/csv", revision="0" * 40, branch="main")
FROM_DIRECTORY = Provenance("directory", "/srv/components/csv")
FROM_ARCHIVE = Provenance("archive", "/srv/components/csv.tar.gz")
FROM_OCI = Provenance("oci", "registry.example.com/plugins/csv")
ELSEWHERE = Provenance("git", "https://evil.com/plugins/csv", branch="main")


def decide(
    provenance: Provenance | None,
    *signers: PublicKey,
    sources: tuple[TrustSource, ...] = ALL,
    exposed: tuple[Exposure, ...] | None = (),
    now_s: int = NOW_S,
) -> TrustDecision:
    """Decide, on a host whose places are looked at."""
    return decide_trust(provenance, signers, sources, now_s=now_s, exposed=exposed)


@pytest.mark.parametrize(
    ("provenance", "signers", "rule", "approval"),
    [
        (
            FROM_GIT,
            (),
            "trust.sources[0] git https://git.example.com/plugins/* branch main (airssys.toml:3)",
            "trusted: git https://git.example.com/plugins/* branch main",
        ),
        (
            FROM_DIRECTORY,
            (),
            "trust.sources[1] local /srv/components/** (airssys.toml:6)",
            "trusted: local /srv/components/**",
        ),
        (
            FROM_ARCHIVE,
            (),
            "trust.sources[1] local /srv/components/** (airssys.toml:6)",
            "trusted: local /srv/components/**",
        ),
        (
            FROM_OCI,
            (),
            "trust.sources[2] oci registry.example.com/plugins/* (airssys.toml:8)",
            "trusted: oci registry.example.com/plugins/*",
        ),
        (
            ELSEWHERE,
            (OTHER, KEY),
            f"trust.sources[3] signing_key {KEY.fingerprint} (alice@example.com) (airssys.toml:10)",
            f"trusted: signing_key {KEY.fingerprint} (alice@example.com)",
        ),
        (
            None,
            (KEY,),
            f"trust.sources[3] signing_key {KEY.fingerprint} (alice@example.com) (airssys.toml:10)",
            f"trusted: signing_key {KEY.fingerprint} (alice@example.com)",
        ),
    ],
)
def test_the_rule_is_named(
    provenance: Provenance | None, signers: tuple[PublicKey, ...], rule: str, approval: str
) -> None:
    """Which entry it was, what it says, where it is written; and the words for the audit log."""
    decision = decide(provenance, *signers)
    assert (decision.level, decision.rule, decision.approval) == ("trusted", rule, approval)


@pytest.mark.parametrize(
    "provenance",
    [
        None,
        ELSEWHERE,
        replace(FROM_GIT, branch=""),
        replace(FROM_GIT, branch="other"),
        replace(FROM_GIT, url="http://git.example.com/plugins/csv"),
        replace(FROM_GIT, url="https://git.example.com@evil.com/plugins/csv"),
        replace(FROM_GIT, url="\0"),
        replace(FROM_GIT, url=""),
        replace(FROM_GIT, url="/srv/components/csv"),
        replace(FROM_GIT, kind="oci"),
        replace(FROM_DIRECTORY, kind="git"),
        replace(FROM_DIRECTORY, kind="oci"),
        replace(FROM_DIRECTORY, url="/srv/components"),
        replace(FROM_DIRECTORY, url="/srv/components-evil/csv"),
        replace(FROM_DIRECTORY, url="relative"),
        replace(FROM_DIRECTORY, url="srv/components/csv"),
        replace(FROM_DIRECTORY, url="/srv/components/../evil"),
        replace(FROM_DIRECTORY, url="/srv/components//csv"),
        replace(FROM_DIRECTORY, url="/srv/components/./csv"),
        replace(FROM_DIRECTORY, url="/srv/components/csv/"),
        replace(FROM_DIRECTORY, url=""),
        replace(FROM_OCI, url="registry.example.com/plugins/csv:tag"),
        replace(FROM_OCI, url="http://registry.example.com/plugins/csv"),
        replace(FROM_OCI, kind="git"),
        Provenance("directory", "https://git.example.com/plugins/csv", branch="main"),
        Provenance("git", "https://evil.com/x", subdirectory="/srv/components/csv", revision="main", branch="main"),
    ],
)
def test_everything_else_is_unknown_with_a_reason(provenance: Provenance | None) -> None:
    """The answer is total: no origin, however odd, raises or is trusted."""
    decision = decide(provenance, OTHER)
    assert (decision.level, decision.rule, decision.source, decision.approval) == ("unknown", "", None, "")
    assert decision.reason


def test_nothing_is_trusted_where_nothing_is_written() -> None:
    """Without entries there is no trust, whatever the origin; and the reason says what is missing."""
    for provenance in (FROM_GIT, FROM_DIRECTORY, FROM_OCI, None):
        decision = decide(provenance, KEY, sources=())
        assert decision.level == "unknown"
        assert "[[trust.sources]]" in decision.reason


def test_the_first_entry_that_covers_it_is_the_rule() -> None:
    """Entries are asked in order."""
    assert decide(FROM_GIT, KEY).source == GIT
    assert decide(FROM_GIT, KEY, sources=ALL[::-1]).source == SIGNED


def test_a_revoked_key_is_revoked_everywhere() -> None:
    """No other entry with the same key trusts it, in whatever order; another signer's signature still counts."""
    revoked = KeySource(4, "airssys.d/z.toml:3", KEY, revoked=True)
    for sources in ((SIGNED, revoked), (revoked, SIGNED)):
        decision = decide(ELSEWHERE, KEY, sources=sources)
        assert decision.level == "unknown"
        assert "revoke" in decision.reason
    also = KeySource(5, "airssys.toml:20", OTHER)
    assert decide(ELSEWHERE, KEY, OTHER, sources=(SIGNED, revoked, also)).source == also
    assert decide(ELSEWHERE, OTHER, sources=(KeySource(0, "a:1", OTHER, revoked=True),)).level == "unknown"
    assert decide(FROM_GIT, KEY, sources=(GIT, revoked)).source == GIT


@pytest.mark.parametrize(
    ("now_s", "level", "why"),
    [
        (999, "unknown", "isn't valid yet"),
        (1_000, "trusted", ""),
        (1_999, "trusted", ""),
        (2_000, "unknown", "has expired"),
    ],
)
def test_a_key_is_trusted_within_its_time(now_s: int, level: str, why: str) -> None:
    """From valid_after on, and up to valid_before; another entry of the same key may have another time."""
    source = KeySource(0, "airssys.toml:3", KEY, valid_after_s=1_000, valid_before_s=2_000)
    decision = decide(None, KEY, sources=(source,), now_s=now_s)
    assert decision.level == level
    assert why in decision.reason
    assert decide(None, KEY, sources=(source, SIGNED), now_s=now_s).level == "trusted"


def test_a_key_is_its_bytes() -> None:
    """A key with the same comment, or the same identity, is another key."""
    assert decide(None, OTHER, sources=(SIGNED,)).level == "unknown"
    again = PublicKey(KEY.kind, bytes(bytearray(KEY.blob)))
    assert decide(None, again, sources=(SIGNED,)).level == "trusted"


def test_a_place_counts_only_where_nobody_else_can_write() -> None:
    """Exposed at the fixed part or beneath it, or not looked at: not trusted, and the reason names the place."""
    for path in ("/srv/components", "/srv/components/csv", "/srv/components/csv/a.wasm"):
        decision = decide(FROM_DIRECTORY, exposed=(Exposure(path, "is writable by others"),))
        assert decision.level == "unknown"
        assert f"{path} is writable by others" in decision.reason
        assert decision.nearest == LOCAL
    for path in ("/", "/srv", "/srv/components-old"):
        assert decide(FROM_DIRECTORY, exposed=(Exposure(path, "is writable by others"),)).level == "trusted"
    unseen = decide(FROM_DIRECTORY, exposed=None)
    assert (unseen.level, unseen.nearest) == ("unknown", LOCAL)


def test_a_repository_of_this_machine_is_worth_what_its_place_is() -> None:
    """Exposed, or not looked at, it isn't trusted; one that is elsewhere needs no look."""
    source = git_source(0, "a:1", "file:///srv/git/*")
    origin = Provenance("git", "file:///srv/git/csv.git", branch="main")
    assert decide(origin, sources=(source,)).level == "trusted"
    for exposed in (None, (Exposure("/srv/git/csv.git/refs", "is writable by others"),)):
        decision = decide(origin, sources=(source,), exposed=exposed)
        assert (decision.level, decision.nearest) == ("unknown", source)
    assert decide(FROM_GIT, exposed=None).level == "trusted"


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("/srv/components/**", "/srv/components/a/b", True),
        ("/srv/components/*", "/srv/components/a", True),
        ("/srv/components/*", "/srv/components/a/b", False),
        ("/srv/components/", "/srv/components", True),
        ("/srv/components/", "/srv/components/a", True),
        ("/srv/components/a", "/srv/components/a", True),
        ("/srv/components/a", "/srv/components/ab", False),
        ("/srv/*/a", "/srv/x/a", True),
        ("/srv/*/a", "/srv/x/y/a", False),
    ],
)
def test_patterns_of_paths(pattern: str, path: str, covered: bool) -> None:
    """They are those of grants: a star stays within a segment."""
    decision = decide(Provenance("directory", path), sources=(LocalSource(0, "a:1", pattern),))
    assert (decision.level == "trusted") == covered


def test_what_came_nearest_is_named() -> None:
    """The entry with most in common, and what keeps it from covering this."""
    sources = (
        git_source(0, "a:1", "https://git.example.com/other/*"),
        git_source(1, "a:2", "https://git.example.com/plugins/csv", "main"),
        git_source(2, "a:3", "ssh://git@git.example.com/plugins/*"),
    )
    decision = decide(replace(FROM_GIT, branch="dev"), sources=sources)
    assert decision.nearest == sources[1]
    assert "the entry is for the branch main" in decision.reason
    assert decide(replace(FROM_GIT, url="https://git.example.com/other/a/b"), sources=sources).nearest == sources[0]
    assert decide(ELSEWHERE, sources=sources).nearest is None
