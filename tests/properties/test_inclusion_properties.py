"""Inclusion is a proof: what one grant allows and a set of others doesn't is never said to be covered."""

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ipc.policy.capability import Grant
from ipc.policy.decision import Allow, PolicyDocument, compile_policy
from ipc.policy.endpoints import parse_endpoint_pattern
from ipc.policy.inclusion import Coverage, endpoint_includes, pattern_includes
from ipc.policy.patterns import PatternError, parse_pattern

FILES = ("filesystem.read", "filesystem.write", "filesystem.list")
names = st.sampled_from(["a", "b", "ab", "ba", "aab", "c"])
globs = st.sampled_from(["*", "**", "a*", "*b", "a*b", "?", "[ab]", "a?", "?b", "*a*", "**"])
segments = st.one_of(names, globs)
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
patterns = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(segments, min_size=1, max_size=4),
    st.sampled_from(["", "", "/", "/**"]),
)
trees = st.one_of(patterns, st.just("/"))
grants = st.builds(Grant, st.sampled_from(FILES), trees, st.just("x"))
actions = st.sampled_from(FILES)


def policy_of(*given_grants: Grant):
    """A policy of these grants on a host that forbids nothing of its own."""
    return compile_policy(PolicyDocument("c", "", grants=given_grants))


@settings(max_examples=400, deadline=None)
@given(outer=trees, inner=trees, path=paths)
@example(outer="/a/**/b", inner="/a/b", path="/a/b")
@example(outer="/**/*", inner="/a/", path="/a")
def test_an_included_pattern_matches_nothing_more(outer: str, inner: str, path: str) -> None:
    """Whatever the inner pattern covers, the outer covers too."""
    big, small = parse_pattern(outer), parse_pattern(inner)
    if pattern_includes(big, small):
        assert not small.matches(path) or big.matches(path)
    assert pattern_includes(small, small)
    assert pattern_includes(parse_pattern("/"), small)


@settings(max_examples=400, deadline=None)
@given(old=st.lists(grants, max_size=4), new=grants, path=paths, action=actions, directory=st.booleans())
@example(
    old=[Grant("filesystem.read", "/**/*b", "x")],
    new=Grant("filesystem.read", "/a/*b", "x"),
    path="/a",
    action="filesystem.list",
    directory=False,
)
def test_a_covered_grant_allows_nothing_more(
    old: list[Grant], new: Grant, path: str, action: str, directory: bool
) -> None:
    """Where the new policy allows what the old one refuses, the grant isn't covered; implied listings included."""
    one, two = policy_of(*old), policy_of(new)
    more = two.rights(path, directory) - one.rights(path, directory)
    wider = isinstance(two.decide(action, path), Allow) and not isinstance(one.decide(action, path), Allow)
    if more or wider:
        assert not Coverage(old).covers(new)


@settings(max_examples=200, deadline=None)
@given(old=st.lists(grants, min_size=1, max_size=4), data=st.data())
def test_what_is_written_alike_is_covered(old: list[Grant], data: st.DataObject) -> None:
    """Each grant of a set is covered by the set, however odd its pattern."""
    assert Coverage(old).covers(data.draw(st.sampled_from(old)))


@settings(max_examples=60, deadline=None)
@given(old=st.lists(grants, min_size=20, max_size=30), new=grants)
def test_many_patterns_are_asked_like_few(old: list[Grant], new: Grant) -> None:
    """What one of many covers is found among them: leaving out those that can't cover it loses no proof."""
    alone = any(Coverage([one]).covers(new) for one in old)
    assert Coverage(old).covers(new) or not alone


hosts = st.sampled_from(["a.b", "b", "*.b", "**.b", "a*.b", "*", "**", "x.a.b"])
endpoints = st.builds(
    lambda scheme, host, port, path: f"{scheme}{host}{port}{path if scheme else ''}",
    st.sampled_from(["", "https://", "http://"]),
    hosts,
    st.sampled_from([":80", ":443", ":*"]),
    st.sampled_from(["", "/", "/a", "/a/**", "/*", "/a/"]),
)
connects = st.builds(
    lambda text, methods: Grant("network.connect", text, "x", True, methods if "://" in text else ()),
    endpoints,
    st.sampled_from([(), ("GET",), ("GET", "PUT")]),
)
targets = st.builds(
    lambda method, scheme, host, port, path: f"{method if scheme else ''}{scheme}{host}{port}{path if scheme else ''}",
    st.sampled_from(["", "GET ", "PUT "]),
    st.sampled_from(["", "https://", "http://"]),
    st.sampled_from(["a.b", "b", "x.a.b", "ab.b"]),
    st.sampled_from([":80", ":443", ":8080"]),
    st.sampled_from(["", "/", "/a", "/a/c", "/c"]),
)


@settings(max_examples=400, deadline=None)
@given(old=st.lists(connects, max_size=3), new=connects, target=targets)
def test_a_covered_connection_reaches_nothing_more(old: list[Grant], new: Grant, target: str) -> None:
    """Schemes, hosts, ports, paths and methods: where the new one connects and the old ones don't, it isn't covered."""
    one, two = policy_of(*old), policy_of(new)
    if isinstance(two.decide("network.connect", target), Allow):
        assume(not isinstance(one.decide("network.connect", target), Allow))
        assert not Coverage(old).covers(new)


@given(text=endpoints)
def test_an_endpoint_includes_itself(text: str) -> None:
    """Inclusion of endpoints is reflexive."""
    try:
        pattern = parse_endpoint_pattern(text)
    except PatternError:
        assume(False)
    assert endpoint_includes(pattern, pattern)


topics = st.lists(st.one_of(names, st.sampled_from(["*", "**", "a*"])), min_size=1, max_size=3).map(".".join)


@settings(max_examples=300, deadline=None)
@given(old=st.lists(topics, max_size=3), new=topics, name=st.lists(names, min_size=1, max_size=4).map(".".join))
def test_a_covered_topic_reaches_nothing_more(old: list[str], new: str, name: str) -> None:
    """The same for names and topics."""
    action = "messaging.publish"
    before = [Grant(action, text, "x") for text in old]
    grant = Grant(action, new, "x")
    if isinstance(policy_of(grant).decide(action, name), Allow) and not isinstance(
        policy_of(*before).decide(action, name), Allow
    ):
        assert not Coverage(before).covers(grant)
