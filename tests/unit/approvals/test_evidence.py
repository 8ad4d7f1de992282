"""What a reviewer is told of a package's origin and signatures, and how lines are broken that somebody else wrote."""

from __future__ import annotations

import pytest
from approvals_to_test import MANIFEST, START_S, facts, filed
from hypothesis import given
from hypothesis import strategies as st
from signed import ed25519_signer

from ipc.policy.capability import Grant
from ipc.struct import convert, replace, to_builtins
from supervisor.approvals.evidence import Evidence, SignatureFound, evidence_json, listings_of, origin_changes
from supervisor.approvals.request import Facts
from supervisor.approvals.review import document_of
from supervisor.approvals.steps import file_request
from supervisor.approvals.subject import STAND_INS, placed
from supervisor.cli.approval_words import indented, look_alike, person
from supervisor.cli.review_view import evidence_lines, review_lines
from supervisor.config.approval_settings import Signer
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories
from supervisor.manifest import parse_manifest
from supervisor.manifest.asks import describe_grant
from supervisor.manifest.danger_words import why_dangerous
from supervisor.manifest.findings import unused_requests
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import read_public_key
from supervisor.terminal import visible
from supervisor.trust.sources import KeySource

KEY = read_public_key(ed25519_signer().line)
GIT = Provenance("git", "https://git.example.com/p.git", "ab" * 20, "main", "reporter", START_S * 10**9, "uid 1000")
FOUND = Evidence(
    GIT,
    "trust.sources[0] covers it",
    START_S * 10**9,
    "uid 54321",
    (SignatureFound(KEY.text, KEY.kind, KEY.fingerprint),),
    imports=("wasi:cli/stdout@0.2.0", "wasi:cli/stderr@0.2.0", "wasi:sockets/tcp@0.2.0"),
    imports_count=7,
    undeclared=("the wasm opens sockets",),
)
PLACES = (
    "/srv/x/**",
    "${data}/**",
    "${tmp}/x",
    "/opt/x/y",
    "/home/*/**",
    "/home/me/",
    "/etc/**",
    "/var/x",
    "/**",
    "/root/",
)
SETTINGS = Settings(default_directories({}, 1000))


def _lines(evidence: Evidence, settings: Settings = SETTINGS) -> list[str]:
    return evidence_lines({"trust": "unknown", **evidence_json(evidence, settings, START_S)})


def test_where_it_is_from_and_who_installed_it_is_said() -> None:
    """Kind, place, revision, when, by whom; of what wasn't installed, that it wasn't."""
    said = "\n".join(_lines(FOUND))
    assert "from      git https://git.example.com/p.git, branch main, in reporter" in said
    assert f"revision  {'ab' * 20}" in said
    assert "installed 2027-01-15 08:00:00 UTC by uid 54321" in said
    assert "it is started from where it lies" in "\n".join(_lines(Evidence(Provenance("directory", "/opt/x"))))


def test_whose_a_key_is_is_said_by_the_settings_of_the_day() -> None:
    """By either list, and why it counts for nothing where it doesn't; nobody's where no list has it."""
    assert "whose key that is, nobody has said here" in " ".join(line.strip() for line in _lines(FOUND))
    source = KeySource(3, "airssys.toml:9", KEY, "alice@example.com")
    signer = Signer(1, KEY, "alice", valid_before_s=START_S)
    known = replace(SETTINGS, trust_sources=(source,), approval_signers=(signer,))
    assert listings_of(KEY.text, known, START_S) == [
        ("alice@example.com", "trust.sources[3]", ""),
        ("alice", "approvals.signers[1]", "the key has expired"),
    ]
    said = " ".join(line.strip() for line in _lines(FOUND, known))
    assert "alice@example.com, by trust.sources[3]; alice, by approvals.signers[1], but the key has expired" in said
    revoked = replace(SETTINGS, trust_sources=(replace(source, revoked=True),))
    assert "but the key is revoked" in " ".join(_lines(FOUND, revoked))


def test_signatures_that_do_not_hold_and_none_are_told_apart() -> None:
    """One that is void, one that can't be read, a file that can't be read, and nobody."""
    void = SignatureFound(KEY.text, KEY.kind, KEY.fingerprint, "it was made over other bytes")
    damaged = SignatureFound("", "", "", "it can't be read")
    for signatures, words in (
        ((void,), f"NOT VALID a signature by {KEY.fingerprint}"),
        ((damaged,), "NOT VALID a signature by an unreadable key"),
        ((), "signed by nobody"),
    ):
        said = "\n".join(_lines(replace(FOUND, signatures=signatures)))
        assert words in said
        assert f"signed by {KEY.fingerprint}" not in said
    unread = replace(FOUND, signatures=(), signatures_unread="Component.sig: larger than 1 MiB")
    assert "signed by can't be said: Component.sig" in "\n".join(_lines(unread))


def test_a_yes_is_to_what_was_found_out_too() -> None:
    """The digest of the review is another one for another origin; a kept request reads the same again."""
    elsewhere = replace(FOUND, provenance=Provenance("git", "https://evil.example.com/p.git"))
    asked = [replace(filed(), facts=replace(facts(), evidence=found)) for found in (None, FOUND, elsewhere)]
    assert len({file_request(1, each).review for each in asked}) == 3
    assert convert(to_builtins(asked[1].facts), Facts) == asked[1].facts


def test_another_origin_signer_or_import_is_a_difference() -> None:
    """Beside what a new version asks for: nobody overlooks that it comes from somebody else."""
    other = replace(
        FOUND,
        provenance=replace(GIT, url="https://evil.example.com/p.git"),
        signatures=(),
        imports=FOUND.imports[:2],
        imports_count=2,
    )
    old, new = (
        file_request(number, replace(filed(), facts=replace(facts(), evidence=found)))
        for number, found in ((1, replace(FOUND, imports_count=3)), (2, other))
    )
    said = "\n".join(review_lines(document_of(new, [replace(old, approved_s=START_S)], SETTINGS, START_S), whole=False))
    assert "evil.example.com" in said.split("also different:")[1]
    assert f"signed by: {KEY.fingerprint} → nobody" in said
    assert "imports: wasi:sockets/tcp@0.2.0 → nothing" in said
    assert origin_changes(FOUND, FOUND) == []


def test_imports_are_counted_and_what_they_are_for_is_named() -> None:
    """By package in short, by name with --whole, how many were left out, and what isn't declared."""
    request = file_request(1, replace(filed(), facts=replace(facts(), evidence=FOUND)))
    document = document_of(request, [], SETTINGS, START_S)
    short, whole = ("\n".join(review_lines(document, each)) for each in (False, True))
    assert "imports   wasi:cli (2), wasi:sockets (1), and 4 more" in short
    assert "wasi:cli: stdout@0.2.0, stderr@0.2.0; wasi:sockets: tcp@0.2.0; and 4 more" in whole
    assert "but       the wasm opens sockets" in short


@pytest.mark.parametrize(
    ("action", "pattern"),
    [
        *((f"filesystem.{verb}", place) for verb in ("read", "write", "list") for place in PLACES),
        *((f"network.{verb}", to) for verb in ("connect", "listen") for to in ("example.com:443", "*:*")),
        *((f"storage.{verb}", key) for verb in ("read", "write") for key in ("count:*", "**")),
        *((f"messaging.{verb}", who) for verb in ("send", "receive") for who in ("peer", "*")),
        *((f"messaging.{verb}", topic) for verb in ("publish", "subscribe") for topic in ("news.eu", "**")),
        ("secrets.env", "TOKEN"),
        ("custom.sql.query", "orders"),
    ],
)
def test_each_danger_has_its_reason(action: str, pattern: str) -> None:
    """Whatever a capability is judged to be, a reviewer is told why; a provider's deeds are the provider's."""
    grant = Grant(action, pattern, "")
    danger, _ = describe_grant(grant, placed([grant])[0], replace(STAND_INS, component="/opt/x"))
    assert why_dangerous(action, danger.word)


def test_what_is_asked_and_can_not_be_used_is_named() -> None:
    """By what the program imports, core module or component: nothing of it is believed, so nothing follows from it."""
    manifest = parse_manifest(MANIFEST.encode(), file="Component.toml", directory="/opt/reporter")

    def unused(*imports: str) -> list[str]:
        return [each.message.split(",")[0] for each in unused_requests(imports, manifest)]

    assert unused() == ["it asks for filesystem.read", "it asks for network.connect"]
    assert unused("wasi_snapshot_preview1.path_open") == ["it asks for network.connect"]
    assert unused("wasi:filesystem/types@0.2.0", "wasi:sockets/tcp@0.2.0") == []


@given(st.text(max_size=400), st.integers(0, 14))
def test_no_character_of_a_text_is_lost_and_none_begins_a_line(text: str, indent: int) -> None:
    """Broken lines together are the text, but for blanks where they were broken; each begins with the indentation."""
    lines = indented(text, indent)
    assert all(line.startswith(" " * indent) and visible(line) == line for line in lines)
    joined = "".join(line[indent:] for line in lines)
    assert joined.replace(" ", "") == visible(text).replace(" ", "")


def test_letters_that_look_like_others_are_pointed_out() -> None:
    """Beside the name in plain ASCII; a plain name isn't."""
    assert look_alike("https://git.example.com", 2) == []
    assert "\\u0435" in " ".join(look_alike("https://git.\u0435xample.com", 2))


def test_people_are_called_by_their_names_here() -> None:
    """A user by name and uid, others as they are."""
    assert person("uid 0") == "root (uid 0)"
    assert person("uid 4294967294") == "uid 4294967294"
    assert person("key SHA256:x (alice)") == "key SHA256:x (alice)"
