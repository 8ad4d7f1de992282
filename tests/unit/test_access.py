"""Access control entries and roles: who they concern, what they cover, and what is wrong with them."""

import pytest

from ipc.errors import ConfigError, LocalProtocolError
from ipc.policy.access import (
    AclEntry,
    Role,
    action_covers,
    check_roles,
    entry_of,
    find_role_cycle,
    is_action_family,
    parse_permission,
    permission_of,
    resolve_permissions,
)
from ipc.policy.capability import Grant, implied_listing, is_action, normalise_name
from ipc.policy.patterns import Malformed, Separator, parse_pattern


@pytest.mark.parametrize(
    ("identity", "component", "instance", "expected"),
    [
        ("*", "log", "acme", True),
        ("log", "log", "acme", True),
        ("log", "log", "", True),
        ("log", "logs", "", False),
        ("log@acme", "log", "acme", True),
        ("log@acme", "log", "other", False),
        ("log@acme", "log", "", False),
        ("log@*", "log", "acme", True),
        ("*@acme", "log", "acme", True),
        ("report-*", "report-writer", "x", True),
        ("report-*", "reporter", "x", False),
    ],
)
def test_identity(identity: str, component: str, instance: str, expected: bool) -> None:
    """A name concerns all its instances, NAME@INSTANCE one of them, wildcards what they match."""
    entry = AclEntry(identity, "filesystem.read", "/x", "deny")
    assert entry.concerns(component, instance) is expected


@pytest.mark.parametrize(
    ("family", "action", "expected"),
    [
        ("filesystem.read", "filesystem.read", True),
        ("filesystem.read", "filesystem.write", False),
        ("filesystem.*", "filesystem.write", True),
        ("filesystem.*", "storage.write", False),
        ("*", "custom.pay.refund", True),
        ("custom.*", "custom.pay.refund", True),
        ("custom.pay.*", "custom.pay.refund", True),
        ("custom.pay.*", "custom.payer.refund", False),
    ],
)
def test_action_families(family: str, action: str, expected: bool) -> None:
    """An action, TYPE.* or * covers the actions that it names."""
    assert is_action_family(family)
    assert action_covers(family, action) is expected


@pytest.mark.parametrize("name", ["filesystem", "filesystem.", "read", "", "filesystem.exec", "**", "custom..x"])
def test_unknown_actions(name: str) -> None:
    """What is no action is no family of actions either."""
    assert not is_action(name)
    assert not is_action_family(name)


def test_grants_compile_to_entries_and_permissions() -> None:
    """The forms that `airssys check --explain` prints."""
    grant = Grant("filesystem.read", "/var/data/**", "Component.toml")
    assert entry_of(grant, "log@acme") == AclEntry(
        "log@acme", "filesystem.read", "/var/data/**", "allow", "Component.toml"
    )
    assert permission_of(grant) == "filesystem.read:/var/data/**"


def test_roles_inherit() -> None:
    """A role has the permissions of what it inherits, however it gets there, each once."""
    roles = (
        Role("viewer", ("filesystem.list:/srv/",)),
        Role("reader", ("filesystem.read:/srv/**",), ("viewer",)),
        Role("writer", ("filesystem.write:/srv/out/**",), ("reader", "viewer")),
    )
    permissions = resolve_permissions(roles, ("writer",))
    assert [str(permission) for permission in permissions] == [
        "filesystem.read:/srv/**",
        "filesystem.list:/srv/",
        "filesystem.write:/srv/out/**",
    ]
    assert resolve_permissions(roles, ()) == ()


def test_a_cycle_of_roles_is_printed() -> None:
    """Inheritance in a circle is an error that prints the circle."""
    roles = [Role("a", (), ("b",)), Role("b", (), ("c",)), Role("c", (), ("a",)), Role("z", (), ("a",))]
    assert find_role_cycle(roles) == ("a", "b", "c", "a")
    with pytest.raises(ConfigError, match="a → b → c → a"):
        check_roles(roles)


def test_a_role_that_inherits_itself_is_a_cycle() -> None:
    """The shortest circle."""
    assert find_role_cycle([Role("a", (), ("a",))]) == ("a", "a")


def test_a_diamond_is_no_cycle() -> None:
    """Two ways to one role are fine, and many layers of them take no time."""
    roles = [Role(f"r{i}{side}", (), (f"r{i + 1}a", f"r{i + 1}b")) for i in range(40) for side in "ab"]
    roles += [Role("r40a", ()), Role("r40b", ())]
    assert find_role_cycle(roles) is None


@pytest.mark.parametrize(
    ("roles", "assigned", "message"),
    [
        ((Role("a", (), ("b",)),), (), "inherits b, which is not defined"),
        ((), ("x",), "role x is assigned, but not defined"),
        ((Role("a", ()), Role("a", ())), (), "defined twice"),
        ((Role("a", ("filesystem.read",)),), (), "not a permission"),
        ((Role("a", ("files.read:/x",)),), (), "not a permission"),
        ((Role("a", ("filesystem.read:",)),), (), "not a permission"),
    ],
)
def test_wrong_roles(roles: tuple[Role, ...], assigned: tuple[str, ...], message: str) -> None:
    """What is wrong with a role is said by name."""
    with pytest.raises(ConfigError, match=message):
        check_roles(roles, assigned)


def test_a_permission_may_hold_colons() -> None:
    """Only the first colon separates the action from the pattern."""
    permission = parse_permission("storage.read:summaries:*", "r")
    assert (permission.action, permission.resource) == ("storage.read", "summaries:*")


@pytest.mark.parametrize(
    ("pattern", "listed", "not_listed"),
    [
        ("/in/**", "/in", "/"),
        ("/in/**", "/in/a/b", "/inn"),
        ("/in/", "/in", "/"),
        ("/in/*", "/in", "/in/a"),
        ("/in/*.json", "/in", "/in/a"),
        ("/in/**/*.log", "/in/a/b", "/"),
        ("/in/**/log", "/in/a", "/"),
        ("/home/*/x/*", "/home/me/x", "/home"),
    ],
)
def test_listings_that_a_pattern_implies(pattern: str, listed: str, not_listed: str) -> None:
    """Whoever may read names by wildcard may list the directory that they are in, and no other."""
    implied = implied_listing(parse_pattern(pattern))
    assert implied is not None
    assert implied.matches(listed)
    assert not implied.matches(not_listed)


@pytest.mark.parametrize("pattern", ["/in/a.json", "/home/*/a.json"])
def test_a_named_object_implies_no_listing(pattern: str) -> None:
    """One file by name says nothing about the directory around it."""
    assert implied_listing(parse_pattern(pattern)) is None


@pytest.mark.parametrize(
    ("raw", "separator"),
    [
        ("", "."),
        ("a..b", "."),
        (".a", "."),
        ("a.", "."),
        ("a\nb", "."),
        ("a::b", ":"),
        ("x" * 1025, ":"),
        ("\udcff", ":"),
    ],
)
def test_malformed_names(raw: str, separator: Separator) -> None:
    """Topics and keys have one form too."""
    assert isinstance(normalise_name(raw, separator), Malformed)


def test_wire_forms_are_strict() -> None:
    """What our own supervisor would never send is refused as our own fault."""
    entry = AclEntry("*", "filesystem.read", "/x\udcff", "deny")
    assert AclEntry.from_wire(entry.to_wire()) == entry
    role = Role("a", ("filesystem.read:/x",), ("b",))
    assert Role.from_wire(role.to_wire()) == role
    for broken in ({**entry.to_wire(), "effect": "maybe"}, {**entry.to_wire(), "more": 1}, [], {"identity": "*"}):
        with pytest.raises(LocalProtocolError):
            AclEntry.from_wire(broken)
    with pytest.raises(LocalProtocolError):
        Role.from_wire({**role.to_wire(), "permissions": "filesystem.read:/x"})
