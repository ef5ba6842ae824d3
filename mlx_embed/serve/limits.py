"""What a server takes on: so many requests at once, so many bytes, each for so long."""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlx_embed.serve.errors import Refusal

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

MIB = 2**20
DISCARDED_BYTES = 64 * MIB


@dataclass(frozen=True)
class Limits:
    """The bounds of a server.

    Attributes:
        concurrent: requests at once; what comes beyond is told to come again.
        waiting_tokens: tokens that wait for one model.
        body_bytes: of a request.
        held_bytes: of the bodies of all requests at once.
        inputs: texts of a request.
        numbers: of an answer of a vector a token, whose JSON has eleven bytes for each; that of one text may have more.
        seconds: for which a request may wait and run.
        read_seconds: within which a request has to be there, header and body.
        idle_seconds: after which a connection without a request is closed.
        grace_seconds: for what is running when the server is told to stop.
    """

    concurrent: int = 512
    waiting_tokens: int = 2**20
    body_bytes: int = 8 * 10**6
    held_bytes: int = 256 * MIB
    inputs: int = 2048
    numbers: int = 2**26
    seconds: float = 300.0
    read_seconds: float = 30.0
    idle_seconds: float = 75.0
    grace_seconds: float = 30.0


class ClientGone(Exception):  # noqa: N818  (no error of this program's)
    """Whoever asked has closed the connection."""


class Places:
    """The requests that are being worked on, and the bytes of their bodies."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.taken = 0
        self.held = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request; Refusal where all are taken."""
        if self.taken >= self._limits.concurrent:
            raise Refusal(
                "overloaded",
                f"{self.taken} requests are being worked on, as many as this server takes at once.",
                headers={"retry-after": "1"},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Room for a body; Refusal where bodies take up all there is."""
        if self.held and self.held + size > self._limits.held_bytes:
            raise Refusal(
                "overloaded", f"Requests of {self.held} bytes are being worked on.", headers={"retry-after": "1"}
            )
        self.held += size
        try:
            yield
        finally:
            self.held -= size


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """A request's body.

    Raises:
        Refusal: a larger one, before it is read whole; one that is packed, such as by gzip.
        ClientGone: the client, before it had sent it all.
    """
    # A header may be there more than once, and each may name several in the order that they were put on.
    given = b",".join(value for name, value in scope["headers"] if name == b"content-encoding").decode("latin-1")
    names = [name.strip() for name in given.split(",")]
    if packings := [name for name in names if name.lower() not in ("", "identity")]:
        raise Refusal(
            "encoding",
            f"The body has the Content-Encoding {', '.join(packings)}, and this server unpacks none: send it as it is.",
            headers={"accept-encoding": "identity"},
        )
    size = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not size.isdigit() or int(size) > most:
        raise _too_large(most)
    parts, total = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        total += len(part)
        if total > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def discard_body(receive: Receive) -> None:
    """Read what is left of a body that nobody wants, up to a limit.

    A connection that is closed while the client still sends is reset, and the client may never see the answer.
    """
    left = DISCARDED_BYTES
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


def _too_large(most: int) -> Refusal:
    return Refusal(
        "too_large",
        f"The request is larger than the {most} bytes that this server takes: send fewer texts at a time.",
    )
