"""What is left to who runs by an approval allows nothing that either set refuses; and what isn't lost is allowed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.policy.capability import Grant
from ipc.policy.decision import Allow, PolicyDocument, compile_policy
from supervisor.approvals.narrowing import left, lost, why_wider

FILES = ("filesystem.read", "filesystem.write", "filesystem.list")
segments = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "?b"])
names = st.sampled_from(["a", "b", "ab", "c"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
patterns = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(segments, min_size=1, max_size=3),
    st.sampled_from(["", "/", "/**"]),
)
sets = st.lists(st.builds(Grant, st.sampled_from(FILES), patterns, st.just("x")), max_size=4).map(tuple)


def _rights(grants: tuple[Grant, ...], path: str, directory: bool) -> frozenset[str]:
    return frozenset(compile_policy(PolicyDocument("c", "", grants=grants)).rights(path, directory))


@settings(max_examples=300, deadline=None)
@given(held=sets, granted=sets, path=paths, directory=st.booleans())
def test_what_is_left_is_in_both(held, granted, path: str, directory: bool) -> None:
    """Of any two sets, at any path, implied listings included."""
    kept = _rights(left(held, granted), path, directory)
    assert kept <= _rights(held, path, directory)
    assert kept <= _rights(granted, path, directory)


@settings(max_examples=200, deadline=None)
@given(held=sets, granted=sets, path=paths, action=st.sampled_from(FILES))
def test_who_loses_nothing_has_nothing_more(held, granted, path: str, action: str) -> None:
    """Where nothing is lost, whatever was allowed is granted; and that is what an approver's narrowing is held to."""
    if lost(held, granted):
        return
    assert why_wider(granted, held) == ""
    policies = [compile_policy(PolicyDocument("c", "", grants=grants)) for grants in (held, granted)]
    if isinstance(policies[0].decide(action, path), Allow):
        assert isinstance(policies[1].decide(action, path), Allow)
