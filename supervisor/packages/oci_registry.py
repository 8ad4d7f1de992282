"""A registry, asked through the ORAS client under rules of our own: how long, where it may send us, how much it says.

The client does what has many variants in the field (tokens, credentials of `docker login`, uploads). What it returns is
bytes to us: digests are compared by whoever asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ipc.errors import ConfigError
from supervisor.packages.oci_manifest import MANIFEST_MAX_BYTES, MANIFEST_TYPE, OciReference
from supervisor.packages.oci_reach import BLOB, READ_S, origin_of, why_not_followed
from supervisor.terminal import visible

if TYPE_CHECKING:
    import requests
    from oras.container import Container
    from oras.provider import Registry

    from supervisor.packages.oci_session import Session

TALK_S: Final = 120
"""How long it may all take, besides what is asked for and sent:"""
SLOWEST_BYTES_S: Final = 16 << 10
EACH_S: Final = 1
_CHUNK_BYTES: Final = 1 << 20
_QUESTION_MAX_CHARACTERS: Final = 2_048
"""Of what a registry says of who gives out tokens; the client takes long for long ones."""
_WORDS: Final[Mapping[int, str]] = {
    401: "it wants to know who asks",
    403: "it doesn't allow that",
    404: "it has no such artifact",
    405: "it doesn't allow that",
    413: "it takes nothing so large",
    429: "it is asked too much at the moment",
}


class RegistryError(ConfigError):
    """A registry gave no answer, or not one that can be used."""

    exit_code = 69  # EX_UNAVAILABLE


class OciRegistry:
    """One artifact's place in a registry. Use as a context manager."""

    def __init__(self, reference: OciReference) -> None:
        """Get ready to ask; nothing is asked yet. TLS always, but for a registry on this machine."""
        self._reference = reference
        self._client = _client(reference)
        self._session: Session = self._client.session
        self._container = _container(reference)

    def __enter__(self) -> OciRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def manifest(self) -> bytes:
        """Return the manifest's bytes as they came; raises RegistryError."""
        headers = {"Accept": MANIFEST_TYPE}
        with self._asked(), self._request("GET", self._container.manifest_url(), headers) as response:
            self._refuse(response)
            data = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                data += chunk
                if len(data) > MANIFEST_MAX_BYTES:
                    raise self._error("its manifest is larger than any that is taken")
            return bytes(data)

    def blob(self, digest: str, size_bytes: int) -> Generator[bytes, None, None]:
        """Yield a blob piece by piece as it comes, and at most one byte more than its size."""
        self._session.blob_bytes = size_bytes + 1
        self._session.patience.extend(EACH_S + size_bytes / SLOWEST_BYTES_S)
        with self._asked(), self._request("GET", self._container.get_blob_url(digest), {"Accept": BLOB}) as response:
            self._refuse(response)
            yield from response.iter_content(_CHUNK_BYTES)

    def has_blob(self, digest: str) -> bool:
        """Return whether the registry has it already."""
        self._session.patience.extend(EACH_S)
        with self._asked(), self._request("HEAD", self._container.get_blob_url(digest), {}) as response:
            return bool(response.status_code == 200)

    def upload(self, path: str, digest: str, size_bytes: int) -> None:
        """Put a file there as a blob; the registry compares the digest."""
        self._session.patience.extend(EACH_S + size_bytes / SLOWEST_BYTES_S)
        with self._asked():
            self._refuse(self._client.put_upload(path, self._container, {"digest": digest, "size": size_bytes}))

    def put_manifest(self, data: bytes) -> None:
        """Put a manifest under the reference's tag."""
        headers = {"Content-Type": MANIFEST_TYPE}
        with self._asked(), self._request("PUT", self._container.manifest_url(), headers, data) as response:
            self._refuse(response)

    def _request(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None = None
    ) -> contextlib.AbstractContextManager[requests.Response]:
        address = f"{self._client.prefix}://{url}"
        response: requests.Response = self._client.do_request(
            address, method, data=data, headers=headers, stream=method == "GET"
        )
        return response

    def _refuse(self, response: requests.Response) -> None:
        if response.status_code not in (200, 201, 202):
            words = _WORDS.get(response.status_code, f"it answers {response.status_code}")
            hint = f"docker login {self._reference.registry}" if response.status_code in (401, 403) else None
            raise self._error(words, hint)

    def _error(self, words: str, hint: str | None = None) -> RegistryError:
        return RegistryError(f"{visible(str(self._reference))}: {words}", hint=hint)

    def _in_words(self, error: requests.RequestException) -> str:
        from requests import exceptions

        if self._session.patience.is_over:
            return "it takes longer than anybody waits"
        words = {
            exceptions.SSLError: "its certificate isn't one that this host believes",
            exceptions.Timeout: f"no answer for {READ_S} s",
            exceptions.TooManyRedirects: "it sends us somewhere else, where it may not, or again and again",
            exceptions.ContentDecodingError: "its answer is larger than any that is taken",
        }
        found = next((each for kind, each in words.items() if isinstance(error, kind)), "")
        return found or f"it can't be asked ({type(error).__name__})"

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Tell what goes wrong on the way in one line."""
        from requests import exceptions

        try:
            yield
            if self._session.patience.is_over:
                raise exceptions.Timeout
        except exceptions.RequestException as error:
            raise self._error(self._in_words(error)) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The client's own: no credentials it could use, an answer that it can't read.
            raise self._error("it wants to know who asks", f"docker login {self._reference.registry}") from None


def _client(reference: OciReference) -> Registry:
    import logging

    import requests
    from oras.provider import Registry as OrasRegistry

    from supervisor.packages.oci_session import Session

    class Asked(OrasRegistry):  # type: ignore[misc] # the client has no types
        """ORAS's registry, which would try for two minutes again what has failed: people do that themselves."""

        do_request = OrasRegistry.do_request.__wrapped__

    logging.getLogger("oras.logger").disabled = True  # what went wrong is ours to say
    logging.getLogger("oras").disabled = True
    base = f"{'http' if reference.is_loopback else 'https'}://{reference.registry}"
    session = Session(base, TALK_S)
    try:
        backend = "token"
        with contextlib.suppress(requests.exceptions.RequestException):
            first = session.get(f"{base}/v2/", allow_redirects=False)
            if first.headers.get("Www-Authenticate", "").lower().startswith("basic"):
                backend = "basic"
        client = Asked(hostname=reference.registry, insecure=reference.is_loopback, auth_backend=backend)
        client.session.close()
        client.session = client.auth.session = session
        # ORAS_USER and ORAS_PASS of the environment name no registry: any that asks would be told.
        client.auth.__dict__.pop("_basic_auth", None)
        client.auth.authenticate_request = _authenticating(session, client.auth.authenticate_request)
        if os.path.exists(os.path.expanduser("~/.docker/config.json")):
            _load_credentials(client, reference)
    except BaseException:
        session.close()
        raise
    return client


def _container(reference: OciReference) -> Container:
    """Return what the client knows a reference as; its own reading takes `localhost` for a part of the name."""
    from oras.container import Container

    container = Container(reference.repository, registry=reference.registry)
    container.registry, container.namespace, container.repository = reference.registry, None, reference.repository
    container.tag, container.digest = reference.tag, reference.digest
    return container


def _load_credentials(client: Registry, reference: OciReference) -> None:
    """Look up what `docker login` has kept for this registry, and no other."""
    try:
        client.auth.load_configs(_container(reference))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"~/.docker/config.json, or the program that it names, can't be used ({type(error).__name__})",
            hint=f"docker login {reference.registry}",
        ) from None


def _authenticating(session: Session, authenticate: Callable[..., Any]) -> Callable[..., Any]:
    """Return what answers a registry's question of who asks: the registry's own, and nobody else's."""

    from oras.auth.utils import parse_auth_header

    def answer(original: requests.Response, headers: Any, refresh: bool = False) -> Any:
        asked = original.headers.get("Www-Authenticate", "")
        if origin_of(original.url) != origin_of(session.base) or len(asked) > _QUESTION_MAX_CHARACTERS:
            return headers, False
        realm = parse_auth_header(asked).realm or ""
        if realm.startswith("http") and not why_not_followed(session.base, realm):
            session.known.add(origin_of(realm))
        # One that was refused has run out: the client would send it again.
        is_refused = "Authorization" in original.request.headers
        return authenticate(original, headers, refresh=refresh or is_refused)

    return answer
