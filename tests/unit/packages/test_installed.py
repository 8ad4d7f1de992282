"""Which package may have which name: sources, versions, and the way back."""

from __future__ import annotations

import itertools

import pytest

from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.packages.installed import ComponentName, Installed, choose_version, parse_name, previous, version_key
from supervisor.packages.naming import Permitted, decide_install
from supervisor.packages.provenance import Provenance
from supervisor.packages.target import is_path
from supervisor.trust.sources import LocalSource

GIT = Provenance("git", "https://git.example.com/plugins/csv.git", "1" * 40, "main", "csv")
HERE = Installed("csv", "", "1.2.0", "a" * 64, "csv.wasm", GIT, "git+https://git.example.com/plugins/csv.git@main#csv")


@pytest.mark.parametrize(
    ("target", "path"),
    [("./x", True), ("x/y", True), (".", True), ("x.wasm", True), ("x", False), ("x@y", False), ("x.y", False)],
)
def test_what_is_a_path(target: str, path: bool) -> None:
    """A slash, a leading dot or .wasm at the end makes a path; anything else is a name."""
    assert is_path(target) is path


@pytest.mark.parametrize("text", ["", "@", "a@", "@b", "A", "a b", "a@b@c", "1a", "a@.b", "a" * 64, "a@\x1b[2J", "a\n"])
def test_what_is_no_name(text: str) -> None:
    """Other forms are refused, and shown harmlessly."""
    with pytest.raises(ConfigError) as caught:
        parse_name(text)
    assert "\x1b" not in caught.value.message


def test_a_name_is_read_back() -> None:
    """NAME and NAME@INSTANCE are what they are typed as."""
    assert parse_name("csv") == ComponentName("csv")
    assert parse_name("csv@acme.1") == ComponentName("csv", "acme.1")
    assert parse_name("csv@acme.1").text == "csv@acme.1"


def test_versions_are_ordered_as_semver_says() -> None:
    """The example of semver.org §11, and the numbers in it."""
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.2.0",
        "1.10.0",
        "2.0.0",
    ]
    for one, other in itertools.pairwise(ordered):
        assert version_key(one) < version_key(other), (one, other)
    assert version_key("1.0.0+build.1") == version_key("1.0.0+build.2")


def test_a_newer_version_of_the_same_source_may() -> None:
    """Another revision of the same branch of the same repository is no other source."""
    new = replace(HERE, version="1.3.0", digest="b" * 64, provenance=replace(GIT, revision="2" * 40, fetched_ns=5))
    assert decide_install(new, HERE, [HERE], Permitted()) is None
    assert decide_install(HERE, None, [], Permitted()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://git.example.com/plugins/csv2.git"},
        {"url": "https://git.example.org/plugins/csv.git"},
        {"branch": "dev"},
        {"branch": ""},
        {"subdirectory": ""},
        {"kind": "oci"},
        {"kind": "directory", "url": "/tmp/csv", "branch": "", "subdirectory": ""},
    ],
)
def test_another_source_may_not_have_the_name(change: dict[str, str]) -> None:
    """A name stays with its source, for each of its instances; control: it may where a person says so."""
    new = replace(HERE, version="1.3.0", digest="b" * 64, provenance=replace(GIT, **change))
    for instance in ("", "acme"):
        refusal = decide_install(replace(new, instance=instance), None if instance else HERE, [HERE], Permitted())
        assert refusal is not None
        assert refusal.code == "A3102"
        assert HERE.provenance.url in refusal.reason
        assert new.provenance.url in refusal.reason
    assert decide_install(new, HERE, [HERE], Permitted(replace_source=True)) is None


def test_an_instance_stays_with_the_source_that_it_was_given_to() -> None:
    """Two instances of two sources, as a person wanted it: each is upgraded from its own, and not from the other's."""
    theirs = replace(HERE, instance="acme", provenance=Provenance("archive", "/tmp/csv.tar.gz"))
    active = [HERE, theirs]
    for own, other in ((HERE, theirs), (theirs, HERE)):
        newer = replace(own, version="1.3.0", digest="b" * 64)
        assert decide_install(newer, own, active, Permitted()) is None
        stranger = replace(newer, provenance=other.provenance)
        assert decide_install(stranger, own, active, Permitted()) is not None
        assert decide_install(replace(newer, instance="third"), None, active, Permitted()) is None


def test_one_trusted_directory_is_one_source_for_who_names_both() -> None:
    """Two archives in it, for an upgrade that names them; not for an install, elsewhere, or where others write."""
    place = (LocalSource(0, "a:1", "/srv/apps/*"), LocalSource(1, "a:2", "/srv/others/*"))
    first, second = (
        replace(HERE, version=version, provenance=Provenance("archive", f"/srv/apps/csv-{version}.tar.gz"), exposed=())
        for version in ("1.2.0", "1.3.0")
    )
    names_both = Permitted(upgrades=place)
    assert decide_install(second, first, [first], names_both) is None
    elsewhere, beside = (
        replace(second, provenance=Provenance("archive", f"/{where}/csv.tar.gz")) for where in ("tmp", "srv/others")
    )
    written = replace(second, exposed=(("/srv/apps", "is written to by everybody"),))
    for new, permitted in (
        (second, Permitted()),
        (second, Permitted(upgrades=())),
        (elsewhere, names_both),
        (beside, names_both),
        (written, names_both),
        (replace(second, exposed=None), names_both),
    ):
        refusal = decide_install(new, first, [first], permitted)
        assert refusal is not None
        assert refusal.code == "A3102"
    exposed = replace(first, exposed=written.exposed)
    assert decide_install(second, exposed, [exposed], names_both) is not None


def test_who_signs_both_may() -> None:
    """A key that vouched for what is installed vouches for the next elsewhere; another, or a revoked one, doesn't."""
    elsewhere = Provenance("archive", "/tmp/csv.tar.gz")
    new = replace(HERE, version="1.3.0", digest="b" * 64, provenance=elsewhere, signers=("ssh-ed25519 AAAA",))
    assert decide_install(new, HERE, [HERE], Permitted()) is not None
    assert decide_install(new, replace(HERE, signers=("ssh-ed25519 BBBB",)), [HERE], Permitted()) is not None
    both = ("ssh-ed25519 BBBB", "ssh-ed25519 AAAA")
    assert decide_install(new, replace(HERE, signers=both), [HERE], Permitted()) is None
    revoked = Permitted(revoked=frozenset(new.signers))
    assert decide_install(new, replace(HERE, signers=both), [HERE], revoked) is not None


@pytest.mark.parametrize("version", ["1.1.9", "1.2.0-rc.1", "0.9.0"])
def test_an_older_version_may_not(version: str) -> None:
    """A downgrade takes a person's word; the same version with other bytes is none."""
    new = replace(HERE, version=version, digest="b" * 64)
    refusal = decide_install(new, HERE, [HERE], Permitted())
    assert refusal is not None
    assert refusal.code == "A3103"
    assert decide_install(new, HERE, [HERE], Permitted(allow_downgrade=True)) is None
    assert decide_install(replace(new, version=HERE.version), HERE, [HERE], Permitted()) is None


def test_a_version_or_the_beginning_of_a_digest_is_chosen() -> None:
    """By version first; by at least six digits of a digest else."""
    newer = replace(HERE, version="1.3.0", digest="ab" * 32)
    versions = [HERE, newer]
    assert choose_version(versions, "1.3.0") == (newer,)
    assert choose_version(versions, "ababab") == (newer,)
    assert choose_version(versions, "abab") == ()
    assert choose_version(versions, "9.9.9") == ()


def test_what_was_active_before() -> None:
    """The last other one that is still installed."""
    one, two, three = (replace(HERE, digest=digit * 64) for digit in "123")
    digests = [each.digest for each in (one, two, three, two)]
    assert previous(digests, [one, two, three]) == three
    assert previous(digests, [one, two]) == one
    assert previous(digests, [two]) is None
    assert previous([], [one]) is None
