"""Signing, by the program `ssh-keygen` itself: so passphrases, agents and hardware keys work as people know them."""

from __future__ import annotations

import os
import subprocess
from typing import ClassVar, Final

from ipc.errors import ConfigError
from supervisor.signing.sshsig import Signature, read_signatures, verify
from supervisor.terminal import visible

PROGRAM: Final = "ssh-keygen"


class ProgramMissingError(ConfigError):
    """ssh-keygen can't be started."""

    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE


def sign(message: bytes, key_path: str, namespace: str) -> Signature:
    """Have ssh-keygen sign a message by a key: a private one, or a public one whose private half an agent has.

    It asks on the terminal for what it needs, and says on standard error what is wrong. What it made is verified here
    before it is believed. Raises ConfigError where there is no signature that holds, ProgramMissingError without it.
    """
    if not os.path.isfile(key_path):
        what = "not a file" if os.path.exists(key_path) else "no such file"
        raise ConfigError(f"{visible(key_path)}: {what}", hint="ssh-keygen -t ed25519 makes a key")
    command = [PROGRAM, "-q", "-Y", "sign", "-n", namespace, "-f", key_path]
    try:
        made = subprocess.run(command, input=message, stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        hint = "apt-get install openssh-client (Debian, Ubuntu)"
        raise ProgramMissingError(f"the program {PROGRAM} is missing: it is what signs", hint=hint) from None
    except OSError as error:
        raise ProgramMissingError(f"{PROGRAM} can't be started: {os.strerror(error.errno or 0).lower()}") from None
    if made.returncode != 0:
        hint = "its own words are above; a public key is signed with by an agent (ssh-add -l lists what it has)"
        raise ConfigError(f"{PROGRAM} did not sign with {visible(key_path)}", hint=hint)
    return _checked(made.stdout, message, namespace)


def _checked(output: bytes, message: bytes, namespace: str) -> Signature:
    found = read_signatures(output)
    if len(found) != 1:
        raise ConfigError(f"{PROGRAM} did not print one signature")
    signature = found[0]
    why = verify(signature, message, namespace) if isinstance(signature, Signature) else signature.why
    if why or not isinstance(signature, Signature):
        hint = "sign with a key as it is, of ed25519, ecdsa or rsa"
        raise ConfigError(f"what {PROGRAM} made is not taken: {why}", hint=hint)
    return signature
