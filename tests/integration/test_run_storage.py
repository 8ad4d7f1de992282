"""The storage quota of `airssys run`: what it counts, across runs and for whom, and how it ends what goes beyond it.

The warden answers EDQUOT and EXDEV (tests/containment/test_storage.py); wasmtime has no word for them and tells its
guest EIO.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.host.host import TMP_PREFIX

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"
MIB = 1 << 20

MANIFEST = """schema = 1

[component]
name = "NAME"
version = "1.0.0"
wasm = "tool.wasm"

[parameters]
out = { type = "directory", description = "where it writes besides" }

[component.mounts]
"/keep" = "${data}"
"/t" = "${tmp}"
"/out" = "${param.out}"

[capabilities.filesystem]
read = ["${data}/", "${tmp}/", "${param.out}/"]
write = ["${data}/", "${tmp}/", "${param.out}/"]
list = ["${data}/", "${tmp}/", "${param.out}/"]

[quota]
storage = "4MB"
"""

Component = Callable[..., dict[str, object]]


def _data(run, name: str) -> Path:
    return run.state.parent / "state-data" / name


@pytest.fixture
def component(run, request: pytest.FixtureRequest) -> Component:
    """Runs a component of the test's own with the tool's commands; returns the document of `--json`."""
    name = "s-" + "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_"))[:55].strip("-")
    directory = run.folder("component")
    shutil.copy(TOOL, directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST.replace("NAME", name))
    run.folder("out")

    def start(*commands: str, options: tuple[str, ...] = ()) -> dict[str, object]:
        guest = tuple(" , ".join(commands).split(" "))
        result = run(directory, "--grant", "asked", "--set", "out=out", "--json", *options, guest=guest)
        return {**result.document(), "name": name}

    return start


def _storage(document: dict[str, object]) -> tuple[int, str]:
    storage = document["storage"]
    assert isinstance(storage, dict)
    assert storage["limit_bytes"] == 4_000_000
    return storage["used_bytes"], storage["status"]


def test_data_counts_in_every_run_and_tmp_in_its_own(run, component: Component) -> None:
    """What a run left in ${data} is used when the next one starts; ${tmp} is gone with its run."""
    first = component("fill /keep/a 2", "fill /t/b 1")
    assert first["exit_code"] == 0, first
    used, status = _storage(first)
    assert 3 * MIB <= used < 3 * MIB + 65_536
    assert status == "ok"
    second = component("ls /keep", "ls /t")
    assert second["stdout"] == "a\n"
    assert 2 * MIB <= _storage(second)[0] < 2 * MIB + 65_536


def test_over_the_quota_it_may_still_remove(run, component: Component) -> None:
    """Beyond its quota it is refused what needs room, by name and in the log; what it removes makes room again."""
    over = component("fill /keep/a 3", "fill /keep/b 3", "sleep 60000")
    assert (over["outcome"], over["exit_code"], over["code"]) == ("limit", 75, "A2009"), over
    assert "storage quota of 4 MB" in str(over["message"])
    used, status = _storage(over)
    assert (used > 4_000_000, status) == (True, "exceeded")
    refused = component("write /keep/c x", "mkdir /keep/d", "append /keep/a x", "trunc /keep/a 10")
    assert refused["stdout"].split("\n")[:3] == [
        "write /keep/c: EIO",
        "mkdir /keep/d: EIO",
        "append /keep/a: EIO",
    ]
    assert {(d["code"], d["action"]) for d in refused["denials"]} == {("A1501", "filesystem.write")}
    assert " MB of 4 MB are used" in refused["denials"][0]["reason"]
    record = next(r for r in reversed(run.records()) if r["code"] == "A1501")
    assert (record["quota"]["name"], record["quota"]["limit"], record["quota"]["usage"]) == (
        "storage",
        4_000_000,
        used,
    )
    freed = component("unlink /keep/a", "write /keep/c x", "ls /keep")
    assert freed["stdout"] == "unlink /keep/a: ok\nwrite /keep/c: ok\nb\nc\n"
    assert _storage(freed) == (used - 3 * MIB + 4096, "ok")


def test_what_others_put_into_data_counts_and_what_they_remove_is_room(run, component: Component) -> None:
    """It is a level of what lies there: the host's files count, and their removal shows at once."""
    name = component("print x")["name"]
    large = _data(run, name) / "of-the-host"
    large.write_bytes(bytes(4 * MIB))
    large.chmod(0o600)
    target = run.directory / "component"
    guest = ("write", "/keep/a", "x", ",", "wait-stdin", ",", "write", "/keep/b", "x")
    with run.start(target, "--grant", "asked", "--set", "out=out", guest=guest) as process:
        assert process.stdout.readline() == b"write /keep/a: EIO\n"
        large.unlink()
        stdout, stderr = process.communicate(b"x", 60)
    assert stdout.splitlines()[-1] == b"write /keep/b: ok", (stdout, stderr)


def test_what_is_moved_out_goes_on_counting(component: Component) -> None:
    """A quota isn't evaded by moving files out of ${data}: what this run made counts wherever it is."""
    document = component(
        "fill /keep/a 3", "rename /keep/a /out/a", "fill /keep/b 3", "rename /keep/b /out/b", "sleep 60000"
    )
    assert document["outcome"] == "limit", document
    assert document["limit"]["name"] == "storage"


def test_what_is_moved_in_counts(run, component: Component) -> None:
    """A file that was there before counts nothing outside and all of it in ${data}; a directory isn't moved across."""
    run.file("out/large", bytes(7 * MIB // 2))
    run.file("out/small", bytes(MIB))
    run.folder("out/d")
    own = _data(run, component("print x")["name"])
    document = component(
        "fill /keep/own 1",
        "append /out/large x",
        "rename /out/large /keep/large",
        "link /out/large /keep/large",
        "rename /out/small /keep/small",
        "rename /out/d /keep/d",
        f"rename {own} {run.directory}/out/all",
    )
    lines = document["stdout"].splitlines()
    assert lines == [
        "fill /keep/own: ok 1048576 bytes",
        "append /out/large: ok",
        "rename /out/large /keep/large: EIO",
        "link /out/large /keep/large: EIO",
        "rename /out/small /keep/small: ok",
        "rename /out/d /keep/d: EIO",
        # Root's components can't even look at the directory that it lies in.
        f"rename {own} {run.directory}/out/all: {'EACCES' if os.geteuid() == 0 else 'EIO'}",
    ]
    assert 2 * MIB < _storage(document)[0] < 2 * MIB + 65_536


def test_tmp_is_removed_at_a_limit(run, component: Component) -> None:
    """However a run ends, nothing of its ${tmp} is left."""
    name = component("print x")["name"]
    # Those of runs that other tests killed are swept later.
    before = {entry for entry in os.listdir(_data(run, name).parent) if entry.startswith(TMP_PREFIX)}
    assert component("fill /t/a 3", "fill /t/b 3", "sleep 60000")["outcome"] == "limit"
    after = {entry for entry in os.listdir(_data(run, name).parent) if entry.startswith(TMP_PREFIX)}
    assert after <= before


def test_no_components_data_is_taken_for_what_a_killed_run_left(run) -> None:
    """What is swept has a prefix that no component's name can have."""
    directory = run.folder("component")
    shutil.copy(TOOL, directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST.replace("NAME", "tmp-0123456789abcdef"))
    run.folder("out")
    options = ("--grant", "asked", "--set", "out=out")
    assert run(directory, *options, guest=("write", "/keep/a", "kept")).code == 0
    assert not _data(run, "tmp-0123456789abcdef").name.startswith(TMP_PREFIX)
    assert not re.match(r"[a-z][a-z0-9-]*(@.*)?\Z", TMP_PREFIX)


def test_a_bare_program_has_the_default(run) -> None:
    """Without --storage 100 MB, by --storage less; what was there before doesn't count, what it gains does."""
    run.file("out/old", bytes(6 * MIB))
    options = ("--write", "out", "--read", "out", "--json")
    document = run.tool(*options, guest=("append", "out/old", "x", ",", "fill", "out/new", "1")).document()
    assert document["storage"]["limit_bytes"] == 100_000_000
    assert MIB < document["storage"]["used_bytes"] < MIB + 65_536
    less = run.tool(*options, "--storage", "2MB", guest=("fill", "out/a", "3")).document()
    assert less["stdout"].startswith("fill out/a: EFBIG after 19")
    assert less["storage"]["status"] == "critical"
    none = run.tool("--read", "out", "--json", guest=("cat", "out/a")).document()
    assert none["storage"] is None


def test_the_summary_tells_when_it_matters(run) -> None:
    """The line at the end of a run names the quota once it is nearly used up, and not before."""
    run.folder("out")
    assert "storage" not in run.tool("--write", "out", guest=("fill", "out/a", "1")).summary
    assert (
        "storage 1.049 MB of 1.2 MB (warning)"
        in run.tool("--write", "out", "--storage", "1200kB", guest=("fill", "out/b", "1")).summary
    )


def test_only_the_host_grants_more(run) -> None:
    """More than the host's maximum, `unlimited` too, is refused on the command line and in a manifest."""
    run.folder("out")
    fill = ("fill", "out/a", "1")
    for amount in ("11GB", "unlimited"):
        refused = run.tool("--write", "out", "--storage", amount, guest=fill)
        assert refused.code == 65
        assert f"storage {amount}: the host allows at most 10GB" in refused.stderr
    host = run.directory.parent / "airssys.toml"
    host.write_text('schema = 1\n[quota.maxima]\nstorage = "unlimited"\n[quota.defaults]\nstorage = "1MB"\n')
    host.chmod(0o600)
    lowered = run.tool("--config", host, "--write", "out", "--json", guest=fill).document()
    assert lowered["storage"]["limit_bytes"] == 1_000_000
    allowed = run.tool("--config", host, "--write", "out", "--storage", "unlimited", "--json", guest=fill).document()
    assert (allowed["exit_code"], allowed["storage"]) == (0, None)


def test_a_link_in_place_of_data_is_not_followed(run, component: Component) -> None:
    """A component that may remove its own ${data} and make a link there doesn't choose what the next grant is about."""
    name = component("print x")["name"]
    directory = _data(run, name)
    directory.rmdir()
    directory.symlink_to(run.folder("elsewhere"))
    target = run.directory / "component"
    result = run(target, "--grant", "asked", "--set", "out=out", guest=("write", "/keep/a", "x"))
    directory.unlink()
    assert result.code == 65
    assert "expected the component's own directory" in result.stderr
    assert not os.listdir(run.directory / "elsewhere")
