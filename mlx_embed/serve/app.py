"""The routes, and the one way in which each request is taken, answered or refused, and counted."""

import json
import logging
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from mlx_embed.serve import cohere, encode, ollama, openai, page, tei
from mlx_embed.serve.access import AccessMiddleware
from mlx_embed.serve.errors import Refusal, shape_of
from mlx_embed.serve.limits import ClientGone, Receive, Scope, Send, discard_body, read_body
from mlx_embed.serve.replies import Reply, json_reply, refused, sent
from mlx_embed.serve.service import Call, Service, stopping

logger = logging.getLogger("mlx_embed")


@dataclass(frozen=True)
class Route:
    """A route.

    Attributes:
        paths: where it is; the first is its name in the counts.
        handle: answers, from the service, the body where there is one, the call, and what is in the path.
        body: the shape of what is posted; None where it is got.
        answer: the shape of the answer, for the description.
    """

    paths: tuple[str, ...]
    handle: Callable[..., Awaitable[Reply]]
    body: type[msgspec.Struct] | None = None
    answer: Any = None

    @property
    def method(self) -> str:
        """Which HTTP method it has."""
        return "GET" if self.body is None else "POST"

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.paths[0]

    @cached_property
    def decoder(self) -> "msgspec.json.Decoder[Any]":
        """Reads a body."""
        return msgspec.json.Decoder(self.body)


async def openapi(service: Service, call: Call) -> Reply:
    """`GET /openapi.json`: this list, described."""
    from mlx_embed.serve.openapi import document

    return json_reply(document(ROUTES))


Vectors = list[list[float]]
ROUTES: Sequence[Route] = (
    Route(("/v1/embeddings", "/embeddings"), openai.embeddings, openai.EmbeddingsRequest, openai.EmbeddingsResponse),
    Route(("/api/embed",), ollama.embed, ollama.OllamaEmbedRequest, ollama.OllamaEmbedResponse),
    Route(("/embed",), tei.embed, tei.TeiEmbedRequest, Vectors),
    Route(("/rerank",), tei.rerank, tei.EitherRerankRequest, Any),
    Route(("/v1/rerank", "/v2/rerank"), cohere.rerank, cohere.RerankRequest, cohere.RerankResponse),
    Route(("/v1/embed",), cohere.embed_v1, cohere.EmbedRequest, cohere.EmbedResponse),
    Route(("/v2/embed",), cohere.embed_v2, cohere.EmbedRequest, cohere.EmbedResponse),
    Route(("/api/embeddings",), ollama.embeddings, ollama.OllamaEmbeddingsRequest, ollama.OllamaEmbeddingsResponse),
    Route(("/api/show",), ollama.show, ollama.ShowRequest, dict[str, Any]),
    Route(("/api/tags",), ollama.tags, answer=dict[str, Any]),
    Route(("/api/ps",), ollama.running, answer=dict[str, Any]),
    Route(("/api/version",), ollama.version, answer=dict[str, str]),
    Route(("/",), tei.root, tei.RootRequest, Any),
    Route(("/embed_all",), tei.embed_all, tei.TeiEmbedRequest, list[Vectors]),
    Route(("/embed_sparse",), tei.embed_sparse, tei.SparseRequest, list[list[dict[str, Any]]]),
    Route(("/similarity",), tei.similarity, tei.SimilarityRequest, list[float]),
    Route(("/predict",), tei.predict, tei.PredictRequest, Any),
    Route(("/tokenize",), tei.tokenize, tei.TokenizeRequest, list[list[dict[str, Any]]]),
    Route(("/decode",), tei.decode, tei.DecodeRequest, list[str]),
    Route(("/info",), tei.info, answer=dict[str, Any]),
    Route(("/health", "/ping", "/"), tei.health, answer=dict[str, str]),
    Route(("/metrics",), tei.metrics, answer=str),
    Route(("/v1/encode",), encode.encode, encode.EncodeRequest, encode.EncodeResponse),
    Route(("/v1/models",), openai.models, answer=openai.ModelList),
    Route(("/v1/models/{name:path}",), openai.model, answer=openai.Model),
    Route(("/openapi.json",), openapi, answer=dict[str, Any]),
)


class Endpoint:
    """A route of a service, as an ASGI application."""

    def __init__(self, service: Service, route: Route) -> None:
        self.service = service
        self.route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if page.wanted(scope):
            await sent(send, page.page())
            return
        route, metrics = self.route, self.service.metrics
        call = Call(receive, unread=route.body is not None)
        try:
            reply = await self._answer(scope, receive, call)
        except Refusal as refusal:
            metrics.failed(route.name, refusal.reason)
            reply = refused(refusal, scope["path"])
        except CancelledError:  # a second signal ends the server at once, and nothing more is read
            metrics.failed(route.name, "stopping")
            call.unread = False
            reply = refused(stopping(), scope["path"])
        except ClientGone:
            metrics.failed(route.name, "client_gone")
            call.unread = False
            reply = Reply(b"", status=499)
        except Exception as error:
            # What was asked for is nobody else's business, and so not in the log.
            logger.error("%s %s failed.", route.method, route.name, exc_info=True)
            metrics.failed(route.name, "internal")
            message = f"The request could not be computed: {type(error).__name__}."
            reply = refused(Refusal("internal", message), scope["path"])
        else:
            seconds = time.monotonic() - call.began
            metrics.answered(route.name, seconds, call.jobs)
            if call.jobs and shape_of(scope["path"]) == "tei":
                reply = Reply(reply.content, headers=tei.timing_headers(call, seconds))
        for job in call.jobs:
            job.release()
        await sent(send, reply, more=call.unread)
        if call.unread:
            await discard_body(receive)
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive, call: Call) -> Reply:
        service, route = self.service, self.route
        parameters = scope["path_params"]
        if route.body is None:
            return await route.handle(service, call, **parameters)
        if service.stopping:
            raise stopping()
        with service.places.place():
            body = await read_body(scope, receive, service.limits.body_bytes)
            call.unread = False
            with service.places.hold(len(body)):
                return await route.handle(service, self._parsed(body), call, **parameters)

    def _parsed(self, body: bytes) -> Any:
        try:
            return self.route.decoder.decode(body)
        except msgspec.ValidationError as error:
            # "Expected `str`, got `int` - at `$.input[3]`": the field is what is behind the $.
            field = str(error).rpartition("`$.")[2].partition("`")[0] if "`$." in str(error) else None
            raise Refusal("invalid", f"{error}.", param=field) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if _has_half_a_character(body):
                raise Refusal(
                    "invalid",
                    "A text has half of a surrogate pair, such as \\ud83d, as one has that was cut within an emoji: "
                    "leave it out, for it is no Unicode text.",
                ) from error
            raise Refusal("invalid", f"The body is no JSON in UTF-8: {error}.") from error


def _has_half_a_character(body: bytes) -> bool:
    """Whether that is what is wrong with a body; msgspec may call it truncated."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def application(service: Service) -> Starlette:
    """The service as an ASGI application."""
    routes = [
        StarletteRoute(path, Endpoint(service, route), methods=[route.method], name=f"{route.method} {path}")
        for route in ROUTES
        for path in route.paths
    ]
    middleware = []
    if service.access.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.access.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
        )
    middleware.append(Middleware(AccessMiddleware, access=service.access))
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _unrouted})
    app.router.redirect_slashes = False
    return app


async def _unrouted(request: Request, error: Exception) -> Response:
    """No such path, or another method's."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        refusal = Refusal("method", f"{path} is not for {request.method}.", headers=error.headers)
    else:
        refusal = Refusal("not_found", f"There is nothing at {path}; /openapi.json says what there is.")
    reply = refused(refusal, path)
    return Response(reply.content, reply.status, reply.headers, reply.media_type)
