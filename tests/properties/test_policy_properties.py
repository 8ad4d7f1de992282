"""Decisions: order never matters, rights follow decisions, directory renames are proven, documents travel intact."""

from typing import TypeVar

import msgpack
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ipc.policy.access import AclEntry, Role
from ipc.policy.capability import Grant
from ipc.policy.decision import Allow, PolicyDocument, compile_policy
from ipc.policy.endpoints import parse_endpoint, parse_endpoint_pattern
from ipc.policy.patterns import Malformed, PatternError
from ipc.struct import replace

Rule = TypeVar("Rule")
VERBS = ("filesystem.read", "filesystem.write", "filesystem.list")
names = st.sampled_from(
    ["a", "b", "c", ".git", "hooks", ".ssh", ".config", "autostart", "etc", "proc", "self", "1", "s", "bin"]
)
pattern_names = st.one_of(names, st.sampled_from(["*", "**", "a*", "*b", "?", "[ab]"]))
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
patterns = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(pattern_names, min_size=1, max_size=4),
    st.sampled_from(["", "/", "/**"]),
)
actions = st.sampled_from(VERBS)
families = st.sampled_from([*VERBS, "filesystem.*"])
grants = st.builds(Grant, actions, patterns, st.sampled_from(["x", "y"]), st.booleans())
entries = st.builds(AclEntry, st.sampled_from(["*", "c", "d"]), families, patterns, st.sampled_from(["allow", "deny"]))
roles = st.builds(
    lambda permissions: (Role("r", tuple(permissions)),),
    st.lists(st.builds(lambda action, pattern: f"{action}:{pattern}", families, patterns), max_size=3),
)


@st.composite
def documents(draw: st.DrawFn) -> PolicyDocument:
    """A policy with a few rules of each kind."""
    made = draw(roles)
    return PolicyDocument(
        "c",
        "i",
        grants=tuple(draw(st.lists(grants, max_size=5))),
        acl=tuple(draw(st.lists(entries, max_size=2))),
        roles=made,
        assigned_roles=draw(st.sampled_from([(), (), ("r",)])),
        host_paths=draw(st.sampled_from([(), ("/s",), ("/a/s",)])),
        path_directories=draw(st.sampled_from([(), ("/bin",), ("/a/bin",)])),
        guarded_lifted=draw(st.sampled_from([(), ("/proc/a",), ("/proc",)])),
    )


@settings(max_examples=150, deadline=None)
@given(document=documents(), a=paths, b=paths, tail=paths)
def test_subtrees_said_to_be_alike_are_alike(document: PolicyDocument, a: str, b: str, tail: str) -> None:
    """If no rule tells two directories apart, whatever lies beneath has the same rights in both."""
    policy = compile_policy(document)
    if policy.subtrees_alike(a, b):
        for is_directory in (False, True):
            assert policy.rights(a + tail, is_directory) == policy.rights(b + tail, is_directory)
        assert policy.reaches(a + tail) == policy.reaches(b + tail)
    assert policy.subtrees_alike(a, b) is policy.subtrees_alike(b, a)
    assert policy.subtrees_alike(a, a)


@settings(max_examples=100, deadline=None)
@given(document=documents(), path=paths, order=st.randoms())
def test_the_order_of_rules_never_matters(document: PolicyDocument, path: str, order: object) -> None:
    """Shuffled grants and entries give the same decisions to the letter, and the same digest."""

    def shuffled(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        again = list(rules)
        order.shuffle(again)  # type: ignore[attr-defined]
        return tuple(again)

    other = replace(document, grants=shuffled(document.grants), acl=shuffled(document.acl))
    one, two = compile_policy(document), compile_policy(other)
    for verb in VERBS:
        assert one.decide(verb, path) == two.decide(verb, path)
    assert one.document.digest() == two.document.digest()


@settings(max_examples=150, deadline=None)
@given(document=documents(), path=paths)
def test_rights_are_what_is_decided(document: PolicyDocument, path: str) -> None:
    """The quick answer and the explained one agree, and whatever has a right is reached and shown."""
    policy = compile_policy(document)
    held = policy.rights(path)
    assert held == {verb.partition(".")[2] for verb in VERBS if isinstance(policy.decide(verb, path), Allow)}
    as_directory = policy.rights(path, is_directory=True)
    assert held <= as_directory <= held | {"list"}
    assert ("list" in as_directory) is isinstance(policy.decide_listing(path), Allow)
    if held:
        assert policy.reaches(path)
    assert policy.shows(path, False) is bool(held & {"read", "list"})


@settings(max_examples=150, deadline=None)
@given(document=documents(), path=paths, tail=paths)
def test_every_directory_on_the_way_is_reached(document: PolicyDocument, path: str, tail: str) -> None:
    """Where something has a right, each directory above may be opened as a handle."""
    policy = compile_policy(document)
    if policy.rights(path + tail):
        assert policy.reaches(path)
        assert policy.reaches("/")


@settings(max_examples=100, deadline=None)
@given(document=documents(), more=grants, path=paths, verb=actions)
def test_a_rule_more_only_does_what_it_says(document: PolicyDocument, more: Grant, path: str, verb: str) -> None:
    """A further grant takes nothing away, a further denial gives nothing."""
    policy = compile_policy(document)
    wider = compile_policy(replace(document, grants=(*document.grants, more)))
    narrower = compile_policy(
        replace(document, acl=(*document.acl, AclEntry("*", more.action, more.pattern_text, "deny")))
    )
    assert policy.rights(path) <= wider.rights(path)
    assert narrower.rights(path) <= policy.rights(path)
    assert narrower.rights(path, True) <= policy.rights(path, True)


@settings(max_examples=100, deadline=None)
@given(
    document=documents(),
    odd=st.text(
        st.characters(whitelist_categories=["L", "N", "Cs"], min_codepoint=0x20, max_codepoint=0xDCFF), max_size=8
    ),
)
def test_a_document_survives_the_wire(document: PolicyDocument, odd: str) -> None:
    """Packed, unpacked and read again it is equal, names that are no UTF-8 included."""
    odd = "".join(character for character in odd if not 0xD800 <= ord(character) < 0xDC80)
    odd = "".join(character for character in odd if not 0xDD00 <= ord(character) < 0xE000)
    # Only what the file system could have named: surrogate escapes that don't spell valid UTF-8.
    assume(odd.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == odd)
    document = replace(document, host_paths=(*document.host_paths, f"/{odd}"), home_directories=(f"/h/{odd}\udcff",))
    packed = msgpack.packb(document.to_wire())
    again = PolicyDocument.from_wire(msgpack.unpackb(packed))
    assert again == document
    assert again.digest() == document.digest()


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30) | st.text("htps:/ab.*[]:@?#%12 -", max_size=30))
def test_any_text_is_an_endpoint_or_is_explained(text: str) -> None:
    """Neither parser of endpoints fails in another way; an endpoint's own text is a pattern that matches it."""
    problem = None
    try:
        parse_endpoint_pattern(text)
    except PatternError as error:
        problem = error
    assert problem is None or 0 <= problem.position <= len(text)
    endpoint = parse_endpoint(text)
    if not isinstance(endpoint, Malformed):
        own = (
            f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}"
            if endpoint.scheme
            else f"{endpoint.host}:{endpoint.port}"
        )
        if endpoint.scheme in (None, "http", "https"):
            assert parse_endpoint_pattern(own).matches(endpoint)
