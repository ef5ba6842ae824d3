"""Reranking as Cohere's, Jina's and LiteLLM's clients ask for it, and Cohere's embed."""

from typing import Any, Literal
from uuid import uuid4

import msgspec
import numpy as np
import numpy.typing as npt

from mlx_embed.checkpoint.tasks import known
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.kinds import M3Embedder, TokenEmbedder
from mlx_embed.serve.models import Embedder, Float32
from mlx_embed.serve.replies import Reply, base64_of, json_reply
from mlx_embed.serve.reranker import Reranker
from mlx_embed.serve.service import Call, Service
from mlx_embed.vector_dtypes import quantize

# In units of 1 / sqrt(D), the largest number that int8 tells apart.
LARGEST = 8
# Purposes that Cohere's models know and others have no prompt for.
NO_PROMPT = ("classification", "clustering", "image")


class Document(msgspec.Struct):
    """A document with its text in a field, as Cohere's first version and Jina have it."""

    text: str


class RerankRequest(msgspec.Struct):
    """`POST /rerank`, `/v1/rerank` or `/v2/rerank`. Fields that are not here are ignored.

    Attributes:
        query: what the documents are to be about.
        documents: texts, or objects with a text.
        model: its name; the first reranker without.
        top_n: so many of the best; none or 0 is all.
        return_documents: whether to give the texts back.
        max_tokens_per_doc: cut documents to so many tokens.
    """

    query: str
    documents: list[str | Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None


class Result(msgspec.Struct):
    """A document's place in the request, and its relevance within 0..1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankResponse(msgspec.Struct):
    """Documents, the most relevant first."""

    id: str
    model: str
    results: list[Result]
    usage: dict[str, int]
    meta: dict[str, Any]


class ContentPart(msgspec.Struct):
    """A part of an input; text alone is served here."""

    type: str
    text: str | None = None


class Input(msgspec.Struct):
    """An input in parts."""

    content: list[ContentPart]


class EmbedRequest(msgspec.Struct):
    """`POST /v2/embed` and `/v1/embed`."""

    texts: list[str] | None = None
    inputs: list[Input] | None = None
    images: list[str] | None = None
    model: str | None = None
    input_type: str | None = None
    embedding_types: list[Literal["float", "base64", "binary", "ubinary", "int8", "uint8"]] | None = None
    output_dimension: int | None = None
    truncate: Literal["NONE", "START", "END"] | None = None


class EmbedResponse(msgspec.Struct):
    """Vectors by their type; of `/v1/embed` a list, where no type was asked for."""

    id: str
    embeddings: Any
    texts: list[str]
    meta: dict[str, Any]
    response_type: str


async def rerank(service: Service, body: RerankRequest, call: Call) -> Reply:
    """Documents by their relevance to a query."""
    model = service.models.find(body.model, Reranker, TokenEmbedder, M3Embedder)
    if body.top_n is not None and body.top_n < 0:
        raise Refusal("invalid", f"top_n {body.top_n} is negative.", param="top_n")
    if body.max_tokens_per_doc is not None and body.max_tokens_per_doc < 1:
        raise Refusal(
            "invalid", f"max_tokens_per_doc {body.max_tokens_per_doc} is below 1.", param="max_tokens_per_doc"
        )
    documents = [document if isinstance(document, str) else document.text for document in body.documents]
    ranked = await service.rank(call, model, body.query, documents, most=body.max_tokens_per_doc)
    scores, computed = ranked.relevance.tolist(), sum(job.computed for job in call.jobs)
    results = [{"index": index, "relevance_score": scores[index]} for index in ranked.order[: body.top_n or None]]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    return json_reply(
        {
            "id": f"rerank-{uuid4()}",
            "model": model.id,
            "results": results,
            "usage": {"prompt_tokens": computed, "total_tokens": computed},
            "meta": _meta("2", computed) | {"billed_units": {"search_units": 1}},
        }
    )


async def embed_v1(service: Service, body: EmbedRequest, call: Call) -> Reply:
    """Cohere's first embed, whose vectors are a plain list unless types are asked for."""
    return await _embed(service, body, call, version="1")


async def embed_v2(service: Service, body: EmbedRequest, call: Call) -> Reply:
    """Cohere's embed."""
    return await _embed(service, body, call, version="2")


async def _embed(service: Service, body: EmbedRequest, call: Call, version: str) -> Reply:
    model: Embedder = service.models.find(body.model, Embedder)
    if body.images:
        raise Refusal("invalid", "images are not served here: only texts are.", param="images")
    name = "texts" if body.inputs is None else "inputs"
    texts = service.contents(body.texts or [] if body.inputs is None else list(map(_text, body.inputs)), name=name)
    dim = model.dimension(body.output_dimension, "output_dimension")
    kinds = body.embedding_types or ["float"]
    if body.input_type not in NO_PROMPT:
        asked = model.asked(None, body.input_type)
    elif known(model.model.checkpoint.tasks, str(body.input_type)):
        asked = model.asked(task=body.input_type)
    else:
        asked = {**model.asked(), "prompt": ""}
    job = await service.embed(
        call,
        model,
        texts,
        field=name,
        **asked,
        cut_left={"START": True, "END": False}.get(body.truncate or ""),
        strict=body.truncate == "NONE",
    )
    vectors = model.vectors(job, dim, True if body.output_dimension is not None else None)
    plain = version == "1" and not body.embedding_types
    return json_reply(
        {
            "id": str(uuid4()),
            "embeddings": list(vectors) if plain else {kind: _as(kind, vectors) for kind in kinds},
            "texts": texts,
            "meta": _meta(version, job.computed) | {"billed_units": {"input_tokens": job.computed}},
            "response_type": "embeddings_floats" if plain else "embeddings_by_type",
        }
    )


def _text(given: Input) -> str:
    parts = [part.text for part in given.content]
    if any(text is None for text in parts):
        raise Refusal("invalid", "inputs have parts that are no text: only texts are served here.", param="inputs")
    return "".join(map(str, parts))


def steps(vectors: Float32) -> npt.NDArray[np.int8]:
    """Vectors [n, D] as whole numbers of steps, the same for every vector, so that dot products rank as cosines do.

    Cohere's are one number a dimension, of a range that its models were trained for, and it does not say which. Of a
    vector of length 1 a dimension is about 1 / sqrt(D): here 127 steps are LARGEST times that, and what is larger, of
    which there is hardly any, is 127 too.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    whole = np.rint(unit * (127 * np.sqrt(vectors.shape[1]) / LARGEST))
    return whole.clip(-127, 127).astype(np.int8)


def _as(kind: str, vectors: Float32) -> list[Any]:
    if kind == "int8":
        return list(steps(vectors))
    if kind == "uint8":
        return list((steps(vectors).view(np.uint8) + np.uint8(128)).astype(np.uint8))
    if kind in ("binary", "ubinary"):
        return list(np.ascontiguousarray(quantize(vectors, kind, None)))
    return [base64_of(vector) for vector in vectors] if kind == "base64" else list(vectors)


def _meta(version: str, tokens: int) -> dict[str, Any]:
    return {"api_version": {"version": version}, "tokens": {"input_tokens": tokens}}
