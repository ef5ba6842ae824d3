"""OpenAI's embeddings and models, which most clients speak."""

from typing import Annotated, Any, Literal

import msgspec

from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.models import Embedder, Served
from mlx_embed.serve.replies import Reply, base64_of, json_reply
from mlx_embed.serve.service import Call, Service

Ids = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]


class EmbeddingsRequest(msgspec.Struct):
    """`POST /v1/embeddings`. Fields that are not here are ignored.

    Attributes:
        input: a text, texts, or token ids where the server takes them.
        model: its name; the first embedding model without.
        encoding_format: numbers, or base64 of little-endian float32.
        dimensions: keep the first so many, scaled to length 1 again.
        prompt_name: the model's prompt to put before each text.
        input_type: the prompt's purpose instead, "query" or "document".
        task: of a model with a LoRA for each task, that which vectors are for, by the model's names or those of Jina's
            API ("retrieval.query"); it brings the task's prompt, where the model has one.
        truncate: at which end a long text is cut, or that it is an error; Jina's true is the end, and false an error.
        embedding_type: Jina's name of encoding_format.
        normalized: whether vectors are scaled to length 1; the checkpoint's way without.
        late_chunking: Jina's, which is refused.
    """

    input: str | list[str | Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | Ids]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    task: str | None = None
    truncate: Literal["end", "start", "error"] | bool | None = None
    embedding_type: Literal["float", "base64"] | None = None
    normalized: bool | None = None
    late_chunking: bool = False


class Usage(msgspec.Struct):
    """Tokens computed."""

    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct):
    """A vector, of `input[index]`."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(msgspec.Struct):
    """The vectors, in the order of the texts; `truncated` says which texts were cut."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    truncated: list[int]


class Model(msgspec.Struct):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(msgspec.Struct):
    """The models that are served."""

    object: Literal["list"]
    data: list[Model]


async def embeddings(service: Service, body: EmbeddingsRequest, call: Call) -> Reply:
    """`POST /v1/embeddings`."""
    model: Embedder = service.models.find(body.model, Embedder)
    contents = service.contents(body.input)
    dim = model.dimension(body.dimensions)
    if body.late_chunking:
        raise Refusal("invalid", "late_chunking is not computed here: leave it out.", param="late_chunking")
    job = await service.embed(
        call,
        model,
        contents,
        field="input",
        **model.asked(body.prompt_name, body.input_type, body.task),
        cut_left={"start": True, "end": False, True: False}.get(body.truncate or ""),
        strict=body.truncate == "error" or body.truncate is False,
    )
    unit = True if body.normalized is None and body.dimensions is not None else body.normalized
    vectors: Any = model.vectors(job, dim, unit)
    if (body.encoding_format or body.embedding_type) == "base64":
        vectors = [base64_of(vector) for vector in vectors]
    return json_reply(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": model.id,
            "usage": {"prompt_tokens": job.computed, "total_tokens": job.computed},
            "truncated": model.cut(job),
        }
    )


async def models(service: Service, call: Call) -> Reply:
    """`GET /v1/models`."""
    service.models.find(None)
    return json_reply({"object": "list", "data": [_model(model) for model in service.models.loaded.values()]})


async def model(service: Service, call: Call, name: str) -> Reply:
    """`GET /v1/models/{id}`."""
    return json_reply(_model(service.models.find(name)))


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.id, "object": "model", "created": served.created, "owned_by": "mlx-embed"}
