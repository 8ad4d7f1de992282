"""How a registry is spoken to: a session of `requests` under rules of our own, whoever uses it.

The library waits as long as bytes come, reads an answer whole, unpacks it, and sends what a netrc file or a URL says.
Here a conversation has an end, an answer a size; nothing is unpacked; and credentials go to the registry itself and to
whom it has named to ask for a token, and to nobody else.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
from requests import exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from supervisor.packages.oci_reach import BLOB, CONNECT_S, READ_S, is_this_machine, origin_of, why_not_followed

REDIRECTS_MAX: Final = 3
ANSWER_MAX_BYTES: Final = 5 << 20
"""Of any answer that isn't a blob: more than the largest manifest."""
_WATCHED_MAX: Final = 8


class Patience:
    """When a conversation ends, whatever the other side does: then each of its connections is shut."""

    def __init__(self, left_s: float) -> None:
        """Have it end so many seconds from now."""
        self.is_over = False
        self._ends_s = time.monotonic() + left_s
        self._changed = threading.Condition()
        self._is_closed = False
        # Descriptors of our own: a TLS handshake takes a socket away from whoever had it.
        self._sockets: OrderedDict[int, socket.socket] = OrderedDict()
        self._owners: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        threading.Thread(target=self._watch, name="registry", daemon=True).start()

    def extend(self, more_s: float) -> None:
        """Have it end later."""
        with self._changed:
            self._ends_s += more_s

    def watch(self, owner: HTTPConnection, connection: socket.socket) -> None:
        """Watch a connection; of many those that were used last, since one is used at a time."""
        with self._changed:
            self._owners.add(owner)
            self._forget(id(owner))
            if self.is_over:
                connection.close()
                raise TimeoutError
            self._sockets[id(owner)] = connection.dup()
            if len(self._sockets) > _WATCHED_MAX:
                self._forget(next(iter(self._sockets)))

    def used(self, owner: HTTPConnection) -> None:
        """Say that a connection is used again."""
        with self._changed:
            if id(owner) in self._sockets:
                self._sockets.move_to_end(id(owner))

    def close(self) -> None:
        """Watch no more, and close what is open, also where an answer wasn't read to its end."""
        with self._changed:
            for each in list(self._owners):
                each.close()
            self._is_closed = True
            for owner in list(self._sockets):
                self._forget(owner)
            self._changed.notify()

    def _forget(self, owner: int) -> None:
        if owner in self._sockets:
            self._sockets.pop(owner).close()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed and (left_s := self._ends_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            if not self._is_closed:
                self.is_over = True
                for one in self._sockets.values():
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)


class _Bounded:
    """What comes of one answer: as it is, and no more than so many bytes."""

    def __init__(self, raw: Any, most_bytes: int) -> None:
        self._raw = raw
        self._left_bytes = most_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, size: int, **_: object) -> Iterator[bytes]:
        """Yield it piece by piece; what is compressed stays so, since a few bytes of it can stand for very many."""
        while piece := self._raw.read(min(size, self._left_bytes + 1), decode_content=False):
            self._left_bytes -= len(piece)
            if self._left_bytes < 0:
                self._raw.close()
                raise exceptions.ContentDecodingError("larger than any answer that is taken")
            yield piece

    def read(self, size: int | None = None, **_: object) -> bytes:
        """Return what is left of it, or a piece."""
        return b"".join(self.stream(1 << 16)) if size is None else next(self.stream(size), b"")


class Session(requests.Session):
    """A session with one registry. `base` is its URL, without a path."""

    def __init__(self, base: str, patience_s: float) -> None:
        """Get ready; a registry on this machine is never asked by way of a proxy."""
        super().__init__()
        self.base = base
        self.patience = Patience(patience_s)
        self.blob_bytes = 0
        """How large the blob is that is being asked for."""
        self.known = {origin_of(base)}
        """Who may learn credentials."""
        self.trust_env = base.startswith("https:")  # proxies, bundles of certificates
        self.auth = lambda request: request  # else a netrc file's would be sent
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["Accept-Encoding"] = "identity"
        self.max_redirects = REDIRECTS_MAX
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter(self))

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request where it may go."""
        url = request.url or ""
        if why_not_followed(self.base, url):
            raise exceptions.TooManyRedirects
        if origin_of(url) not in self.known:
            request.headers.pop("Authorization", None)
        return super().send(request, **options)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Add nothing where an answer leads elsewhere; `send` takes away."""

    def close(self) -> None:
        """End it."""
        super().close()
        self.patience.close()


class _Adapter(HTTPAdapter):
    """Where a session's requests become bytes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._session)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _pools(self._session)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **(options | {"timeout": (CONNECT_S, READ_S)}))
        is_blob = response.status_code == 200 and request.headers.get("Accept") == BLOB
        most_bytes = self._session.blob_bytes if is_blob else ANSWER_MAX_BYTES
        response.raw = _Bounded(response.raw, most_bytes)
        return response


def _pools(session: Session) -> dict[str, type[HTTPConnectionPool]]:
    """Return pools of connections that a session watches."""
    own = origin_of(session.base)[1]

    class _Watched(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            # A name may lead to any address; whom the user has named may be this machine.
            if self.proxy is None and self.host.strip("[]") != own and is_this_machine(connection.getpeername()[0]):
                connection.close()
                raise NewConnectionError(self, "from another machine to this one")
            session.patience.watch(self, connection)
            return connection

        def request(self, *args: Any, **options: Any) -> None:
            session.patience.used(self)
            super().request(*args, **options)

    class _WatchedByTls(_Watched, HTTPSConnection):
        pass

    class _Pool(HTTPConnectionPool):
        ConnectionCls = _Watched

    class _PoolByTls(HTTPSConnectionPool):
        ConnectionCls = _WatchedByTls

    return {"http": _Pool, "https": _PoolByTls}
