"""Attacks on trust: a package that vouches for itself, lies where anybody could put it, or isn't what was signed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from ipc.messages import EngineSettings, WorkerLimits
from ipc.policy.document import PolicyDocument
from ipc.security_context import context_of
from supervisor.manifest import load_manifest
from supervisor.packages.directory import read_directory
from supervisor.run.request import RunRequest
from supervisor.run.running import open_program
from supervisor.signing.keys import PublicKey, read_public_key
from supervisor.trust.judge import judge_directory, require_judged
from supervisor.trust.sources import KeySource, LocalSource, TrustSource

MANIFEST = """schema = 1
[component]
name = "csv"
version = "1.0.0"
wasm = "csv.wasm"
"""
GUESTS = Path(__file__).resolve().parents[1] / "guests"
WASM = b"\0asm\1\0\0\0"


@pytest.fixture
def package(short_dir: Path) -> Callable[[str], Path]:
    """Make a package at a place beneath the test's own directory, which nobody else can write."""

    def make(place: str) -> Path:
        directory = short_dir / place
        directory.mkdir(parents=True)
        (directory / "Component.toml").write_text(MANIFEST)
        (directory / "csv.wasm").write_bytes(WASM)
        for each in (directory, *directory.parents):
            if each.is_relative_to(short_dir):
                each.chmod(0o755)
        for each in directory.iterdir():
            each.chmod(0o644)
        return directory

    return make


@pytest.fixture
def key(short_dir: Path) -> Callable[[str], tuple[Path, PublicKey]]:
    """Make a key of OpenSSH's with this comment: its private file, and the public half."""

    def make(comment: str) -> tuple[Path, PublicKey]:
        path = short_dir / f"key-{len(list(short_dir.glob('key-*')))}"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return path, read_public_key((path.parent / f"{path.name}.pub").read_text())

    return make


def sign(directory: Path, key: Path, namespace: str = "airssys-package") -> None:
    """Sign a package by ssh-keygen itself; a signature that is there stays before the new one."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace],
        input=read_directory(str(directory)).statement,
        capture_output=True,
        check=True,
    )
    with (directory / "Component.sig").open("ab") as file:
        file.write(done.stdout)


def level(directory: Path, *sources: TrustSource) -> str:
    """Return how far a directory is trusted."""
    return judge_directory(str(directory), sources).decision.level


def local(pattern: Path | str) -> LocalSource:
    """Return an entry that trusts a place."""
    return LocalSource(0, "airssys.toml:3", str(pattern))


def test_what_a_package_says_of_itself_counts_for_nothing(airssys, package: Callable[[str], Path]) -> None:
    """Settings, provenance, keys and trust inside a package, even in the working directory, are not looked at."""
    directory = package("elsewhere/csv")
    settings = f'schema = 1\n[[trust.sources]]\nlocal = "{directory}"\n'
    (directory / "airssys.d").mkdir()
    for name in ("airssys.toml", "airssys.d/trust.toml", "provenance.json", "trusted", "allowed_signers"):
        (directory / name).write_text(settings)
    (directory / ".airssys").mkdir()
    (directory / ".airssys" / "airssys.toml").write_text(settings)
    refused = airssys("trust", "check", ".", "--json", cwd=directory)
    assert refused.code == 77
    assert refused.json()["trusted"] is False
    (directory / "Component.toml").write_text(MANIFEST + '[trust]\nlevel = "trusted"\n')
    told = airssys("run", ".", cwd=directory)
    assert told.code == 65
    assert "trust" in told.stderr
    (directory / "Component.toml").write_text(MANIFEST)
    for file in (directory / "airssys.toml", directory / "airssys.d" / "trust.toml"):
        file.chmod(0o644)
    (directory / "airssys.d").chmod(0o755)
    control = airssys("trust", "check", directory, "--config", directory / "airssys.toml")
    assert control.code == 0, control.stdout + control.stderr


def test_the_same_package_from_another_place_is_not_trusted(package: Callable[[str], Path]) -> None:
    """A name, a version and even the same bytes from elsewhere give nothing."""
    real, copy = package("components/csv"), package("elsewhere/csv")
    assert read_directory(str(real)) == read_directory(str(copy))
    source = local(real.parent / "*")
    assert level(copy, source) == "unknown"
    assert level(real.parent / ".." / "elsewhere" / "csv", source) == "unknown"
    assert level(real, source) == "trusted"


def test_a_link_in_a_trusted_directory_trusts_nothing_else(package: Callable[[str], Path]) -> None:
    """A link beside trusted components is judged by where it leads, and a package with a link in it is none."""
    real, evil = package("components/csv"), package("elsewhere/evil")
    source = local(real.parent / "**")
    (real.parent / "evil").symlink_to(evil)
    assert level(real.parent / "evil", source) == "unknown"
    assert level(real, source) == "trusted"
    (evil.parent / "good").symlink_to(real)
    assert level(evil.parent / "good", source) == "trusted"
    (real / "more.wasm").symlink_to(evil / "csv.wasm")
    assert level(real, source) == "unknown"


@pytest.mark.parametrize("which", ["components", "components/set", "components/set/csv", "components/set/csv/csv.wasm"])
def test_a_place_that_others_can_write_trusts_nothing(package: Callable[[str], Path], which: str) -> None:
    """From the pattern's fixed part down to the files: who can write there could have put anything there."""
    directory = package("components/set/csv")
    top = directory.parents[2]
    source = local(top / "components" / "**")
    mode = (top / which).stat().st_mode
    assert level(directory, source) == "trusted"
    (top / which).chmod(0o777)
    judged = judge_directory(str(directory), (source,))
    assert judged.decision.level == "unknown"
    assert str(top / which) in judged.decision.reason
    (top / which).chmod(mode)
    assert level(directory, source) == "trusted"


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_place_that_others_can_exchange_trusts_nothing(package: Callable[[str], Path], mode: int) -> None:
    """Above the pattern's fixed part, too: who can rename there could swap it for a moment; a sticky directory is one
    where they can't."""
    directory = package("shared/components/csv")
    source = local(directory.parent / "*")
    shared = directory.parents[1]
    shared.chmod(mode)
    judged = judge_directory(str(directory), (source,))
    assert judged.decision.level == "unknown"
    assert f"lies in {shared}" in judged.decision.reason
    shared.chmod(0o1777)
    assert level(directory, source) == "trusted"


@pytest.mark.needs_root
def test_a_place_that_belongs_to_somebody_else_trusts_nothing(package: Callable[[str], Path]) -> None:
    """The owner of a directory, or of a file in it, decides what it holds."""
    directory = package("components/csv")
    source = local(directory.parent / "*")
    for path in (directory, directory / "csv.wasm", directory.parent):
        os.chown(path, 65534, 65534)
        assert level(directory, source) == "unknown"
        os.chown(path, 0, 0)
        assert level(directory, source) == "trusted"


def test_what_no_signature_covers_is_not_read(airssys, package: Callable[[str], Path]) -> None:
    """What lies in its directory and is no part of the package could be exchanged after it was approved or signed."""
    directory = package("csv")
    shutil.copy(GUESTS / "tool.wasm", directory / "csv.wasm")
    places = [f"{name}/code" for name in (".git", ".airssys", "data")] + ["Component.sig"]
    for place in places:
        (directory / place).parent.mkdir(exist_ok=True)
        (directory / place).write_text("code of somebody's\n")
    reading = [word for place in places for word in ("cat", f"${{component}}/{place}", ",")]
    writing = [word for place in places for word in ("write", f"${{component}}/{place}", "x", ",")]
    (directory / "Component.toml").write_text(
        f"{MANIFEST}args = {json.dumps([*reading, *writing, 'cat', '/nowhere'])}\n"
        '[capabilities.filesystem]\nread = ["${component}/**"]\nwrite = ["${component}/**"]\n'
    )
    for path in directory.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)  # so that it is the policy that refuses
    directory.chmod(0o777)
    ran = airssys("run", directory, "--grant", "asked")
    assert ran.stdout.count("code of somebody's") == 1, ran.stdout + ran.stderr
    for place in places:
        refused = place != "data/code"
        assert (f"cat {directory}/{place}: EACCES" in ran.stdout) == refused
        assert (f"write {directory}/{place}: EACCES" in ran.stdout) == refused
    assert (directory / "data/code").read_text() == "x"


def test_no_component_says_yes_for_another_supervisor(airssys, short_dir: Path) -> None:
    """Nothing is written into the state of an `airssys up` of any directory, nor into what is installed there."""
    project = short_dir / "project"
    (project / ".airssys" / "grants").mkdir(parents=True)
    for path in (project, *project.rglob("*")):
        path.chmod(0o777)  # so that it is the policy that refuses
    places = [".airssys/grants/" + "ab" * 32, ".airssys/approvals.new", ".AIRSSYS", ".airssys-packages", "grants"]
    made = [word for place in places for word in ("write", f"{project}/{place}", "yes", ",")]
    moves = [
        "mkdir",
        f"{project}/other",
        ",",
        "rename",
        f"{project}/other",
        f"{project}/.airssys-packages",
        ",",
        "cat",
        "/",
    ]
    ran = airssys(
        "run", GUESTS / "tool.wasm", "--read", f"{project}/**", "--write", f"{project}/**", "--", *made, *moves
    )
    for place in places:
        refused = place != "grants"
        assert (f"write {project}/{place}: EACCES" in ran.stdout) == refused, ran.stdout + ran.stderr
    assert f"rename {project}/other {project}/.airssys-packages: EACCES" in ran.stdout
    assert sorted(os.listdir(project)) == [".airssys", "grants", "other"]
    assert os.listdir(project / ".airssys" / "grants") == []


def test_no_component_writes_what_will_be_configuration(airssys, short_dir: Path) -> None:
    """A drop-in that isn't there yet, made, moved or linked there, would be read at the next start."""
    etc = short_dir / "etc"
    etc.mkdir()
    config = etc / "airssys.toml"
    config.write_text("schema = 1\n")
    config.chmod(0o600)
    other = short_dir / "other"
    other.mkdir()
    other.chmod(0o777)
    etc.chmod(0o1777)  # so that it is the policy that refuses
    calls = [
        ("mkdir", f"{etc}/airssys.d"),
        ("write", f"{etc}/airssys.d/x.toml", "schema = 1"),
        ("rename", str(other), f"{etc}/airssys.d"),
        ("symlink", "../other", f"{etc}/airssys.d"),
        ("write", f"{other}/x.toml", "schema = 1"),
    ]
    words = [word for call in calls for word in (*call, ",")][:-1]
    everything = ("--read", f"{short_dir}/**", "--write", f"{short_dir}/**")
    ran = airssys("run", GUESTS / "tool.wasm", "--config", config, *everything, "--", *words)
    assert sorted(os.listdir(etc)) == ["airssys.toml"], ran.stdout
    assert ran.stderr.count("[A1101") == 2, ran.stderr
    assert (other / "x.toml").read_text() == "schema = 1"


@pytest.mark.any_user  # ssh-keygen wants a user with a name
@pytest.mark.parametrize("change", ["program", "manifest", "added", "removed", "renamed", "another-case"])
def test_a_signature_is_over_every_byte(
    package: Callable[[str], Path], key: Callable[[str], tuple[Path, PublicKey]], change: str
) -> None:
    """One byte, one file or one name more or less, and nobody has signed it."""
    directory = package("csv")
    (directory / "data").write_text("x")
    private, public = key("alice")
    source = KeySource(0, "airssys.toml:3", public)
    sign(directory, private)
    assert level(directory, source) == "trusted"
    if change == "program":
        (directory / "csv.wasm").write_bytes(WASM + b"\0")
    elif change == "manifest":
        (directory / "Component.toml").write_text(MANIFEST + "\n")
    elif change == "added":
        (directory / "more").write_text("")
    elif change == "removed":
        (directory / "data").unlink()
    else:
        (directory / "data").rename(directory / ("data2" if change == "renamed" else "Data"))
    assert level(directory, source) == "unknown"


@pytest.mark.any_user
def test_another_signature_is_none(
    package: Callable[[str], Path], key: Callable[[str], tuple[Path, PublicKey]]
) -> None:
    """Moved from another package, made for another purpose, by a key with the same comment, or no signature at all."""
    directory, other = package("csv"), package("other")
    (other / "more").write_text("x")
    private, public = key("alice@example.com")
    look_alike, _ = key("alice@example.com")
    source = KeySource(0, "airssys.toml:3", public, "alice@example.com")
    sign(other, private)
    assert level(other, source) == "trusted"
    shutil.copy(other / "Component.sig", directory / "Component.sig")
    assert level(directory, source) == "unknown"
    for signer, namespace in ((private, "file"), (private, "git"), (look_alike, "airssys-package")):
        (directory / "Component.sig").unlink()
        sign(directory, signer, namespace)
        judged = judge_directory(str(directory), (source,))
        assert judged.decision.level == "unknown"
    (directory / "Component.sig").unlink()
    (directory / "Component.sig").symlink_to(other / "Component.sig")
    assert level(directory, source) == "unknown"
    (directory / "Component.sig").unlink()
    (directory / "Component.sig").write_bytes(b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")
    assert level(directory, source) == "unknown"
    sign(directory, private)
    assert level(directory, source) == "trusted"


@pytest.mark.any_user
def test_a_revoked_or_expired_key_signs_nothing(
    package: Callable[[str], Path], key: Callable[[str], tuple[Path, PublicKey]]
) -> None:
    """What was trusted once isn't after its time, nor once any entry revokes the key."""
    directory = package("csv")
    private, public = key("alice")
    sign(directory, private)
    good = KeySource(0, "airssys.toml:3", public)
    assert level(directory, good) == "trusted"
    assert level(directory, KeySource(0, "airssys.toml:3", public, valid_before_s=1_000_000_000)) == "unknown"
    assert level(directory, KeySource(0, "airssys.toml:3", public, valid_after_s=2**40)) == "unknown"
    assert level(directory, good, KeySource(1, "airssys.d/revoked.toml:3", public, revoked=True)) == "unknown"


def test_what_was_judged_is_what_runs(package: Callable[[str], Path]) -> None:
    """A manifest or program that is exchanged after it was judged, before it is read or started, is refused."""
    directory = package("components/csv")
    manifest = load_manifest(str(directory))
    judged = judge_directory(str(directory), (local(directory.parent / "*"),))
    assert judged.trusted
    document = PolicyDocument(component="csv", instance="", grants=())
    request = RunRequest(
        context=context_of(
            document, judged.decision.approval, "trusted", component_digest=require_judged(judged, manifest)
        ),
        wasm_path=manifest.wasm_path,
        arguments=(),
        environment=(),
        mounts=(),
        document=document,
        limits=WorkerLimits(memory_bytes=1 << 20, output_bytes=0),
        engine=EngineSettings(),
    )
    open_program(request).close()
    (directory / "csv.wasm").write_bytes(WASM + b"\0\2\1x")
    with pytest.raises(ConfigError, match="changed after it was granted"):
        open_program(request)
    (directory / "Component.toml").write_text(MANIFEST.replace('"1.0.0"', '"1.0.1"'))
    with pytest.raises(ConfigError, match="changed while it was found out"):
        require_judged(judged, load_manifest(str(directory)))
