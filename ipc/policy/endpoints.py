"""Network endpoints: `host:port` and `scheme://host[:port][/path]`, as patterns and as resources.

A `host:port` pattern speaks of a transport connection, so it also covers every URL at that host and port. A URL
pattern covers URLs only: what a component sends over a raw connection can't be held to a scheme, method or path.

In a host, `*` is exactly one label or part of one (`*.example.com`), `**` as a first label any number. Hosts compare
in lower case; a name outside ASCII must be written in its `xn--` form. Ports are numbers, `*` is any. IPv6 stands in
brackets.
"""

import re
from typing import Final

from ipc.policy.patterns import Form, Malformed, Pattern, PatternError, SegmentGlob, parse_pattern
from ipc.struct import Struct

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
ENDPOINT_MAX_CHARS: Final = 8192

_SHAPE: Final = re.compile(
    r"(?:(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://)?"
    r"(?P<host>\[[^\]/]*\]|[^/:\[\]]+)"
    r"(?::(?P<port>[0-9]{1,5}|\*))?"
    r"(?P<path>/.*)?",
    re.DOTALL,
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LABEL_PATTERN: Final = re.compile(r"[a-z0-9_*?-]{1,63}")
_PATH_CHARACTERS: Final = re.compile(r"[!$&-;=@-Z_a-z~%]*")
# Unreserved characters (RFC 3986, section 2.3), slash, backslash and controls, when percent-encoded: a server would
# decode them and so see another path than the one that was decided upon. And a % that encodes nothing.
_ENCODED_STRUCTURE: Final = re.compile(
    r"%(?:[01][0-9a-fA-F]|2[dDeEfF]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[cCfF]|7[eEfF])|%(?![0-9a-fA-F]{2})"
)
_METHOD: Final = re.compile(r"([A-Z]{1,16}) (.*)", re.DOTALL)


class Endpoint(Struct, frozen=True):
    """One place to connect to or listen at."""

    scheme: str | None
    host: str
    port: int
    path: str
    method: str | None


class EndpointPattern(Struct, frozen=True):
    """A set of endpoints."""

    text: str
    scheme: str | None
    """None for a transport pattern (`host:port`)."""
    host: Pattern
    port: int | None
    """None for any."""
    path: Pattern | None
    """None for any."""

    @property
    def literal_host(self) -> str | None:
        """The host, if it is one host."""
        tokens = self.host.tokens
        if self.host.form is not Form.EXACT or not all(isinstance(token, str) for token in tokens):
            return None
        return ".".join(token for token in tokens if isinstance(token, str))

    @property
    def too_broad(self) -> bool:
        """Whether the host names nothing: it is only wildcards."""
        return not any(
            isinstance(token, str) or (isinstance(token, SegmentGlob) and token.names_something())
            for token in self.host.tokens
        )

    def matches(self, endpoint: Endpoint, methods: tuple[str, ...] = ()) -> bool:
        """Whether it covers the endpoint; `methods`, if any, limit it to those HTTP methods."""
        if self.port is not None and self.port != endpoint.port:
            return False
        if not self.host.matches(endpoint.host):
            return False
        if self.scheme is None:
            return not methods
        if self.scheme != endpoint.scheme or (methods and endpoint.method not in methods):
            return False
        return self.path is None or self.path.matches(endpoint.path)


def parse_endpoint(raw: str) -> Endpoint | Malformed:
    """Parse a resource `[METHOD ]host:port` or `[METHOD ]scheme://host[:port][/path]`, without query and fragment."""
    if len(raw) > ENDPOINT_MAX_CHARS:
        return Malformed(f"longer than {ENDPOINT_MAX_CHARS} characters")
    method: str | None = None
    if (with_method := _METHOD.fullmatch(raw)) is not None:
        method, raw = with_method[1], with_method[2]
    shape = _SHAPE.fullmatch(raw)
    if shape is None or shape["port"] == "*":
        return Malformed("neither host:port nor scheme://host[:port][/path]")
    scheme = shape["scheme"].lower() if shape["scheme"] else None
    port = int(shape["port"]) if shape["port"] else DEFAULT_PORTS.get(scheme or "")
    if port is None or not 1 <= port <= 65535:
        return Malformed("no port, or not one of 1 to 65535")
    host = _host(shape["host"])
    if isinstance(host, Malformed):
        return host
    path = shape["path"] or "/"
    if scheme is None and (shape["path"] or method):
        return Malformed("a method or path without a scheme")
    if (problem := _path_problem(path)) is not None:
        return Malformed(problem)
    return Endpoint(scheme, host, port, path, method)


def parse_endpoint_pattern(text: str) -> EndpointPattern:
    """Parse a pattern; raises PatternError."""
    if not text:
        raise PatternError(text, 0, "empty")
    if len(text) > ENDPOINT_MAX_CHARS:
        raise PatternError(text[:60] + "…", ENDPOINT_MAX_CHARS, f"longer than {ENDPOINT_MAX_CHARS} characters")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise PatternError(text, 0, "neither host:port nor scheme://host[:port][/path]")
    scheme = shape["scheme"].lower() if shape["scheme"] else None
    if scheme is not None and scheme not in DEFAULT_PORTS:
        raise PatternError(text, 0, f"unknown scheme {scheme} (known: {', '.join(sorted(DEFAULT_PORTS))})")
    port: int | None
    if shape["port"] is None:
        if scheme is None:
            raise PatternError(text, len(text), "a port must be given (host:port, * for any)")
        port = DEFAULT_PORTS[scheme]
    else:
        port = None if shape["port"] == "*" else int(shape["port"])
        if port is not None and not 1 <= port <= 65535:
            raise PatternError(text, shape.start("port"), "a port is one of 1 to 65535")
    host = _host_pattern(text, shape["host"], shape.start("host"))
    path: Pattern | None = None
    if shape["path"] is not None:
        if scheme is None:
            raise PatternError(text, shape.start("path"), "a path needs a scheme (https://…)")
        if shape["path"] not in ("/", "/**"):
            try:
                path = parse_pattern(shape["path"], "/")
            except PatternError as error:
                raise PatternError(text, shape.start("path") + error.position, error.reason) from None
    return EndpointPattern(text, scheme, host, port, path)


def _host(raw: str) -> str | Malformed:
    if raw.startswith("["):
        return _ipv6(raw[1:-1])
    host = raw.lower()
    if not host.isascii():
        return Malformed("a host outside ASCII must be in its xn-- form")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        return Malformed("not a host name (a trailing dot is not accepted)")
    return host


def _ipv6(raw: str) -> str | Malformed:
    from ipaddress import AddressValueError, IPv6Address  # only needed here, and costs milliseconds to import

    if "%" in raw:
        return Malformed("an IPv6 address with a zone")
    try:
        return f"[{IPv6Address(raw).compressed}]"
    except AddressValueError:
        return Malformed("not an IPv6 address")


def _host_pattern(text: str, raw: str, position: int) -> Pattern:
    if raw.startswith("["):
        address = _ipv6(raw[1:-1])
        if isinstance(address, Malformed):
            raise PatternError(text, position, address.reason)
        return Pattern(address, ".", tuple(address.split(".")), Form.EXACT)
    host = raw.lower()
    if not host.isascii():
        raise PatternError(text, position, "a host outside ASCII must be in its xn-- form")
    for label in host.split("."):
        if not _LABEL_PATTERN.fullmatch(label):
            raise PatternError(text, position, f"{label!r} is no label of a host name")
    try:
        pattern = parse_pattern(host, ".")
    except PatternError as error:
        raise PatternError(text, position + error.position, error.reason) from None
    if None in pattern.tokens[1:] or (pattern.form is Form.BENEATH and pattern.tokens):
        raise PatternError(text, position, "** may only be the first label of a host")
    return pattern


def _path_problem(path: str) -> str | None:
    """What keeps a URL path from being compared as it stands; a server may decode what we would not."""
    if not _PATH_CHARACTERS.fullmatch(path):
        return "a character that a URL path must encode, or a query"
    if _ENCODED_STRUCTURE.search(path):
        return "an encoded character that is never encoded or changes the path, or a stray %"
    segments = path[1:].split("/")
    if "." in segments or ".." in segments or "" in segments[:-1]:
        return "holds // or a . or .. segment"
    return None
