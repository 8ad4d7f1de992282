"""socket(2) and connect(2): a worker has no sockets of its own but one, which the warden has connected to the broker.

The first gives it, the second says whether the broker was there; the address that the worker names plays no part.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from ipc.libc import pidfd_getfd
from ipc.warden.broker_door import Connection
from ipc.warden.context import Answer, Context, Injection, signed
from ipc.warden.decide import Refusal

_ACTION: Final = "network.connect"
_CODE: Final = "A1702"
_KIND: Final = socket.SOCK_STREAM
_FLAGS: Final = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


def answer_socket(context: Context) -> Answer:
    """socket(2): the connection to the broker, for a worker that may have it and has none."""
    call, connection = context.call, context.connection
    family, kind, protocol = signed(call.a0), signed(call.a1), signed(call.a2)
    if connection is None or (family, kind & ~_FLAGS, protocol) != (socket.AF_UNIX, _KIND, 0):
        resource = f"socket(family {family}, type {kind & 0xF})"
        return Refusal(errno.EACCES, _ACTION, resource, _CODE, "a worker has no sockets of its own")
    if _is_open(context, connection):
        return Refusal(errno.EACCES, _ACTION, "broker", _CODE, "it has its connection to the broker")
    endpoint = connection.open()
    return Injection(context.files.keep(endpoint.detach()), connection.given)


def answer_connect(context: Context) -> Answer:
    """connect(2): whether the socket that it was given is connected."""
    connection, number = context.connection, signed(context.call.a0)
    if connection is not None and connection.number < 0 <= number:
        _take_over(context, connection, number)
    if connection is None or connection.number < 0 or number != connection.number:
        return Refusal(errno.EACCES, _ACTION, "connect", _CODE, "a worker has no sockets of its own")
    return 0 if connection.take_connected() else -errno.ECONNREFUSED


def _take_over(context: Context, connection: Connection, number: int) -> None:
    """Look whether a warden that has died since gave it that: then it does nothing but go on."""
    try:
        endpoint = pidfd_getfd(context.pidfd, number)
    except OSError as error:
        if error.errno == errno.EBADF:
            return
        raise
    try:
        if stat.S_ISSOCK(os.fstat(endpoint).st_mode):
            connection.take_over(number, endpoint)
    finally:
        os.close(endpoint)


def _is_open(context: Context, connection: Connection) -> bool:
    """Whether the worker still holds a connection: it can't duplicate one, so its number tells (`answer_duplicate`)."""
    if connection.number < 0:
        return False
    try:
        endpoint = pidfd_getfd(context.pidfd, connection.number)
    except OSError as error:
        if error.errno == errno.EBADF:
            return False
        raise
    try:
        return connection.is_at(endpoint)
    finally:
        os.close(endpoint)
