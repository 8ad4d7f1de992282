"""A real sshd on loopback, and a user with a home who may log in there, wherever the tests run and whoever runs them.

ssh and sshd know people by /etc/passwd, and take the system's settings from /etc/ssh. Both are files of this directory
in a mount namespace of their own; as an ordinary user within a user namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from repositories import Repository

SSHD = "/usr/sbin/sshd"
USER = "committer"
UID = os.geteuid() or int(os.environ.get("AIRSSYS_TEST_UID", "54321"))
GID = os.getegid() or UID
_MOUNT = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/ssh && shift 2 && exec "$@"'
_NO_CAPABILITIES = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--")
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {host_key}
AuthorizedKeysFile {home}/.ssh/authorized_keys
AuthenticationMethods publickey
UsePAM no
StrictModes no
PidFile none
LogLevel ERROR
MaxStartups 20
LoginGraceTime 20
"""
_FETCH = """
import json, os, sys
from ipc.errors import ConfigError
from supervisor.packages.fetch import fetch
from supervisor.packages.source import GitSource, parse_source
source = sys.argv[2]
try:
    fetched = fetch(GitSource("ssh", source[1:]) if source[0] == "=" else parse_source(source), sys.argv[1])
except ConfigError as error:
    print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
else:
    origin = fetched.provenance
    where = {"url": origin.url, "revision": origin.revision, "branch": origin.branch, "sub": origin.subdirectory}
    print(json.dumps(where | {"files": sorted(each.path for each in fetched.contents.files)}))
"""


class SshHost:
    """The server, its user with an empty repository, and who fetches from there: that user, or root called by them."""

    def __init__(self, place: Path) -> None:
        """Make a home, keys and settings in an empty directory that others may pass through, and start the server."""
        assert os.path.exists(SSHD), "apt-get install openssh-server"
        self.place = place
        self.home = place / "home"
        self.settings = place / "etc-ssh"
        self.ssh = self.home / ".ssh"
        self.ssh.mkdir(parents=True)
        self.settings.mkdir()
        (self.settings / "ssh_config").write_text("")
        accounts = [line for line in Path("/etc/passwd").read_text().splitlines() if f":x:{UID}:" not in line]
        accounts.append(f"{USER}:x:{UID}:{GID}::{self.home}:/bin/sh")
        (place / "passwd").write_text("\n".join(accounts) + "\n")
        self.repository = Repository(self.home / "repository.git")
        self.host_key, self.key = place / "host_key", place / "key"
        for key in (self.host_key, self.key, place / "other_key"):
            made = self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", key)
            assert made.returncode == 0, made.stderr
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        config = place / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, host_key=self.host_key, home=self.home))
        shutil.copy(f"{self.key}.pub", self.ssh / "authorized_keys")
        self.settle()
        server = (SSHD, "-D", "-e", "-f", str(config))
        with (place / "sshd.log").open("wb") as log:
            self._server = subprocess.Popen(
                self._inside(*server), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 30
        while not self._listens():
            assert self._server.poll() is None, (place / "sshd.log").read_text()
            assert time.monotonic() < until, "sshd doesn't listen"
            time.sleep(0.01)

    def close(self) -> None:
        """End the server and its sessions."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    @property
    def address(self) -> str:
        """What stands in an ssh:// URL before the path."""
        return f"{USER}@127.0.0.1:{self.port}"

    def settle(self) -> None:
        """Give everything to the user, as ssh takes nothing from anybody else's files."""
        os.chown(self.place, UID, GID)
        for directory, names, files in os.walk(self.place):
            for name in (*names, *files):
                os.chown(Path(directory, name), UID, GID)
        os.chmod(self.ssh, 0o700)
        for path in self.ssh.iterdir():
            path.chmod(0o600)

    def know_host(self, key: str = "host_key") -> None:
        """Let the user know the server by a key."""
        public = (self.place / f"{key}.pub").read_text()
        (self.ssh / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def have_key(self, key: str = "key") -> None:
        """Let the user have a key in the place where ssh looks for it."""
        shutil.copy(self.place / key, self.ssh / "id_ed25519")

    def forget(self) -> None:
        """Let the user's ssh know no host and have no key."""
        for path in self.ssh.iterdir():
            if path.name != "authorized_keys":
                path.unlink()

    def fetch(self, source: str, destination: Path, **environment: str) -> dict[str, object]:
        """Fetch a package there as that user, or as root for that user; `=URL` is what git is given, as it is."""
        self.settle()
        destination.mkdir()
        command = self._inside(sys.executable, "-I", "-c", _FETCH, str(destination), source, as_user=False)
        done = self._run(command, environment)
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def run(self, *command: str | Path, as_user: bool = True, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program in those surroundings."""
        self.settle()
        return self._run(self._inside(*map(str, command), as_user=as_user), environment)

    def begin(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program there as that user."""
        return subprocess.Popen(self._inside(*map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        surroundings = {"PATH": os.environ["PATH"], "HOME": str(self.home), "SUDO_UID": str(UID), **environment}
        return subprocess.run(command, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def _inside(self, *command: str, as_user: bool = True) -> list[str]:
        """Return what runs a command in those surroundings, as that user, else as who runs the tests."""
        mount = ("sh", "-c", _MOUNT, "sh", str(self.place / "passwd"), str(self.settings))
        if os.geteuid():
            return ["unshare", "-U", "-c", "--keep-caps", "-m", *mount, *_NO_CAPABILITIES, *command]
        become = ("setpriv", f"--reuid={UID}", f"--regid={GID}", "--clear-groups", "--") if as_user else ()
        return ["unshare", "-m", *mount, *become, *command]

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
