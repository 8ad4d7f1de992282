"""What no grant reaches: forbidden and guarded paths.

*Forbidden* paths are refused whatever was granted, however deep the granted path. *Guarded* ones (the rest of `/proc`,
`/sys`, `/dev`, `/boot`) are refused unless the host lifts them, by their exact path. Names from the tables below are
compared without regard to case (Unicode case folding): on a file system that folds case `.SSH` is `.ssh`.
The lists, each entry with its reason, are in `ipc.policy.forbidden_paths`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ipc.policy import forbidden_paths as lists
from ipc.policy.capability import ABNORMAL_SEGMENTS
from ipc.policy.index import NOTHING, PatternIndex, Reach
from ipc.policy.patterns import Form, Pattern, Token, parse_pattern
from ipc.struct import Struct

GUARDED_TREES: Final = ("/proc", "/sys", "/dev", "/boot")


class ForbiddenRule(Struct, frozen=True):
    """One forbidden pattern, and why."""

    pattern: str
    reason: str

    @property
    def rule(self) -> str:
        """The rule as decisions name it."""
        return f'forbidden "{self.pattern}"'


class Refusal(Struct, frozen=True):
    """A rule that no grant overrides has refused."""

    guarded: bool
    rule: str
    reason: str


class NamedObjects(Struct, frozen=True):
    """Forbidden objects that have a name of their own, to be recognised by device and inode as well.

    `paths` are absolute; each of `in_homes` is looked for in every directory of `homes`.
    """

    paths: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    in_homes: tuple[str, ...] = ()


def _literal(token: Token) -> str:
    if not isinstance(token, str):
        raise TypeError(f"a table of forbidden paths has a wildcard where a literal segment must stand: {token}")
    return token


class _RuleSet:
    """Rules of the tables: those at fixed places, and those for names wherever they are."""

    __slots__ = ("_named_anywhere", "_named_fixed", "anchors", "anywhere", "fixed", "rules", "tops")

    def __init__(self, fixed: Sequence[tuple[str, str]], anywhere: Sequence[tuple[str, str]]) -> None:
        self.rules = tuple(
            [ForbiddenRule(text, reason) for text, reason in fixed]
            + [ForbiddenRule(f"/**/{text}", reason) for text, reason in anywhere]
        )
        parsed = [(parse_pattern(rule.pattern.casefold()), number) for number, rule in enumerate(self.rules)]
        self.fixed = PatternIndex(parsed[: len(fixed)])
        self.anywhere = PatternIndex(parsed[len(fixed) :])
        # Cheap necessary conditions: the last segment of a pattern for anywhere, and the first of one at a fixed place,
        # is literal, so it must occur in the path.
        self.anchors = frozenset(_literal(pattern.tokens[-1]) for pattern, _ in parsed[len(fixed) :])
        self.tops = frozenset(_literal(pattern.tokens[0]) for pattern, _ in parsed[: len(fixed)])
        self._named_fixed = _without_wildcards(fixed)
        self._named_anywhere = tuple(_without_wildcards(anywhere))

    def find(self, folded: Sequence[str]) -> ForbiddenRule | None:
        """The rule that covers this path, whose segments are case-folded."""
        found = NOTHING
        if folded and folded[0] in self.tops:
            found = self.fixed.first(folded)
        if found == NOTHING and not self.anchors.isdisjoint(folded):
            found = self.anywhere.first(folded)
        return None if found == NOTHING else self.rules[found]

    def named(self, more: Sequence[str], homes: Sequence[str]) -> NamedObjects:
        """What of this has a name of its own, with `more` paths, in these homes."""
        real_homes = (home.rstrip("/") for home in homes if home.startswith("/") and home.strip("/"))
        paths = _rooted([*self._named_fixed, *more])
        return NamedObjects(tuple(sorted(paths)), tuple(real_homes), self._named_anywhere)

    def reaches(self, folded: Sequence[str]) -> tuple[Reach, Reach]:
        """What the rules can say of anything beneath a directory."""
        return self.fixed.reach(folded), self.anywhere.reach(folded)


def _without_wildcards(table: Sequence[tuple[str, str]]) -> list[str]:
    return [text.rstrip("/") for text, _ in table if not set(text) & set("*?[")]


@lru_cache(maxsize=1)
def _tables() -> tuple[_RuleSet, _RuleSet]:
    """The built-in rules for any access, and those for writing; compiled once in a process."""
    return (
        _RuleSet(lists.FORBIDDEN_AT, lists.FORBIDDEN_ANYWHERE),
        _RuleSet(lists.WRITE_FORBIDDEN_AT, lists.WRITE_FORBIDDEN_ANYWHERE),
    )


def fold_segments(segments: Sequence[str], path: str) -> Sequence[str]:
    """The segments of a path, case-folded; the very same object where folding changes nothing."""
    folded = path.casefold()
    return segments if folded == path else folded[1:].split("/")


def _rooted(paths: Sequence[str]) -> set[str]:
    """The absolute paths, each without a slash at its end, but for `/`."""
    return {path.rstrip("/") for path in paths if path.startswith("/") and path.strip("/")}


def _tree(path: str) -> Pattern:
    segments = tuple(segment for segment in path.split("/") if segment)
    return Pattern(path.rstrip("/") + "/", "/", segments, Form.TREE)


class ForbiddenPaths:
    """The forbidden and guarded paths of one host; decides before any grant is looked at."""

    __slots__ = (
        "_any",
        "_guarded",
        "_hints",
        "_host",
        "_host_paths",
        "_lifted",
        "_lifted_steps",
        "_path_directories",
        "_read_hints",
        "_write",
        "_write_hints",
    )

    def __init__(
        self,
        host_paths: Sequence[str] = (),
        path_directories: Sequence[str] = (),
        guarded_lifted: Sequence[str] = (),
    ) -> None:
        """Take the host's own paths, the directories of PATH, and the guarded paths that the host lifts.

        An entry that is not absolute, or is `/` itself, says nothing that could be a rule and is left out.
        """
        self._any, self._write = _tables()
        self._host_paths = tuple(sorted(_rooted(host_paths)))
        self._path_directories = tuple(sorted(_rooted(path_directories)))
        self._host = (
            PatternIndex((_tree(path), number) for number, path in enumerate(self._host_paths)),
            PatternIndex((_tree(path), number) for number, path in enumerate(self._path_directories)),
        )
        self._guarded = PatternIndex((_tree(path), number) for number, path in enumerate(GUARDED_TREES))
        tops = {path.split("/")[1].casefold() for path in (*self._host_paths, *GUARDED_TREES)}
        writing_tops = {path.split("/")[1].casefold() for path in self._path_directories}
        # No path is refused whose first segment is in no rule at a fixed place, and that holds no anchor of another.
        self._read_hints = (self._any.tops | tops, self._any.anchors)
        self._write_hints = (
            self._any.tops | self._write.tops | tops | writing_tops,
            self._any.anchors | self._write.anchors,
        )
        self._hints = [tops | anchors | ABNORMAL_SEGMENTS for tops, anchors in (self._read_hints, self._write_hints)]
        self._lifted = frozenset(path.rstrip("/") for path in guarded_lifted)
        self._lifted_steps = PatternIndex(
            (Pattern(path, "/", tuple(path[1:].split("/")), Form.EXACT), number)
            for number, path in enumerate(sorted(self._lifted))
        )

    def hints(self, writing: bool) -> frozenset[str]:
        """Segments, case-folded: `find` refuses no path in normal form that holds none of them.

        Among them are those that no path in normal form has: the empty one, `.` and `..`.
        """
        return self._hints[writing]

    def find(self, path: str, segments: Sequence[str], folded: Sequence[str], writing: bool) -> Refusal | None:
        """The rule that refuses this normalised path, if any; `folded` is `fold_segments(segments, path)`."""
        tops, anchors = self._write_hints if writing else self._read_hints
        if not folded or (folded[0] not in tops and anchors.isdisjoint(folded)):
            return None
        rule = self._any.find(folded)
        if rule is not None:
            return Refusal(False, rule.rule, rule.reason)
        host, path_directories = self._host
        if host.count and (number := host.first(segments)) != NOTHING:
            return Refusal(False, f'forbidden "{self._host_paths[number]}/"', "it belongs to the host itself")
        if writing:
            rule = self._write.find(folded)
            if rule is not None:
                return Refusal(False, f"{rule.rule} for writing", rule.reason)
            if path_directories.count and (number := path_directories.first(segments)) != NOTHING:
                place = self._path_directories[number]
                return Refusal(False, f'forbidden "{place}/" for writing', "programs are started from this directory")
        if segments and f"/{folded[0]}" in GUARDED_TREES and path not in self._lifted:
            return Refusal(True, f'guarded "/{folded[0]}/"', "kernel and boot files are guarded")
        return None

    def refuses_all_beneath(self, path: str, segments: Sequence[str], folded: Sequence[str]) -> bool:
        """Whether neither this directory nor anything beneath it can be reached for reading."""
        if self._any.find(folded) is not None or self._host[0].first(segments) != NOTHING:
            return True
        if segments and f"/{folded[0]}" in GUARDED_TREES:
            return path not in self._lifted and not self._lifted_steps.reach(segments)
        return False

    def signature(self, segments: Sequence[str], folded: Sequence[str]) -> tuple[object, ...]:
        """A value that is equal for two directories only if these rules tell nothing apart beneath them."""
        return (
            *self._any.reaches(folded),
            *self._write.reaches(folded),
            self._host[0].reach(segments),
            self._host[1].reach(segments),
            self._guarded.reach(folded),
            self._lifted_steps.reach(segments),
        )

    def spares_nothing_more(
        self, target: Sequence[str], target_folded: Sequence[str], name: Sequence[str], name_folded: Sequence[str]
    ) -> bool:
        """Whether what is forbidden beneath the directory `name` is forbidden beneath `target` as well.

        Only then may `name` become another name of `target`. False when in doubt.
        """
        pairs = zip(self.signature(target, target_folded)[:-1], self.signature(name, name_folded)[:-1], strict=True)
        return all(
            isinstance(there, Reach)
            and isinstance(here, Reach)
            and (there.everything or (not here.everything and here.active <= there.active))
            for there, here in pairs
        )


@lru_cache(maxsize=4)
def forbidden_paths(
    host_paths: tuple[str, ...], path_directories: tuple[str, ...], guarded_lifted: tuple[str, ...]
) -> ForbiddenPaths:
    """Return the same as `ForbiddenPaths`, which nothing changes: a host has one, whatever it runs."""
    return ForbiddenPaths(host_paths, path_directories, guarded_lifted)


@lru_cache(maxsize=4)
def named_objects(host_paths: tuple[str, ...], home_directories: tuple[str, ...]) -> NamedObjects:
    """Fixed paths without wildcards, the host's own, and the forbidden names within each home directory."""
    return _tables()[0].named(host_paths, home_directories)


@lru_cache(maxsize=4)
def write_named_objects(path_directories: tuple[str, ...], home_directories: tuple[str, ...]) -> NamedObjects:
    """As `named_objects`, for what is forbidden to write only."""
    return _tables()[1].named(path_directories, home_directories)
