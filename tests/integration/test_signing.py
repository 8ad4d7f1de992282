"""`airssys sign` and `airssys verify` beside the real ssh-keygen: each takes what the other made."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import signed

from ipc.errors import ConfigError
from supervisor.packages.directory import read_directory
from supervisor.signing.allowed_signers import find_signer, parse_time, read_allowed_signers
from supervisor.signing.keys import read_public_key
from supervisor.signing.sshsig import Signature, read_signatures, verify

NAMESPACE = "airssys-package"
REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference/signatures.md"
ALICE = "alice@example.com"
pytestmark = pytest.mark.any_user  # and ssh-keygen runs for no user without an entry in /etc/passwd
IN_FILES = signed.KINDS[:5]
"""The kinds of keys whose private half can lie in a file."""


@pytest.fixture
def package(run) -> Path:
    """A small component, which belongs to the caller."""
    directory = run.directory / "component"
    (directory / "assets").mkdir(parents=True)
    (directory / "Component.toml").write_text("schema = 1\n")
    (directory / "a.wasm").write_bytes(b"\0asm")
    (directory / "assets" / "words").write_text("one two\n")
    return directory


@pytest.fixture
def agent(short_dir: Path) -> Iterator[dict[str, str]]:
    """A running ssh-agent, as the environment that leads to it."""
    socket = short_dir / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens, and then does
        yield {"SSH_AUTH_SOCK": str(socket)}
        process.send_signal(signal.SIGTERM)


def _key(run, kind: str = "ssh-ed25519", comment: str = "") -> Path:
    """A key of this kind in files as ssh-keygen makes them."""
    path = run.directory / f"{kind}{comment}.key"
    path.write_bytes(signed.signer(kind).private)
    path.chmod(0o600)
    path.with_name(f"{path.name}.pub").write_text(f"{signed.signer(kind).line} {comment}\n")
    return path


def _ssh_keygen(*arguments: str | Path, message: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["ssh-keygen", "-Y", *arguments], input=message, capture_output=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("kind", IN_FILES)
def test_openssh_and_this_take_what_the_other_made(run, package: Path, kind: str) -> None:
    """Signed by `airssys sign` both verify it, signed by ssh-keygen both do; with another byte neither does."""
    key = _key(run, kind)
    signers = run.directory / "signers"
    signers.write_text(f'{ALICE} namespaces="airssys-*" {signed.signer(kind).line}\n')
    result = run.other_command("sign", package, "--key", key)
    assert result.code == 0, result.stderr
    statement = run.other_command("verify", package, "--statement").stdout
    ours = ("verify", package, "--signers", signers, "--json")
    theirs = ("verify", "-n", NAMESPACE, "-f", signers, "-I", ALICE, "-s", package / "Component.sig")
    checked = _ssh_keygen(*theirs, message=statement)
    assert checked.returncode == 0, checked.stderr
    made = _ssh_keygen("sign", "-q", "-n", NAMESPACE, "-f", key, message=statement)
    (package / "Component.sig").write_bytes(made.stdout)
    result = run.other_command(*ours)
    assert result.code == 0
    assert result.document()["signatures"][0]["identity"] == ALICE
    (package / "assets" / "words").write_text("one twO\n")
    assert run.other_command(*ours).code == 77
    statement = run.other_command("verify", package, "--statement").stdout
    assert _ssh_keygen(*theirs, message=statement).returncode != 0


@pytest.mark.parametrize("kind", signed.KINDS[5:])
def test_hardware_signatures_are_those_of_openssh(run, kind: str) -> None:
    """The form in which a FIDO key signs, which is made here without one, is taken by ssh-keygen as it is by us."""
    block = signed.sshsig(signed.signer(kind), b"message")
    (found,) = read_signatures(block)
    assert isinstance(found, Signature)
    (run.directory / "sig").write_bytes(block)
    check = ("check-novalidate", "-n", NAMESPACE, "-s", run.directory / "sig")
    assert verify(found, b"message") == ""
    assert _ssh_keygen(*check, message=b"message").returncode == 0
    assert verify(found, b"messagE")
    assert _ssh_keygen(*check, message=b"messagE").returncode != 0


@pytest.mark.parametrize(
    ("options", "namespace", "timestamp"),
    [
        (options, namespace, timestamp)
        for options, namespace in [
            ("", NAMESPACE),
            ('namespaces="git,airssys-*"', NAMESPACE),
            ('namespaces="*,!airssys-package"', NAMESPACE),
            ('namespaces="airssys-packag?"', NAMESPACE),
            ('namespaces="airssys-package"', "git"),
        ]
        for timestamp in ["20230701Z"]
    ]
    + [
        (options, NAMESPACE, timestamp)
        for options in ['valid-after="20230701"', 'valid-before="202307010000"', 'valid-before="20230101Z"']
        for timestamp in ["20230630225959Z", "20230630230000Z", "20230630230001Z", "20230101Z", "20221231235959Z"]
    ],
)
def test_a_list_of_signers_is_read_as_openssh_reads_it(run, options: str, namespace: str, timestamp: str) -> None:
    """Options, patterns, both ends of times, local time in summer: for each line the same answer."""
    text = f"{ALICE} {options} {signed.signer('ssh-ed25519').line}\n"
    (run.directory / "signers").write_text(text)
    (run.directory / "sig").write_bytes(signed.sshsig(signed.signer("ssh-ed25519"), b"message", namespace))
    theirs = _ssh_keygen(
        *("verify", "-n", namespace, "-f", run.directory / "signers", "-I", ALICE, "-s", run.directory / "sig"),
        f"-Overify-time={timestamp}",
        message=b"message",
        TZ="CET-1CEST,M3.5.0,M10.5.0/3",
    )
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    try:
        allowed = read_allowed_signers(text.encode(), "signers")
        key = read_public_key(signed.signer("ssh-ed25519").line)
        signer, why = find_signer(allowed.signers, key, namespace, parse_time(timestamp))
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()
    assert (signer is not None) is (theirs.returncode == 0), (why, theirs.stderr)


_IDENTITIES = ("alice@x", "alice@x,bob@x", "*", "*@x", '"alice@x"', "al?ce@x", "!bob,*", 'alice@x"', '"alice@x')
_OPTIONS = (
    *('namespaces="airssys-package"', 'namespaces="a*"', 'namespaces="git"', 'namespaces="*,!git"', "namespaces=x"),
    *('NAMESPACES="*"', 'namespaces="!airssys-package,*"', 'namespaces="a\\"b,airssys-package"', 'namespaces=""'),
    *('valid-after="20230701Z"', 'valid-after="20230702Z"', 'valid-after="0"', 'valid-before="20230701z"'),
    *('valid-before="202307010000UTC"', 'valid-before="20230630235959Z"', 'valid-before="99990101Z"'),
    *("cert-authority", "verify-required"),
)


def test_no_list_of_signers_is_read_wider_than_by_openssh(run) -> None:
    """Two hundred random lines: who counts here counts there; and there nobody more, but for what is an error here."""
    random = Random(20230701)
    line, other = signed.signer("ssh-ed25519").line, signed.signer("ecdsa-sha2-nistp256").line
    key = read_public_key(line)
    sig, signers = run.directory / "sig", run.directory / "signers"
    sig.write_bytes(signed.sshsig(signed.signer("ssh-ed25519"), b"message"))
    counts = {True: 0, False: 0}
    for _ in range(200):
        options = random.choice([",", ",", ",", ",,", ", "]).join(
            random.choices(_OPTIONS, k=random.choice([0, 1, 1, 2]))
        )
        end = random.choice(["", " c", "\r", "\t# x"])
        fields = [random.choice(_IDENTITIES), options, random.choice([line, line, line, other, line[:-1]]) + end]
        text = random.choice([" ", "\t", "  "]).join(filter(None, fields))
        signers.write_text(f"{text}\n")
        theirs = _ssh_keygen(
            *("verify", "-n", NAMESPACE, "-f", signers, "-I", "alice@x", "-s", sig, "-Overify-time=20230701Z"),
            message=b"message",
        )
        try:
            allowed = read_allowed_signers(f"{text}\n".encode(), "signers")
        except ConfigError:
            continue
        signer, why = find_signer(allowed.signers, key, NAMESPACE, parse_time("20230701Z"))
        assert (signer is not None) is (theirs.returncode == 0), (text, why, theirs.stderr)
        counts[signer is not None] += 1
    assert min(counts.values()) > 20, counts


def test_an_agent_signs(run, package: Path, agent: dict[str, str]) -> None:
    """With the public half alone, once the agent has the private one; before, that is told and nothing is written."""
    key = _key(run)
    public = key.with_name(f"{key.name}.pub")
    private = key.rename(run.directory / "elsewhere")
    sign = [run.command_line_path, "sign", str(package), "--key", str(public)]
    environment = {**run.environment, **agent}
    refused = subprocess.run(sign, capture_output=True, env=environment, text=True)
    assert refused.returncode == 65
    assert "ssh-keygen did not sign" in refused.stderr
    assert not (package / "Component.sig").exists()
    subprocess.run(["ssh-add", "-q", str(private)], check=True, env=environment)
    made = subprocess.run(sign, capture_output=True, env=environment, text=True)
    assert made.returncode == 0, made.stderr
    assert run.other_command("verify", package).code == 0


def test_a_passphrase_is_asked_for(run, package: Path) -> None:
    """By ssh-keygen, in its own way: with the right one it is signed, with a wrong one nothing is written."""
    key = _key(run)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "right one", "-f", str(key)], check=True)
    ask = run.directory / "ask"
    sign = [run.command_line_path, "sign", str(package), "--key", str(key), "--json"]
    environment = {**run.environment, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    for passphrase, code in (("wrong one", 65), ("right one", 0)):
        assert not (package / "Component.sig").exists()
        ask.write_text(f"#!/bin/sh\necho {passphrase}\n")
        ask.chmod(0o755)
        made = subprocess.run(sign, capture_output=True, env=environment)
        assert made.returncode == code, made
        assert (b"passphrase" in made.stderr) is (code != 0)
        assert ("error" in json.loads(made.stdout)) is (code != 0)
    assert run.other_command("verify", package).code == 0


def test_others_signatures_are_kept_while_they_hold(run, package: Path) -> None:
    """Beside one's own, which is replaced; those that are void or damaged go, and each is named."""
    keys = {kind: _key(run, kind) for kind in IN_FILES[:2]}
    for kind in (*IN_FILES[:2], IN_FILES[0]):
        result = run.other_command("sign", package, "--key", keys[kind], "--json")
    document = result.document()
    assert document["replaced"] is True
    assert [each["kind"] for each in document["kept"]] == [IN_FILES[1]]
    assert document["dropped"] == []
    assert stat.S_IMODE((package / "Component.sig").stat().st_mode) == 0o644
    with (package / "Component.sig").open("ab") as file:
        file.write(b"text\n")
    (package / "a.wasm").write_bytes(b"\0asn")
    result = run.other_command("sign", package, "--key", keys[IN_FILES[1]])
    assert result.code == 0
    lines = result.stdout.decode().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("dropped: ")] == [IN_FILES[1], IN_FILES[0], "a"]
    assert result.stdout.count(b"it was made over other bytes") == 2
    verified = run.other_command("verify", package, "--json").document()
    assert [each["kind"] for each in verified["signatures"]] == [IN_FILES[1]]
    assert verified["verified"] is True


def test_who_counts_is_said_by_the_lists(run, package: Path) -> None:
    """Listed and not revoked, now: 0; nobody of the list, expired, not yet valid or revoked: 77, with the reason."""
    key = _key(run)
    assert run.other_command("sign", package, "--key", key).code == 0
    mine, other = signed.signer("ssh-ed25519").line, signed.signer("ssh-rsa").line
    (run.directory / "revoked").write_text(f"# gone\n{mine}\n")
    for text, more, code, words in [
        (f"{ALICE} {mine}", (), 0, f"signed by {ALICE}"),
        (f"bob@x {other} {mine} {ALICE}", (), 77, "isn't listed"),
        (f'{ALICE} valid-before="20200101Z" {mine}', (), 77, "was valid until 2020-01-01"),
        (f'{ALICE} valid-after="29990101Z" {mine}', (), 77, "valid from 2999-01-01"),
        (f'{ALICE} namespaces="git" {mine}', (), 77, "listed for git only"),
        (f"*@example.com cert-authority {mine}", (), 77, "certificates are not supported"),
        (f"{ALICE} {mine}", ("--revoked", run.directory / "revoked"), 77, "its key is revoked"),
        (f"{ALICE} nonsense", (), 65, "signers, line 1"),
    ]:
        (run.directory / "signers").write_text(f"{text}\n")
        result = run.other_command("verify", package, "--signers", run.directory / "signers", *more)
        assert result.code == code, (text, result)
        assert words in result.stdout.decode() + result.stderr
    archive = run.file("package.tar.gz", "")
    (run.directory / "nothing").mkdir()
    assert (
        f"{run.directory}/nothing: no Component.toml" in run.other_command("verify", run.directory / "nothing").stderr
    )
    assert "unpack an archive first" in run.other_command("verify", archive).stderr


def test_what_can_not_be_signed(run, package: Path) -> None:
    """A key that would be given away, one that is too weak, an output within, no ssh-keygen: told, nothing written."""
    key = _key(run)
    within = package / "id"
    within.write_bytes(key.read_bytes())
    within.chmod(0o600)
    weak = run.directory / "weak"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(weak)], check=True)
    for arguments, code, words in [
        (("--key", within), 65, "would go with it"),
        (("--key", weak), 65, "1024 bits"),
        (("--key", run.directory / "none"), 65, "no such file"),
        (("--key", package / "a.wasm"), 65, "would go with it"),
        (("--key", key, "--output", package / "assets" / "sig"), 64, "lies in the package"),
        (("--key", key, "--output", "-", "--json"), 64, "both print"),
        (("--key", key, "--output", run.directory / "none" / "sig"), 73, "no such file"),
        ((), 64, "--key"),
    ]:
        result = run.other_command("sign", package, *arguments)
        told = result.stderr + result.stdout.decode()
        assert (result.code, words in told) == (code, True), (arguments, result)
    # The command itself is a shell script, which needs the usual PATH to find Python.
    (run.directory / "bin").mkdir()
    for name in ("sh", "readlink", "dirname", "python3"):
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True).stdout.strip()
        if found:
            (run.directory / "bin" / name).symlink_to(found)
    environment = {**run.environment, "PATH": str(run.directory / "bin")}
    missing = subprocess.run(
        [run.command_line_path, "sign", str(package), "--key", str(key)],
        capture_output=True,
        env=environment,
        text=True,
    )
    assert missing.returncode == 69, missing
    assert "apt-get install openssh-client" in missing.stderr
    assert not (package / "Component.sig").exists()
    within.unlink()
    assert run.other_command("sign", package, "--key", key).code == 0


def test_a_signature_can_be_made_elsewhere(run, package: Path) -> None:
    """`--output` gives the signature alone, and leaves the package as it was; put beside it, it holds."""
    key = _key(run)
    printed = run.other_command("sign", package, "--key", key, "--output", "-")
    assert printed.code == 0
    assert run.other_command("sign", package, "--key", key, "--output", run.directory / "sig").code == 0
    assert (run.directory / "sig").read_bytes() == printed.stdout
    assert not (package / "Component.sig").exists()
    unsigned = run.other_command("verify", package)
    assert (unsigned.code, b"not signed" in unsigned.stdout) == (77, True)
    (package / "Component.sig").write_bytes(printed.stdout)
    assert run.other_command("verify", package).code == 0


def test_each_of_several_can_be_had_for_openssh(run, package: Path) -> None:
    """The second of two, taken out as the reference says, is verified by ssh-keygen."""
    for kind in IN_FILES[:2]:
        assert run.other_command("sign", package, "--key", _key(run, kind)).code == 0
    (run.directory / "signers").write_text(f"{ALICE} {signed.signer(IN_FILES[1]).line}\n")
    (line,) = (line.strip() for line in REFERENCE.read_text().splitlines() if line.startswith("    awk "))
    subprocess.run(line.replace("DIR", str(package)), shell=True, check=True, cwd=run.directory)
    statement = run.other_command("verify", package, "--statement").stdout
    for block, code in ((run.directory / "second.sig", 0), (package / "Component.sig", 255)):
        checked = _ssh_keygen(
            *("verify", "-n", NAMESPACE, "-f", run.directory / "signers", "-I", ALICE, "-s", block), message=statement
        )
        assert checked.returncode == code, checked


def test_a_package_is_signed_whole_or_not_at_all(run, package: Path) -> None:
    """One that changes while its owner types a passphrase isn't signed; nor one that holds what no package does."""
    key = _key(run)
    slow = run.directory / "bin" / "ssh-keygen"
    slow.parent.mkdir()
    real = subprocess.run(["sh", "-c", "command -v ssh-keygen"], capture_output=True, text=True).stdout.strip()
    slow.write_text(f'#!/bin/sh\necho more >>{shlex.quote(str(package))}/assets/words\nexec {real} "$@"\n')
    slow.chmod(0o755)
    sign = [run.command_line_path, "sign", str(package), "--key", str(key)]
    environment = {**run.environment, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    changed = subprocess.run(sign, capture_output=True, env=environment, text=True)
    assert (changed.returncode, "changed while it was signed" in changed.stderr) == (65, True)
    assert not (package / "Component.sig").exists()
    (package / "link").symlink_to("/etc/passwd")
    linked = run.other_command("sign", package, "--key", key)
    assert (linked.code, "symbolic link" in linked.stderr) == (65, True)
    (package / "link").unlink()
    (package / "Component.sig").symlink_to(run.directory / "target")
    linked = run.other_command("sign", package, "--key", key)
    assert (linked.code, "symbolic link" in linked.stderr) == (65, True)
    assert not (run.directory / "target").exists()
    (package / "Component.sig").unlink()
    assert run.other_command("sign", package, "--key", key).code == 0
    assert read_directory(str(package)).file("assets/words") is not None
