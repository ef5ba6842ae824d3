"""Answers, as bytes: JSON of numpy arrays straight away, and vectors as base64."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlx_embed.serve.errors import Refusal, shape_of
from mlx_embed.serve.limits import Send


@dataclass(frozen=True)
class Reply:
    """An answer."""

    content: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: Any, **options: Any) -> Reply:
    """A value as JSON; float32 arrays with as many digits as they need."""
    return Reply(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), **options)


def refused(refusal: Refusal, path: str) -> Reply:
    """A refusal, in the shape that clients of the path expect."""
    shape = shape_of(path)
    return json_reply(refusal.body(shape), status=refusal.status(shape), headers=refusal.headers)


def base64_of(vector: npt.NDArray[Any]) -> str:
    """An array's bytes, floats as little-endian float32."""
    if vector.dtype.kind == "f":
        vector = vector.astype(np.dtype("<f4"), copy=False)
    return b64encode(np.ascontiguousarray(vector).data).decode()


async def sent(send: Send, reply: Reply, *, more: bool = False) -> None:
    """Send an answer; with `more`, without saying yet that it is the end of it."""
    headers = [
        (b"content-type", reply.media_type.encode()),
        (b"content-length", b"%d" % len(reply.content)),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items()),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.content, "more_body": more})
