"""Requests for the tests of approvals."""

from __future__ import annotations

from ipc.policy.capability import Grant
from supervisor.approvals.machine import Refusal
from supervisor.approvals.reliance import Reliance
from supervisor.approvals.request import Ask, Facts, Filed, Request, Step, Voted
from supervisor.approvals.steps import file_request, take
from supervisor.approvals.subject import Subject

MANIFEST = """schema = 1
[component]
name = "reporter"
version = "1.0.0"
wasm = "reporter.wasm"
[capabilities.filesystem]
read = ["/srv/logs/**"]
[capabilities.network]
connect = ["api.example.com:443"]
"""
READ = Grant("filesystem.read", "/srv/logs/**", "Component.toml")
CONNECT = Grant("network.connect", "api.example.com:443", "Component.toml")
ASKER, ALICE, BOB, CAROL, ROOT = 1000, 1001, 1002, 1003, 0
START_S = 1_800_000_000


def subject(*grants: Grant, component: str = "reporter", package: str = "ab" * 32, instance: str = "") -> Subject:
    """Return what is asked about: by default to read logs and to connect."""
    return Subject(component, instance, package, grants or (READ, CONNECT))


def facts(manifest: str = MANIFEST, version: str = "1.0.0") -> Facts:
    """Return what a reviewer is told besides."""
    asks = (
        Ask("high", "network.connect", "api.example.com:443", "connect to api.example.com:443", True, "to report"),
        Ask("medium", "filesystem.read", "/srv/logs/**", "read everything beneath /srv/logs", True, ""),
    )
    return Facts(version, "/opt/reporter", manifest, "cd" * 32, (), asks, ("airssys.toml:3: network.connect takes 2",))


def filed(
    about: Subject | None = None,
    *,
    at_s: int = START_S,
    uid: int = ASKER,
    needs: int = 2,
    review_s: int = 0,
    expires_s: int = 7 * 86_400,
) -> Filed:
    """Return how a request begins."""
    return Filed(at_s, uid, about or subject(), needs, review_s, expires_s, facts())


def request(needs: int = 2, review_s: int = 0, number: int = 1) -> Request:
    """Return one that was just filed."""
    return file_request(number, filed(needs=needs, review_s=review_s))


def vote(
    of: Request,
    uid: int,
    at_s: int | None = None,
    *,
    seen: str | None = None,
    granted: tuple[Grant, ...] | None = None,
    lifetime_s: int | None = None,
    once: bool = False,
    needs: int = 1,
) -> Voted:
    """Return somebody's yes to what is there."""
    at = of.latest_s + 1 if at_s is None else at_s
    return Voted(at, uid, of.review if seen is None else seen, needs, granted, lifetime_s, once)


def taken(of: Request, *steps: Step) -> Request:
    """Return a request after steps, each of which is taken."""
    for step in steps:
        after = take(of, step)
        assert not isinstance(after, Refusal), after
        of = after
    return of


def approved(number: int = 1, lifetime_s: int | None = None, once: bool = False) -> Request:
    """Return a request that two people have approved."""
    one = request(number=number)
    after = taken(one, vote(one, ALICE, lifetime_s=lifetime_s, once=once))
    return taken(after, vote(after, BOB))


def refusal(of: Request, step: Step) -> str:
    """Return why a step isn't taken."""
    after = take(of, step)
    assert isinstance(after, Refusal), after
    return after.reason


def hold(reliance: Reliance) -> Reliance:
    """Run by an approval for no longer than it takes to return."""
    return reliance
