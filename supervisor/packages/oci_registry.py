"""A registry, asked through the ORAS client under rules of our own: how long, where it may send us, how much it says.

The client does what has many variants in the field (tokens, credentials of `docker login`, uploads). What it returns is
bytes to us: digests are compared by whoever asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ipc.errors import ConfigError
from supervisor.packages.oci_manifest import MANIFEST_MAX_BYTES, MANIFEST_TYPE, OciReference
from supervisor.terminal import visible

if TYPE_CHECKING:
    import requests
    from oras.container import Container
    from oras.provider import Registry

CONNECT_S: Final = 10
READ_S: Final = 30
"""How long a registry may be silent."""
REDIRECTS_MAX: Final = 3
_CHUNK_BYTES: Final = 1 << 20
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
        self._container = self._client.get_container(str(reference).removeprefix("oci://"))

    def __enter__(self) -> OciRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.session.close()

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

    def blob(self, digest: str) -> Iterator[bytes]:
        """Yield a blob piece by piece as it comes: never more than is asked for at once is held."""
        with self._asked(), self._request("GET", self._container.get_blob_url(digest), {}) as response:
            self._refuse(response)
            yield from response.iter_content(_CHUNK_BYTES)

    def has_blob(self, digest: str) -> bool:
        """Return whether the registry has it already."""
        with self._asked(), self._request("HEAD", self._container.get_blob_url(digest), {}) as response:
            return bool(response.status_code == 200)

    def upload(self, path: str, digest: str, size_bytes: int) -> None:
        """Put a file there as a blob; the registry compares the digest."""
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

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Tell what goes wrong on the way in one line."""
        from requests import exceptions

        try:
            yield
        except exceptions.SSLError:
            raise self._error("its certificate isn't one that this host believes") from None
        except exceptions.Timeout:
            raise self._error(f"no answer for {READ_S} s") from None
        except exceptions.TooManyRedirects:
            raise self._error("it sends us somewhere else, again and again") from None
        except exceptions.RequestException as error:
            raise self._error(f"it can't be asked ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            # The client's own: no credentials it could use, an answer that it can't read.
            raise self._error("it wants to know who asks", f"docker login {self._reference.registry}") from None


def _client(reference: OciReference) -> Registry:
    import logging

    import requests
    from oras.provider import Registry as OrasRegistry

    class Session(requests.Session):
        """requests' session with a say in where a registry may send us."""

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            if target is not None and why_not_followed(resp.url, target):
                raise requests.exceptions.TooManyRedirects(response=resp)
            return target

    class Patient(requests.adapters.HTTPAdapter):
        """requests waits for ever by itself."""

        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            return super().send(request, *args, **(options | {"timeout": (CONNECT_S, READ_S)}))

    class Asked(OrasRegistry):  # type: ignore[misc] # the client has no types
        """ORAS's registry, which would try for two minutes again what has failed: people do that themselves."""

        do_request = OrasRegistry.do_request.__wrapped__

    logging.getLogger("oras.logger").disabled = True  # what went wrong is ours to say
    logging.getLogger("oras").disabled = True
    session = Session()
    session.max_redirects = REDIRECTS_MAX
    for prefix in ("https://", "http://"):
        session.mount(prefix, Patient())
    scheme = "http" if reference.is_loopback else "https"
    backend = "token"
    with contextlib.suppress(requests.exceptions.RequestException):
        first = session.get(f"{scheme}://{reference.registry}/v2/", allow_redirects=False)
        if first.headers.get("Www-Authenticate", "").lower().startswith("basic"):
            backend = "basic"
    client = Asked(hostname=reference.registry, insecure=reference.is_loopback, auth_backend=backend)
    client.session.close()
    client.session = client.auth.session = session
    container: Container = client.get_container(f"{reference.registry}/{reference.repository}")
    if os.path.exists(os.path.expanduser("~/.docker/config.json")):
        client.auth.load_configs(container)
    return client


def why_not_followed(url: str, target: str) -> str:
    """Return why a registry at `url` may not send us to `target`; "" where it may. Pure.

    Blobs often lie elsewhere, with a service made for large files: a digest says whether it is the right one. But never
    from TLS to none, nor from another machine to this one.
    """
    before, after = urlsplit(url), urlsplit(target)
    if not after.scheme and not after.netloc:
        return ""
    if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme != "https"):
        return "not by TLS"
    if after.hostname != before.hostname and before.scheme == "http":
        return "from this machine to another one"
    if after.hostname != before.hostname and OciReference(after.netloc, "").is_loopback:
        return "from another machine to this one"
    return ""
