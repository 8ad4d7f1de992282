"""From what a run used to patterns, on a model of a disk: which names, how few patterns, how little else in reach."""

import pytest

from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument, compile_policy
from supervisor.run.usage import LIST, READ, USES_MAX, WRITE, Uses, smallest_patterns

OPEN, LISTING, LOOK = {"openat2"}, {"getdents64"}, {"newfstatat"}


class ModelDisk:
    """Files by path; the directories are those that they lie in, and `empty` ones."""

    def __init__(self, files: set[str], empty: set[str] = frozenset(), others: set[str] = frozenset()) -> None:
        """Take what is there after the run; `others` are links and the like."""
        self.kinds = dict.fromkeys(files, "file") | dict.fromkeys(others, "other")
        for path in [*files, *others, *(f"{path}/x" for path in empty)]:
            while path.count("/") > 1:
                path = path.rpartition("/")[0]
                self.kinds[path] = "directory"
        self.kinds["/"] = "directory"
        self.unreadable: set[str] = set()

    def kind(self, path: str) -> str:
        """As the real one."""
        return self.kinds.get(path, "missing")

    def names(self, directory: str) -> list[str] | None:
        """As the real one."""
        if directory in self.unreadable:
            return None
        start = directory.rstrip("/") + "/"
        return [path[len(start) :] for path in self.kinds if path.startswith(start) and "/" not in path[len(start) :]]


def numbered(pattern: str, count: int) -> set[str]:
    """Paths with a number each."""
    return {pattern.format(n) for n in range(count)}


def use(paths: set[str], calls: set[str] = OPEN) -> dict[str, set[str]]:
    """Say that these paths were used by such calls."""
    return dict.fromkeys(paths, calls)


def backups(pattern: str, names: str) -> set[str]:
    """Paths as gofmt's copies have them, each with another number at its end."""
    return {f"{pattern.format(name)}.{7**20 + 7919 * ord(name)}" for name in names}


ALL, HALF = numbered("/w/all/{}.c", 10), numbered("/w/half/{}.c", 10)
HASHES = {"/o/a-4f6b91c2", "/o/a-77ab01dd"}


@pytest.mark.parametrize(
    ("uses", "disk", "expected"),
    [
        ({READ: use({"/w/a", "/w/b"})}, ModelDisk({"/w/a", "/w/b"}), {READ: ("/w/a", "/w/b")}),
        ({READ: use({"/w/[a]*?", "/w/${x}"})}, ModelDisk(set()), {READ: ("/w/[$]{x}", "/w/[[]a][*][?]")}),
        ({READ: use(ALL)}, ModelDisk(ALL), {READ: ("/w/all/*",)}),
        ({READ: use(ALL)}, ModelDisk(ALL | numbered("/w/all/{}.h", 2)), {READ: ("/w/all/*",)}),
        ({READ: use(ALL)}, ModelDisk(ALL | numbered("/w/all/{}.h", 3)), {READ: tuple(sorted(ALL))}),
        ({READ: use(ALL)}, ModelDisk(ALL | {"/w/all/deep/other"}), {READ: ("/w/all/*",)}),
        (
            {READ: use(ALL | HALF)},
            ModelDisk(ALL | HALF | numbered("/w/half/{}.h", 10)),
            {READ: ("/w/all/*", *sorted(HALF))},
        ),
        ({READ: use(numbered("/w/{}/a", 10))}, ModelDisk(numbered("/w/{}/a", 10)), {READ: ("/w/**",)}),
        ({READ: use({*ALL, "/w/b/x"})}, ModelDisk({*ALL, "/w/b/x", "/w/b/y"}), {READ: ("/w/all/*", "/w/b/x")}),
        ({READ: use(ALL), WRITE: use({"/w/all/0.c"})}, ModelDisk(ALL), {READ: ("/w/all/*",), WRITE: ("/w/all/0.c",)}),
        ({WRITE: use({"/w/d"}, {"mkdirat"})}, ModelDisk({"/w/d/x"}), {WRITE: ("/w/d",)}),
        ({WRITE: use({"/w/gone.txt"})}, ModelDisk(set()), {WRITE: ("/w/gone.txt",)}),
        # Looks: any right gives one.
        ({READ: use({"/w/a"}, LOOK)}, ModelDisk({"/w/a"}), {LIST: ("/w/a",)}),
        ({READ: use({"/w/a"}, {"openat2 O_PATH"})}, ModelDisk({"/w/a"}), {LIST: ("/w/a",)}),
        ({READ: use({"/w/a"}, OPEN | LOOK)}, ModelDisk({"/w/a"}), {READ: ("/w/a",)}),
        ({READ: use({"/w/a"}, LOOK), WRITE: use({"/w/a"})}, ModelDisk({"/w/a"}), {WRITE: ("/w/a",)}),
        ({LIST: use({"/w"}, LOOK), READ: use({"/w/a"})}, ModelDisk({"/w/a"}), {READ: ("/w/a",)}),
        ({LIST: use({"/w/d.lock"}, LOOK), WRITE: use({"/w/d.lock"})}, ModelDisk(set()), {WRITE: ("/w/d.lock",)}),
        # Listings, which reading a whole directory implies.
        ({LIST: use({"/w/all"}, LISTING)}, ModelDisk(ALL), {LIST: ("/w/all/*",)}),
        ({LIST: use({"/w/all"}, LISTING), READ: use(ALL)}, ModelDisk(ALL), {READ: ("/w/all/*",)}),
        (
            {LIST: use({"/w/all"}, LISTING), WRITE: use(ALL)},
            ModelDisk(ALL),
            {WRITE: ("/w/all/*",), LIST: ("/w/all/*",)},
        ),
        (
            {LIST: use({"/w", *numbered("/w/{}", 9)}, LISTING)},
            ModelDisk(numbered("/w/{}/a", 9)),
            {LIST: ("/w/",)},
        ),
        ({LIST: use({"/w"}, LISTING)}, ModelDisk({"/w/link"}, others={"/w"}), {LIST: ("/w/*",)}),
        # Search paths: names that aren't there.
        ({READ: use(numbered("/i/{}.h", 4))}, ModelDisk({"/i/x"}), {READ: tuple(sorted(numbered("/i/{}.h", 4)))}),
        ({READ: use(numbered("/i/{}.h", 5))}, ModelDisk({"/i/x"}), {LIST: ("/i/*",)}),
        ({READ: use(numbered("/i/{}.h", 5), LOOK)}, ModelDisk(numbered("/i/{}.h", 5)), {LIST: ("/i/*",)}),
        (
            {READ: use(numbered("/w/all/{}.h", 9) | ALL)},
            ModelDisk(ALL),
            {READ: ("/w/all/*",)},
        ),
        ({READ: use(numbered("/{}.h", 5))}, ModelDisk(set()), {READ: tuple(sorted(numbered("/{}.h", 5)))}),
        # Temporary names.
        ({WRITE: use({"/o/tmpk3v_x0aa"})}, ModelDisk({"/o/x"}), {WRITE: ("/o/tmp*",)}),
        ({WRITE: use({"/o/report-x81k2q.json"})}, ModelDisk({"/o/report.json"}), {WRITE: ("/o/report-*.json",)}),
        ({WRITE: use({"/o/f.go.6802515305183552437"})}, ModelDisk({"/o/f.go"}), {WRITE: ("/o/f.go.*",)}),
        ({WRITE: use(HASHES), READ: use(HASHES)}, ModelDisk(set()), {WRITE: ("/o/a-*",), READ: ("/o/a-*",)}),
        ({WRITE: use({"/o/123456"})}, ModelDisk(set(), {"/o"}), {WRITE: ("/o/[0-9]*",)}),
        (
            {WRITE: use({"/t/tmpab12cd", "/t/tmpab12cd/in", "/t/tmpab12cd/deep/x"}), READ: use({"/t/tmpab12cd/in"})},
            ModelDisk(set(), {"/t"}),
            {WRITE: ("/t/tmp*", "/t/tmp*/**"), READ: ("/t/tmp*/**",)},
        ),
        (
            {WRITE: use({"/t/tmpab12cd"}), LIST: use({"/t/tmpab12cd"}, LISTING)},
            ModelDisk(set(), {"/t"}),
            {WRITE: ("/t/tmp*",), LIST: ("/t/tmp*/*",)},
        ),
        # Where such a pattern would reach what others have there, one of the same length, or none.
        ({WRITE: use({"/t/tmpab12cd"})}, ModelDisk({"/t/tmp-of-another"}), {WRITE: ("/t/tmp??????",)}),
        ({WRITE: use({"/t/tmpab12cd"})}, ModelDisk({"/t/tmp-of-another/secret"}), {WRITE: ("/t/tmp??????",)}),
        ({WRITE: use({"/t/tmpab12cd"})}, ModelDisk({"/t/tmpxxxxxx"}), {WRITE: ("/t/tmpab12cd",)}),
        ({WRITE: use({"/t/tmp\x1bab12cd-12345"})}, ModelDisk(set(), {"/t"}), {WRITE: ("/t/tmp\x1bab12cd-12345",)}),
        # What was only written is not read by a pattern for what was made, read and removed.
        ({WRITE: use({"/o/c-Kept9", "/o/c-Xyz12"})}, ModelDisk({"/o/c-Kept9"}), {WRITE: ("/o/c-*", "/o/c-Kept9")}),
        (
            {WRITE: use({"/o/c-Kept901", "/o/c-Xyz12"}), READ: use({"/o/c-Xyz12"})},
            ModelDisk({"/o/c-Kept901"}),
            {WRITE: ("/o/c-?????", "/o/c-Kept901"), READ: ("/o/c-?????",)},
        ),
        (
            {WRITE: use({"/o/c-12345", "/o/c-12345/in", "/o/c-678901/kept"}), READ: use({"/o/c-12345/in"})},
            ModelDisk({"/o/c-678901/kept"}),
            {WRITE: ("/o/c-678901/kept", "/o/c-?????", "/o/c-?????/**"), READ: ("/o/c-?????/**",)},
        ),
        (  # a tree that was removed: each directory was listed for that
            {WRITE: use({"/o/t", "/o/t/d", "/o/t/d/f"}), LIST: use({"/o/t", "/o/t/d"}, LISTING)},
            ModelDisk(set(), {"/o"}),
            {WRITE: ("/o/t", "/o/t/d", "/o/t/d/f"), LIST: ("/o/t/*", "/o/t/d/*")},
        ),
        (
            {WRITE: use(backups("/s/{}.go", "abcdef"))},
            ModelDisk(numbered("/s/{}.go", 3)),
            {WRITE: ("/s/*.go.*",)},
        ),
        (
            {WRITE: use(backups("/s/{0}/{0}.go", "abcdef"))},
            ModelDisk(numbered("/s/{}.go", 3)),
            {WRITE: ("/s/**/*.go.*",)},
        ),
        (
            {WRITE: use(backups("/s/{0}/{0}.go", "abcde"))},
            ModelDisk({"/s/z/old.go.bak", "/s/z/older.go.bak"}),
            {WRITE: tuple(f"/s/{name}/{name}.go.*" for name in "abcde")},
        ),
    ],
)
def test_what_was_used_becomes_these_patterns(
    uses: dict[str, dict[str, set[str]]], disk: ModelDisk, expected: dict[str, tuple[str, ...]]
) -> None:
    """Each row: what was used, what is on disk afterwards, and the patterns."""
    assert smallest_patterns(uses, disk) == expected


MADE = numbered("/o/final/{}", 4)


@pytest.mark.parametrize(
    ("uses", "names", "disk", "expected"),
    [
        (  # read under its new name, over two steps
            {WRITE: use({"/o/a", "/o/b", "/o/c"}), READ: use({"/o/c"})},
            {"/o/a": {"/o/b"}, "/o/b": {"/o/c"}},
            ModelDisk({"/o/c"}),
            {READ: ("/o/a", "/o/b", "/o/c"), WRITE: ("/o/a", "/o/b", "/o/c")},
        ),
        (  # a name that may be seen where the new one lies
            {WRITE: use({"/o/a", "/p/b"}), LIST: use({"/p"}, LISTING)},
            {"/o/a": {"/p/b"}},
            ModelDisk({"/p/b"}),
            {WRITE: ("/o/a", "/p/b"), LIST: ("/o/a", "/p/*")},
        ),
        (  # a random name
            {WRITE: use({"/o/tmpa8f3k2", "/o/c"}), READ: use({"/o/c"})},
            {"/o/tmpa8f3k2": {"/o/c"}},
            ModelDisk({"/o/c"}),
            {READ: ("/o/c", "/o/tmp*"), WRITE: ("/o/c", "/o/tmp*")},
        ),
        (  # a directory: both places alike
            {WRITE: use({"/o/new", "/o/final"} | numbered("/o/new/{}", 4)), READ: use(MADE)},
            {"/o/new": {"/o/final"}},
            ModelDisk(MADE),
            {READ: ("/o/final/**", "/o/new/**"), WRITE: ("/o/final", "/o/final/**", "/o/new", "/o/new/**")},
        ),
        (  # a directory most of which was there before and not used: no pattern for all of it
            {WRITE: use({"/o/new", "/o/final", "/o/final/0"})},
            {"/o/new": {"/o/final"}},
            ModelDisk(MADE),
            {WRITE: ("/o/final", "/o/final/0", "/o/new", "/o/new/0")},
        ),
    ],
)
def test_what_was_renamed_can_be_renamed_again(
    uses: dict[str, dict[str, set[str]]],
    names: dict[str, set[str]],
    disk: ModelDisk,
    expected: dict[str, tuple[str, ...]],
) -> None:
    """A name has every right that the name has which it became; a directory's two places have the same rules."""
    patterns = smallest_patterns(uses, disk, names)
    assert patterns == expected
    grants = tuple(Grant(action, text, "") for action, texts in patterns.items() for text in texts)
    policy = compile_policy(PolicyDocument(component="p", instance="", grants=grants))
    for old, new_names in names.items():
        for new in new_names:
            assert policy.rights(old) >= policy.rights(new)
            if disk.kind(new) == "directory":
                assert policy.subtrees_alike(old, new) or "/**" not in str(expected)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("report-8kd_f77z.json", "report-*.json"),
        ("report-kd_f77z8.json", "report-*.json"),
        ("report-xkcdqrst.json", "report-*.json"),
        ("tmp8kd_f77z", "tmp*"),
        ("temp1234", "temp*"),
        ("etilqs_4a4b51a377bf440d", "etilqs_*"),
        ("etilqs_e23845e104943201", "etilqs_*"),
        ("yosys-abc-000000", "yosys-abc-*"),
        ("my_temp_file_a8f3k2", "my_temp_file_*"),
        ("cc.aB3dEf.o", "cc.*.o"),
        ("go-build3245512", "go-build*"),
        ("[x]-a8f3k2", "[[]x]-*"),
        # Nothing of these looks random.
        ("shop.db-journal", "shop.db-journal"),
        ("x.download", "x.download"),
        ("out.lock", "out.lock"),
        ("tmp", "tmp"),
    ],
)
def test_a_random_part_of_a_name_that_is_gone_is_told_from_the_rest(name: str, pattern: str) -> None:
    """Each row: a name that was made and removed, and its pattern."""
    assert smallest_patterns({WRITE: use({f"/o/{name}"})}, ModelDisk(set(), {"/o"})) == {WRITE: (f"/o/{pattern}",)}


def test_a_directory_that_can_not_be_counted_is_never_named_as_a_whole() -> None:
    """What can't be listed could hold anything."""
    disk = ModelDisk(ALL)
    disk.unreadable = {"/w/all"}
    assert smallest_patterns({READ: use(ALL)}, disk) == {READ: tuple(sorted(ALL))}


def test_a_huge_directory_is_not_walked_to_its_end() -> None:
    """Counting ends at a bound where the answer isn't known before."""
    used = numbered("/w/{}/a", 10)
    disk = ModelDisk(used)
    asked: list[str] = []

    def names(directory: str) -> list[str]:
        asked.append(directory)
        return [f"d{n}" for n in range(100)]

    disk.names = names  # type: ignore[method-assign]
    disk.kind = lambda path: "file" if path in used else "directory"  # type: ignore[method-assign]
    assert smallest_patterns({READ: use(used)}, disk) == {READ: tuple(sorted(used))}
    assert 0 < len(asked) < 5_000


def test_uses_are_noted_once_each_and_up_to_a_bound() -> None:
    """Calls are gathered by path; a listing in part is no use; what comes above the bound is left out."""
    uses = Uses()
    uses.note(READ, "/a", "openat2", "grant")
    uses.note(READ, "/a", "statx", "grant")
    uses.note(LIST, "/", "getdents64", "only the names that lead to what is granted")
    assert uses.by_action == {READ: {"/a": {"openat2", "statx"}}}
    uses.count = USES_MAX
    uses.note(READ, "/b", "openat2", "grant")
    assert uses.by_action == {READ: {"/a": {"openat2", "statx"}}}
