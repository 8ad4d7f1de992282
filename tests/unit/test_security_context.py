"""Who a component instance is: made of its policy, pinned to one program, and the same on every record."""

from __future__ import annotations

import pytest

from ipc import codec
from ipc.audit.event import about
from ipc.policy.access import Role
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from ipc.security_context import SecurityContext, context_of
from ipc.struct import replace

GRANT = Grant("filesystem.read", "/srv/in/**", "approval 4", True)
DOCUMENT = PolicyDocument(
    component="reader",
    instance="acme",
    grants=(GRANT,),
    roles=(Role("reporter", ("filesystem.read:/srv/**",), ()), Role("other", (), ())),
    assigned_roles=("reporter",),
)
CONTEXT = context_of(DOCUMENT, "approval 4", "trusted", version="1.0.0", trust_rule="here", package_digest="a" * 64)


def test_it_says_what_its_policy_says() -> None:
    """Identity and roles are those of the document, which it names by its hash."""
    assert (CONTEXT.component, CONTEXT.instance, CONTEXT.identity) == ("reader", "acme", "reader@acme")
    assert CONTEXT.roles == ("reporter",)
    assert CONTEXT.policy_digest == DOCUMENT.digest()
    assert context_of(
        DOCUMENT, "approval 4", "trusted", version="1.0.0", trust_rule="here", package_digest="a" * 64
    ) == (CONTEXT)


@pytest.mark.parametrize(
    "other",
    [
        replace(DOCUMENT, grants=()),
        replace(DOCUMENT, assigned_roles=()),
        replace(DOCUMENT, roles=()),
        replace(DOCUMENT, instance=""),
    ],
)
def test_another_policy_is_another_context(other: PolicyDocument) -> None:
    """What is granted, a role, and what a role may: each changes the policy that it names."""
    assert context_of(other, "approval 4").policy_digest != CONTEXT.policy_digest


def test_it_is_of_one_program() -> None:
    """The program's digest is put in once it is read; another than the one that was granted is refused."""
    read = CONTEXT.of_program("b" * 64)
    assert read.component_digest == "b" * 64
    assert read.of_program("b" * 64) == read
    with pytest.raises(ValueError, match="and not bbbb"):
        read.of_program("c" * 64)


def test_every_record_says_whose_it_is() -> None:
    """The instance that runs, its program, trust, policy and approval are on each record about it."""
    event = about(CONTEXT.of_program("b" * 64), "file_access", "reader-5f3a91c2")
    assert (event.event, event.component, event.instance) == ("file_access", "reader", "reader-5f3a91c2")
    assert (event.component_digest, event.trust, event.approval) == ("b" * 64, "trusted", "approval 4")
    assert event.policy == DOCUMENT.digest()


def test_a_start_says_more() -> None:
    """The record of a start has the rest, and nothing that isn't there."""
    assert CONTEXT.told_at_start() == {
        "name": "reader@acme",
        "version": "1.0.0",
        "package": "a" * 64,
        "trusted_by": "here",
        "roles": ["reporter"],
    }
    assert context_of(PolicyDocument(component="reader", instance=""), "flags").told_at_start() == {}


def test_it_travels_whole() -> None:
    """Packed and unpacked it is the same value; a field that nobody knows is refused."""
    assert codec.unpack(SecurityContext, codec.pack(CONTEXT)) == CONTEXT
    with pytest.raises(codec.PeerProtocolError):
        codec.from_wire(SecurityContext, {**codec.to_wire(CONTEXT), "more": 1})
