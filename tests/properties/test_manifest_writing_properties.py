"""What is written after a run, for any run: all that was used is covered, little else, and it can be read again."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipc.policy.capability import Grant
from ipc.policy.decision import Policy, PolicyDocument, compile_policy
from ipc.policy.patterns import parse_pattern
from supervisor.manifest import Variables, bind, parse_manifest
from supervisor.manifest.writer import Anchor, Draft, manifest_text, parameter_anchors
from supervisor.run.usage import LIST, READ, WRITE, smallest_patterns

names = st.sampled_from(
    [
        "a",
        "b",
        "c.go",
        "d.go",
        "x-12345",
        "x-67890",
        "tmpab12cd",
        "tmpxy98zw",
        "123456",
        "[a]",
        "*",
        "${x}",
        "?",
        " ",
        "é",
    ]
) | st.text("ab.", min_size=1, max_size=2).filter(lambda text: text not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
calls = st.sampled_from([{"openat2"}, {"newfstatat"}, {"openat2 O_PATH"}, {"openat2", "statx"}])


class ModelDisk:
    """A disk of files and the directories that they lie in."""

    def __init__(self, files: set[str]) -> None:
        """Take the files; a path that another one lies beneath is a directory."""
        self.kinds = {"/": "directory"}
        for path in files:
            self.kinds.setdefault(path, "file")
            while path := path.rpartition("/")[0]:
                self.kinds[path] = "directory"
        self.entries: dict[str, list[str]] = {}
        for path in self.kinds.keys() - {"/"}:
            directory, _, name = path.rpartition("/")
            self.entries.setdefault(directory or "/", []).append(name)

    def kind(self, path: str) -> str:
        """As the real one."""
        return self.kinds.get(path, "missing")

    def names(self, directory: str) -> list[str]:
        """As the real one."""
        return self.entries.get(directory, [])


@st.composite
def runs(draw: st.DrawFn) -> tuple[ModelDisk, dict[str, dict[str, set[str]]]]:
    """A disk after a run, and what the run used of it: also names that are gone again, and some that never were."""
    files = draw(st.sets(paths, max_size=40))
    whole = draw(st.lists(names, max_size=3)), draw(st.integers(0, 12))
    files |= {"/" + "/".join([*whole[0], f"{n}.c"]) for n in range(whole[1])}
    disk = ModelDisk(files)
    there = sorted(path for path in files if disk.kind(path) == "file")
    some = st.sets(st.sampled_from(there), max_size=40) if there else st.just(set())
    uses: dict[str, dict[str, set[str]]] = {}
    for action in (READ, WRITE):
        used = draw(some) | draw(st.sets(paths, max_size=8))
        used = {path for path in used if disk.kind(path) != "directory" and not _passes_through_a_file(path, disk)}
        uses[action] = {path: draw(calls) for path in sorted(used)}
    directories = sorted(path for path, kind in disk.kinds.items() if kind == "directory")
    uses[LIST] = {path: {"getdents64"} for path in draw(st.sets(st.sampled_from(directories), max_size=8))}
    return disk, uses


def _passes_through_a_file(path: str, disk: ModelDisk) -> bool:
    return any(disk.kind(path[:at]) == "file" for at, character in enumerate(path) if character == "/" and at)


def policy_of(patterns: dict[str, tuple[str, ...]]) -> Policy:
    """The policy that grants these patterns."""
    grants = tuple(Grant(action, text, "manifest") for action, texts in patterns.items() for text in texts)
    return compile_policy(PolicyDocument(component="p", instance="", grants=grants))


@settings(max_examples=150, deadline=None)
@given(run=runs())
def test_what_was_used_is_covered_and_little_else_is_in_reach(
    run: tuple[ModelDisk, dict[str, dict[str, set[str]]]],
) -> None:
    """Every use is allowed by the patterns for its action; the files within reach are at most 1.2 times those used."""
    disk, uses = run
    policy = policy_of(smallest_patterns(uses, disk))
    used: set[str] = set()
    for action in (READ, WRITE):
        for path, by in uses[action].items():
            rights = policy.rights(path)
            if "openat2" in by:
                used.add(path)
                needed = {action.partition(".")[2]} if action == WRITE or disk.kind(path) == "file" else set()
                assert needed <= rights, (action, path)
            assert rights or policy.reaches(path), path
    for path in uses[LIST]:
        assert "list" in policy.rights(path, is_directory=True), path
    reachable = {
        path for path, kind in disk.kinds.items() if kind == "file" and policy.rights(path) & {"read", "write"}
    }
    assert len(reachable - used) <= len(used) // 5


@settings(max_examples=100, deadline=None)
@given(run=runs(), data=st.data())
def test_what_was_renamed_can_be_renamed_under_what_is_written(
    run: tuple[ModelDisk, dict[str, dict[str, set[str]]]], data: st.DataObject
) -> None:
    """A file's old names have every right that its new ones have, and all that was used is covered as before."""
    disk, uses = run
    everything = {path for paths in uses.values() for path in paths}
    outer = {path[:at] for path in everything for at, character in enumerate(path) if character == "/"}
    files = sorted(path for path in uses[WRITE] if disk.kind(path) != "directory" and path not in outer)
    one = st.sampled_from(files) if files else st.nothing()
    pairs = data.draw(st.lists(st.tuples(one, one), max_size=8)) if files else []
    names: dict[str, set[str]] = {}
    for old, new in pairs:
        names.setdefault(old, set()).add(new)
        uses[WRITE][old] = uses[WRITE][new] = {"renameat2"}
    policy = policy_of(smallest_patterns(uses, disk, names))
    for old, new in pairs:
        assert {"write"} <= policy.rights(new) <= policy.rights(old), (old, new)
    for action in (READ, WRITE):
        for path, by in uses[action].items():
            if "openat2" in by and (action == WRITE or disk.kind(path) == "file"):
                assert action.partition(".")[2] in policy.rights(path), (action, path)


hostile = st.text(min_size=1, max_size=12).filter(
    lambda text: "/" not in text and "\0" not in text and text not in (".", "..")
)
hostile |= (
    st.binary(min_size=1, max_size=8)
    .map(lambda data: data.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape"))
    .filter(lambda text: text not in (".", ".."))
)
hostile_paths = st.lists(hostile, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
HERE = "/srv/here"


@settings(max_examples=100, deadline=None)
@given(
    used=st.sets(hostile_paths | hostile_paths.map(lambda path: HERE + path), min_size=1, max_size=8),
    denied=hostile_paths,
    arguments=st.lists(st.text(max_size=20).filter(lambda text: "\0" not in text), max_size=3),
    value=st.text(max_size=20).filter(lambda text: "\0" not in text),
    directory=hostile_paths,
    passed_on=st.sampled_from([(), ("HOME",), ("_x", "here")]),
)
@example(
    used={"/a/\x7f\n\"'\\${x}[*]\udcff\u202e"},
    denied="/\x7f\n",
    arguments=["${", "$${x}"],
    value="${",
    directory="/x",
    passed_on=(),
)
def test_what_is_written_can_be_read_and_covers_the_same_paths(
    used: set[str], denied: str, arguments: list[str], value: str, directory: str, passed_on: tuple[str, ...]
) -> None:
    """However hostile the names are: it parses, its arguments are the same, and its grants cover what was used."""
    patterns = smallest_patterns({READ: {path: {"openat2"} for path in used}}, ModelDisk(used))
    anchors = (
        Anchor("${component}", "/srv/component"),
        *parameter_anchors([(HERE, "the working directory"), (directory, "seen")], ["/srv/component"], passed_on),
    )
    text = manifest_text(
        Draft(
            name="p",
            version="0.1.0",
            wasm="p.wasm",
            arguments=tuple(arguments),
            environment=(("VALUE", value),),
            passed_on=passed_on,
            secrets=("TOKEN",),
            mounts=((".", HERE),),
            anchors=anchors,
            patterns=patterns,
            denied=(("read", denied),),
            memory_bytes=12_345_678,
            timeout_ns=1_500_000_000,
            fuel=None,
            output_bytes=None,
        )
    )
    manifest = parse_manifest(text.encode(), file="Component.toml", directory="/srv/component")
    values = dict.fromkeys((p.name for p in manifest.parameters if p.default is None), "given")
    bound = bind(manifest, values, Variables("/srv/component", "/srv/data", "/srv/tmp"))
    assert bound.args == tuple(argument.encode("utf-8", "replace").decode() for argument in arguments)
    assert ("VALUE", value.encode("utf-8", "replace").decode()) in bound.env
    assert [(mount.guest, mount.host) for mount in bound.mounts] == [(".", HERE)]
    granted = [parse_pattern(grant.pattern_text) for grant in bound.grants if grant.action == READ]
    disk = ModelDisk(used)
    for path in used:
        if disk.kind(path) == "file":
            assert any(pattern.matches(path) for pattern in granted), path
