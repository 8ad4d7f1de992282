"""The wire format of SSH (RFC 4251 §5), read strictly: one value, one spelling. Pure."""

from __future__ import annotations


class WireError(ValueError):
    """These bytes are not what they should be, or have another spelling than the one that there is."""


class Wire:
    """Reads values from the beginning of some bytes on; what is read is never beyond their end."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        """Return the next bytes; raises WireError where there are fewer."""
        end = self._position + length
        if end > len(self._data):
            raise WireError("it ends too early")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def uint32(self) -> int:
        """Return a number of four bytes, the most significant first."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return bytes that stand behind their length."""
        return self.take(self.uint32())

    def text(self) -> str:
        """Return a name: a string of ASCII."""
        try:
            return self.string().decode("ascii")
        except UnicodeDecodeError:
            raise WireError("a name in it isn't ASCII") from None

    def positive(self) -> int:
        """Return a positive number of any length (`mpint`); raises WireError for 0, less, and a longer spelling."""
        data = self.string()
        number = int.from_bytes(data, "big", signed=True)
        if number <= 0 or len(data) != number.bit_length() // 8 + 1:
            raise WireError("a number in it has another form than the one that it may have")
        return number

    def end(self) -> None:
        """Raise WireError unless everything was read."""
        if self._position != len(self._data):
            raise WireError("more bytes behind its end")


def string(data: bytes) -> bytes:
    """Return bytes behind their length."""
    return len(data).to_bytes(4, "big") + data
