"""What a TARGET names: a path, or what is installed under a name, found to be what was installed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.config import places
from supervisor.config.settings import Settings
from supervisor.config.settings_files import load_settings
from supervisor.packages.installed import ComponentName, Installed, parse_name
from supervisor.packages.target import is_path
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.packages.registry import Registry
    from supervisor.packages.store import StoredPackage
    from supervisor.trust.decide import TrustDecision


class NotInstalledError(ConfigError):
    """Nothing is installed under that name."""


class NameTakenError(ConfigError):
    """A directory's component is called as what is installed from elsewhere."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM
    code: ClassVar[str] = "A3102"


class InstalledPackage(Struct, frozen=True):
    """What is installed under a name, held and verified, but for its program where that wasn't read."""

    installed: Installed
    package: StoredPackage

    @property
    def program_sha256(self) -> str:
        """Return what its program must be, in hexadecimal."""
        file = self.package.contents.file(self.installed.program)
        assert file is not None, "what was installed has its program"
        return file.sha256

    @property
    def manifest_sha256(self) -> str:
        """Return what its manifest must be, in hexadecimal."""
        from supervisor.packages.contents import MANIFEST_FILE

        file = self.package.contents.file(MANIFEST_FILE)
        assert file is not None, "a package has one"
        return file.sha256


class Target(Struct, frozen=True):
    """A path, and of what is installed what that is."""

    path: str
    installed: InstalledPackage | None = None

    @property
    def instance(self) -> str:
        """Return the instance that was named, "" for none."""
        return "" if self.installed is None else self.installed.installed.instance


@contextlib.contextmanager
def open_target(target: str, state_dir: str | None, config: str | None) -> Iterator[Target]:
    """Yield what a TARGET names, every byte of what is installed verified; raises ConfigError."""
    if is_path(target):
        yield Target(target)
        return
    settings = load_settings(config, os.environ, os.geteuid())
    with open_installed(target, places.state_directory(state_dir, os.environ, settings)) as found:
        yield Target(found.package.directory, found)


@contextlib.contextmanager
def open_installed(text: str, state: str, unread_program: bool = False, digest: str = "") -> Iterator[InstalledPackage]:
    """Yield what is installed as `NAME[@INSTANCE]` in a state directory, held for as long: what is active, or `digest`.

    With `unread_program` the caller compares the program with `program_sha256` when it takes it.
    """
    from supervisor.packages.store import PackageStore

    installed = find_installed(text, state, digest)
    unread = (installed.program,) if unread_program else ()
    package = PackageStore(places.packages_directory(state)).open(installed.digest, unread)
    with contextlib.closing(package):
        yield InstalledPackage(installed, package)


def find_installed(text: str, state: str, digest: str = "") -> Installed:
    """Return what is said of what is installed under a name: of what is active, or of `digest`.

    Raises NotInstalledError, ConfigError.
    """
    called = parse_name(text)
    with open_registry(state, called) as registry:
        if digest:
            of_it = (each for each in registry.named(called.name) if each.called == called)
            installed = next((each for each in of_it if each.digest == digest), None)
        else:
            installed = registry.active(called)
        if installed is None:
            raise not_installed(called, [each.called.text for each in registry.named(called.name)])
    return installed


def require_own_name(name: str, directory: str, state: str) -> None:
    """Raise NameTakenError where a directory's component calls itself as what is installed from another source.

    The name is what a package says of itself; what the host says of it, and the data that is kept under it, are for
    what was installed.
    """
    from supervisor.packages.installed import is_same_source, source_words
    from supervisor.packages.provenance import Provenance

    try:
        with open_registry(state, ComponentName(name)) as registry:
            known = registry.named(name)
    except NotInstalledError:
        return
    here = Provenance("directory", os.path.realpath(directory))
    if not known or any(is_same_source(each.provenance, here) for each in known):
        return
    raise NameTakenError(
        f"{name} is installed from {visible(source_words(known[-1].provenance))}; what lies in {visible(here.url)} is "
        f"another's, and calls itself so [{NameTakenError.code}]",
        hint="to run what is installed, name it without a path; to try this with a state of its own: --state-dir DIR",
    )


def trust_of(installed: Installed, settings: Settings) -> TrustDecision:
    """Return whether what is installed is trusted now."""
    from supervisor.trust.installed import judge_installed

    return judge_installed(installed, settings.trust_sources, int(time.time()))


@contextlib.contextmanager
def open_registry(state: str, called: ComponentName) -> Iterator[Registry]:
    """Yield the registry of a state directory; raises NotInstalledError for `called` where nothing ever was."""
    from supervisor.packages.registry import FILE, Registry

    if not os.path.lexists(os.path.join(state, FILE)):  # asking makes no file
        raise not_installed(called, [])
    with Registry(state) as registry:
        yield registry


def not_installed(called: ComponentName, others: list[str]) -> NotInstalledError:
    """Return what a person is told who named what isn't installed."""
    hint = "what is: airssys list; a path has a slash: ./DIR"
    if os.path.exists(called.text):
        hint = f"a file or directory of that name is named by a path: ./{called.text}"
    elif others:
        hint = f"there is {', '.join(dict.fromkeys(others))}"
    return NotInstalledError(f"{visible(called.text)} is not installed", hint=hint)
