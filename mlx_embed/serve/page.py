"""What a browser gets at `/`: a page that watches this server, and tries queries on it."""

from pathlib import Path

from mlx_embed.pages.page import document
from mlx_embed.serve.limits import Scope
from mlx_embed.serve.replies import Reply

# It asks this server and no other, and no other page may put it into a frame.
HEADERS = {
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def wanted(scope: Scope) -> bool:
    """Whether a request is a browser's for the page: of `/`, and for HTML. Clients of TEI ask there for the health."""
    accepted = dict(scope["headers"]).get(b"accept", b"")
    return scope["path"] == "/" and scope["method"] == "GET" and b"text/html" in accepted


def page() -> Reply:
    """`GET /` of a browser. The page itself tells nothing of the models or of anybody's texts."""
    text = document(
        "mlx-embed",
        _here("page.html"),
        style=_here("page.css"),
        script=_here("page.js"),
        connect="'self'",
    )
    return Reply(text.encode(), media_type="text/html; charset=utf-8", headers=HEADERS)


def _here(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
