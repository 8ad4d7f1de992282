"""What a package would have a reviewer believe: its words are marked as its own, and only what was found counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from approvals_to_test import MANIFEST, START_S, filed
from signed import ed25519_signer, sshsig

from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.approvals import gathering
from supervisor.approvals.evidence import Evidence
from supervisor.approvals.gathering import gather_evidence
from supervisor.approvals.review import document_of
from supervisor.approvals.rules import Needed
from supervisor.approvals.steps import file_request
from supervisor.cli.review_view import review_lines
from supervisor.cli.run_approval import question_about
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories
from supervisor.manifest import Variables, bind, load_manifest
from supervisor.packages.contents import Contents
from supervisor.packages.directory import read_directory
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import read_public_key
from supervisor.trust.judge import judge_directory
from supervisor.trust.sources import KeySource

ALICES, MALLORYS = ed25519_signer(), ed25519_signer()
ALICE = KeySource(0, "airssys.toml:3", read_public_key(ALICES.line), "alice@example.com")
SETTINGS = Settings(default_directories({}, 1000), trust_sources=(ALICE,))
FORGED = f"signed by {ALICE.key.fingerprint} (ssh-ed25519): alice@example.com, by trust.sources[0]"
PROGRAM = b"\0asm\1\0\0\0"
NOTHING_FOUND = Evidence(Provenance("directory", "/opt/reporter"))


class Package:
    """A component's directory, and what a reviewer reads of it."""

    def __init__(self, directory: Path) -> None:
        """Make it, unsigned."""
        self.directory = directory / "component"
        self.directory.mkdir()
        self.state = directory / "state"
        (self.directory / "reporter.wasm").write_bytes(PROGRAM)
        self.says(MANIFEST)

    def says(self, manifest: str) -> None:
        """Put another manifest there."""
        (self.directory / "Component.toml").write_text(manifest)

    def found(self, given_up: bool = False) -> Evidence:
        """Find out what there is to know of it, for somebody who may have `given_up` meanwhile."""
        contents = read_directory(str(self.directory))
        program = contents.file("reporter.wasm")
        assert program is not None
        manifest = load_manifest(str(self.directory))
        return gather_evidence(
            manifest, contents.digest, program.sha256, None, SETTINGS, str(self.state), lambda: given_up
        )

    def review(self, evidence: Evidence) -> list[str]:
        """Return what a reviewer reads."""
        asked = filed()
        manifest = (self.directory / "Component.toml").read_text()
        request = file_request(1, replace(asked, facts=replace(asked.facts, manifest=manifest, evidence=evidence)))
        return review_lines(document_of(request, [], SETTINGS, START_S), whole=False)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A package."""
    return Package(tmp_path)


def _signed_by_alice(lines: list[str]) -> bool:
    return any(line.startswith(f"  signed by {ALICE.key.fingerprint}") for line in lines)


def test_no_word_of_a_package_passes_for_what_was_found(package: Package) -> None:
    """Wherever a line of it would break, it begins no line of ours, and stands in quotation marks."""
    for length in range(40, 140):
        text = f"{'x' * length} {FORGED}"
        package.says(MANIFEST.replace('name = "rep', f'description = "{text}"\nname = "rep'))
        lines = package.review(NOTHING_FOUND)
        assert not _signed_by_alice(lines)
        assert "  signed by nobody" in lines
        forged = [line for line in lines if "signed by" in line and "nobody" not in line]
        assert all(line.startswith((" " * 12, '  it says   "x')) for line in forged), forged
    signature = sshsig(ALICES, read_directory(str(package.directory)).statement)
    (package.directory / "Component.sig").write_bytes(signature)
    assert _signed_by_alice(package.review(package.found()))


def test_a_signature_counts_by_what_it_was_made_over(package: Package) -> None:
    """Over other bytes, or for another purpose, it is shown as none; a stranger's is nobody's here."""
    statement = read_directory(str(package.directory)).statement
    signatures = package.directory / "Component.sig"
    for void in (sshsig(ALICES, statement + b"x"), sshsig(ALICES, statement, namespace="git")):
        signatures.write_bytes(void)
        lines = package.review(package.found())
        assert not _signed_by_alice(lines)
        assert any(line.startswith("  NOT VALID a signature") for line in lines)
    signatures.write_bytes(sshsig(MALLORYS, statement))
    stranger = package.review(package.found())
    assert not _signed_by_alice(stranger)
    assert "whose key that is, nobody has said here" in " ".join(line.strip() for line in stranger)
    signatures.write_bytes(sshsig(ALICES, statement))
    assert _signed_by_alice(package.review(package.found()))


def test_a_file_beside_the_program_says_nothing_of_its_origin(package: Package) -> None:
    """Provenance, settings and approvals that lie in the package are files of it: the origin is where it lies."""
    for name in ("airssys.toml", "provenance.json", "approvals.sqlite"):
        (package.directory / name).write_text('{"url": "https://git.example.com/trusted.git", "trust": "trusted"}')
    lines = package.review(package.found())
    assert f"  from      directory {package.directory}" in lines
    assert not any("git.example.com" in line for line in lines)


def test_what_a_program_imports_is_read_and_not_believed(package: Package) -> None:
    """It asks for the network and files, and has use for neither: that is said, whatever it gives as a reason."""
    found = package.found()
    assert (found.imports, found.imports_unread) == ((), "")
    said = " ".join(line.strip() for line in package.review(found))
    assert "it asks for network.connect, and the wasm imports nothing that uses the network" in said


def test_a_program_that_takes_long_to_read_holds_nobody_who_has_given_up(package: Package) -> None:
    """A supervisor that ends, or decides anew, waits for no compiler; for who wants to know it is read."""
    with pytest.raises(KeyboardInterrupt):
        package.found(given_up=True)
    assert package.found().imports_unread == ""


EVIL = PROGRAM + b"\0\1\0"
"""Another program: it has an empty section besides."""


def test_trust_in_what_lay_there_before_is_none_in_what_is_asked(package: Package, monkeypatch) -> None:
    """Signed bytes that are put back for the moment in which trust is decided don't speak for those of the request."""
    program = package.directory / "reporter.wasm"
    (package.directory / "Component.sig").write_bytes(sshsig(ALICES, read_directory(str(package.directory)).statement))
    assert "trust.sources[0]" in package.found().trust_why
    program.write_bytes(EVIL)
    assert "trust.sources[0]" not in package.found().trust_why

    def then_put_back(directory: str) -> Contents:
        contents = read_directory(directory)
        program.write_bytes(PROGRAM)
        return contents

    monkeypatch.setattr(gathering, "read_directory", then_put_back)
    found = package.found()
    assert (found.trust_why, found.signatures_unread) == ("", "the directory holds something else by now")


def test_what_was_judged_is_what_is_asked_about(package: Package) -> None:
    """A request is told to come from a trusted package only while it is about that very one."""
    (package.directory / "Component.sig").write_bytes(sshsig(ALICES, read_directory(str(package.directory)).statement))
    manifest = load_manifest(str(package.directory))
    own = Variables(str(package.directory), "/d", "/t")
    bound = bind(manifest, {}, own, cwd="/", real_path=lambda path: path)
    judged = judge_directory(str(package.directory), (ALICE,))
    assert question_about(bound, bound.grants, Needed(), judged, None).facts.trust == "trusted"
    (package.directory / "reporter.wasm").write_bytes(EVIL)
    with pytest.raises(ConfigError, match="changed while it was found out whether it is trusted"):
        question_about(bound, bound.grants, Needed(), judged, None)
    assert question_about(bound, bound.grants, Needed(), None, None).facts.trust == "unknown"
