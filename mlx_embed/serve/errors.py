"""Why a request is refused, in words that any kind of client is told; its shape is the route's own."""

from collections.abc import Mapping
from typing import Any

# The status of each reason; TEI has some of its own.
STATUS = {
    "invalid": 400,
    "empty": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method": 405,
    "too_large": 413,
    "encoding": 415,
    "uncomputable": 422,
    "overloaded": 429,
    "internal": 500,
    "loading": 503,
    "stopping": 503,
    "timeout": 503,
}
TEI_STATUS = {"invalid": 422, "uncomputable": 424}
TEI_TYPES = {
    "invalid": "Validation",
    "empty": "Empty",
    "uncomputable": "Backend",
    "internal": "Backend",
    "overloaded": "Overloaded",
    "loading": "Unhealthy",
    "stopping": "Unhealthy",
}
OPENAI_TYPES = {
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "overloaded": "rate_limit_error",
    "internal": "server_error",
    "loading": "server_error",
    "stopping": "server_error",
    "timeout": "server_error",
}


class Refusal(Exception):  # noqa: N818  (not every refusal is an error of somebody's)
    """A request that is not answered.

    Attributes:
        reason: a key of STATUS.
        param: which part of the request it is about.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.param = param
        self.code = code or (None if reason == "invalid" else reason)
        self.headers = dict(headers or {})

    def status(self, shape: str) -> int:
        """The HTTP status in a shape's terms."""
        return (TEI_STATUS if shape == "tei" else {}).get(self.reason, STATUS[self.reason])

    def body(self, shape: str) -> dict[str, Any]:
        """What the client is told, in its shape: "openai", "cohere", "ollama" or "tei"."""
        message = str(self)
        if shape == "openai":
            kind = OPENAI_TYPES.get(self.reason, "invalid_request_error")
            return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}
        if shape == "cohere":
            return {"message": message}
        if shape == "ollama":
            return {"error": message}
        return {"error": message, "error_type": TEI_TYPES.get(self.reason, "Validation")}


def shape_of(path: str) -> str:
    """The shape of a path's errors."""
    if path.startswith("/v1/") or path == "/embeddings":
        return "openai"
    if path.startswith("/v2/"):
        return "cohere"
    return "ollama" if path.startswith("/api/") else "tei"
