"""Who may use the server: keys, and on loopback no web page that the user happens to have open."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.limits import Receive, Scope, Send
from mlx_embed.serve.page import wanted
from mlx_embed.serve.replies import refused, sent

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# What `open_health` leaves open: it tells nothing of anybody's texts.
HEALTH = ("/health", "/metrics", "/ping")
UNAUTHORIZED = {"www-authenticate": "Bearer"}


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        keys: one of which a request has to bring; none, and anybody may.
        loopback: whether only this machine reaches the server. Then `Host` has to name it, so that no web page gets
            here under a name of its own.
        origins: those of the web pages that may.
        open_health: whether /health and /metrics need no key.
    """

    keys: tuple[str, ...] = ()
    loopback: bool = True
    origins: tuple[str, ...] = ()
    open_health: bool = False

    def check(self, scope: Scope) -> None:
        """Raise Refusal where a request may not be answered."""
        headers = dict(scope["headers"])
        if self.loopback:
            host = headers.get(b"host", b"").decode("latin-1")
            if not is_loopback(_hostname(f"//{host}")):
                raise Refusal(
                    "forbidden",
                    f"The Host {host!r} is not this machine's own: use http://127.0.0.1 or http://localhost, or start "
                    "the server with another --host.",
                )
            origin = headers.get(b"origin", b"").decode("latin-1")
            # A page of this very server sends its origin too, which is the host that was just found to be this machine.
            own = origin in (f"http://{host}", f"https://{host}")
            if origin and not own and origin not in self.origins and "*" not in self.origins:
                raise Refusal(
                    "forbidden",
                    f"Web pages of {origin} may not use this server: --allow-origin {origin} would let them.",
                )
        if (
            self.keys
            and not wanted(scope)
            and not (self.open_health and scope["path"] in HEALTH)
            and not self._has_key(headers)
        ):
            raise Refusal(
                "unauthorized",
                "This server wants a key: Authorization: Bearer KEY, or X-API-Key: KEY.",
                headers=UNAUTHORIZED,
            )

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = key.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", headers.get(b"api-key", b""))
        # All are compared, each in constant time: the time tells nothing of which came near.
        return sum(hmac.compare_digest(given, known.encode()) for known in self.keys) > 0


class AccessMiddleware:
    """Refuses who may not use the server, before anything of the request is read."""

    def __init__(self, app: App, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "http":
            try:
                self.access.check(scope)
            except Refusal as refusal:
                await sent(send, refused(refusal, scope["path"]))
                return
        await self.app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers send them; ValueError for what is none."""
    for origin in origins:
        parts = urlsplit(origin)
        if origin not in ("*", "null") and (not parts.scheme or not parts.netloc or parts.path):
            raise ValueError(f"{origin!r} is no origin: it is like https://example.org, without a path.")
    return tuple(origins)


@lru_cache(maxsize=256)
def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
