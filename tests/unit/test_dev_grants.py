"""What `--dev` allows unasked, and what it leaves alone."""

import pytest

from ipc.errors import ConfigError
from ipc.policy.decision import PolicyDocument, compile_policy
from supervisor.grants.dev_grants import dev_grants, hidden_denials

HOMES = ("/home/me", "/home/you", "/root")


def rights(directories: tuple[str, ...], path: str) -> set[str]:
    """What may be done with a path under --dev on these directories."""
    document = PolicyDocument(
        component="p", instance="", grants=dev_grants(directories, HOMES), acl=hidden_denials("p", directories)
    )
    return set(compile_policy(document).rights(path))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/home/me/p", True),
        ("/home/me/p/a", True),
        ("/home/me/p/deep/er/a.txt", True),
        ("/home/me/p/a.", True),
        ("/home/me/p/.env", False),
        ("/home/me/p/.git/config", False),
        ("/home/me/p/.git", False),
        ("/home/me/p/deep/.env", False),
        ("/home/me/p/deep/.cache/x/y", False),
        ("/home/me/other", False),
        ("/home/me/pq", False),
        ("/home/me", False),
        ("/tmp/x[1]*/a", True),
        ("/tmp/x1y/a", False),
        ("/home/me/.hidden/project/a", True),
        ("/home/me/.hidden/project/.a", False),
        ("/home/me/.hidden/b", False),
    ],
)
def test_all_beneath_is_allowed_but_hidden_names(path: str, allowed: bool) -> None:
    """Reading, changing and listing all beneath, not what begins with a dot, wherever the project itself is."""
    directories = ("/home/me/p", "/tmp/x[1]*", "/home/me/.hidden/project")
    assert rights(directories, path) == ({"read", "write", "list"} if allowed else set())


@pytest.mark.parametrize("directory", ["/", "/home", "/home/me", "/root"])
def test_a_directory_that_holds_a_home_is_too_much(directory: str) -> None:
    """It says so, and what to do."""
    with pytest.raises(ConfigError, match="too much") as caught:
        dev_grants(("/home/me/p", directory), HOMES)
    assert "project" in str(caught.value.hint)


def test_directories_that_were_named_twice_give_each_grant_once() -> None:
    """The component's directory is often the working directory."""
    grants = dev_grants(("/p", "/p"), HOMES)
    assert len({(grant.action, grant.pattern_text) for grant in grants}) == len(grants) == 3
