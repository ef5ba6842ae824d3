"""What `mlx-embed encode --server` asks: vectors as `encode` gives them, and what there is to know of a model."""

from typing import Any, Literal

import msgspec
import numpy as np

from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.kinds import M3Embedder, SparseEmbedder, TaskModel, TokenEmbedder
from mlx_embed.serve.models import Embedder, Float32, input_task
from mlx_embed.serve.queue import Job
from mlx_embed.serve.replies import Reply, base64_of, json_reply
from mlx_embed.serve.service import Call, Service
from mlx_embed.sparse_vectors import SparseVector

Kind = Literal["dense", "sparse", "multi_vector"]
# What has each kind, and what has several.
SERVED: dict[Kind, tuple[type[Any], ...]] = {
    "dense": (Embedder,),
    "sparse": (SparseEmbedder, M3Embedder),
    "multi_vector": (TokenEmbedder, M3Embedder),
}


class EncodeRequest(msgspec.Struct):
    """`POST /v1/encode`.

    Attributes:
        texts: any, the empty one too; without any, the answer says what the model is.
        model: its name; the first without that has all of `kinds`.
        prompt_name: the model's prompt to put before each text.
        truncate_dim: as `encode`'s, of dense vectors.
        kinds: what is wanted of each text, of a model that has it; BGE-M3 has all, in one forward pass.
        task: what texts are for, where a model of one of the other kinds has two sides.
    """

    texts: list[str]
    model: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    kinds: list[Kind] = msgspec.field(default_factory=lambda: ["dense"])
    task: Literal["query", "document"] | None = None


class Rows(msgspec.Struct):
    """Rows of several lengths, end to end.

    Attributes:
        lengths: of each text, its weights or vectors.
        dimension: of the vocabulary, or of a vector.
        values: base64 of little-endian float32: weights, or vectors.
        indices: base64 of little-endian int32: the weights' places; empty of vectors.
    """

    lengths: list[int]
    dimension: int
    values: str
    indices: str = ""


class EncodeResponse(msgspec.Struct):
    """What was wanted of the texts, and the model.

    Attributes:
        state: of the model: the same as long as it computes the same.
        dimension: of dense vectors, as they are asked for; where they are not wanted, of the first kind that is.
        max_tokens: at which texts, of the task, are cut.
        vectors: base64 of little-endian float32 [n, dimension]; empty where they are not wanted.
        token_counts: of each text, before it was cut at max_tokens.
        sparse: weights of tokens, where they are wanted.
        multi_vector: a vector a token, where they are wanted.
    """

    model: str
    state: str
    dimension: int
    max_tokens: int
    prompts: dict[str, str]
    default_prompt_name: str | None
    vectors: str
    token_counts: list[int]
    sparse: Rows | None = None
    multi_vector: Rows | None = None


async def encode(service: Service, body: EncodeRequest, call: Call) -> Reply:
    """`POST /v1/encode`."""
    kinds = list(dict.fromkeys(body.kinds))
    if not kinds:
        raise Refusal("invalid", "kinds is empty: it needs one at least.", param="kinds")
    found = SERVED[kinds[0]] if len(kinds) == 1 else (M3Embedder,)
    model: Embedder | TaskModel[Any] = service.models.find(body.model, *found)
    if len(body.texts) > service.limits.inputs:
        raise Refusal(
            "invalid",
            f"texts has {len(body.texts)}, and this server takes {service.limits.inputs} at a time.",
            param="texts",
        )
    if body.truncate_dim is not None and "dense" not in kinds:
        raise Refusal("invalid", "truncate_dim is of dense vectors, which are not wanted.", param="truncate_dim")
    if isinstance(model, Embedder):
        tokenizer = model.model.tokenizer.for_task(input_task(body.task))
        job, parts = await _embedded(service, call, model, body, kinds)
    else:
        tokenizer = model.tokenizer(body.task)
        job, parts = await _of_a_task(service, call, model, body)
    return json_reply(
        {
            "model": model.id,
            "state": model.state,
            "max_tokens": tokenizer.max_length,
            "prompts": model.model.prompts,
            "default_prompt_name": model.model.default_prompt_name,
            "token_counts": [] if job is None else job.counts,
            **parts,
        }
    )


async def _embedded(
    service: Service, call: Call, model: Embedder, body: EncodeRequest, kinds: list[Kind]
) -> tuple[Job[Any] | None, dict[str, Any]]:
    dim, asked = model.dimension(body.truncate_dim, "truncate_dim"), model.asked(body.prompt_name, body.task)
    if isinstance(model, M3Embedder) and "dense" not in kinds:
        dim = model.m3.vocabulary if kinds[0] == "sparse" else model.m3.token_dimension
    parts: dict[str, Any] = {"dimension": dim, "vectors": ""}
    if not body.texts:
        return None, parts
    options: dict[str, Any] = {"field": "texts", **asked}
    if kinds != ["dense"]:
        options |= {"sparse": "sparse" in kinds, "tokens": "multi_vector" in kinds}
    job = await service.embed(call, model, body.texts, **options)
    if "dense" in kinds:
        parts["vectors"] = base64_of(model.vectors(job, dim))
    if isinstance(model, M3Embedder) and "sparse" in kinds:
        parts["sparse"] = _weights(model.weights(job), model.m3.vocabulary)
    if isinstance(model, M3Embedder) and "multi_vector" in kinds:
        parts["multi_vector"] = _vectors(model.token_vectors(job), model.m3.token_dimension)
    return job, parts


async def _of_a_task(
    service: Service, call: Call, model: TaskModel[Any], body: EncodeRequest
) -> tuple[Job[Any] | None, dict[str, Any]]:
    sparse = isinstance(model, SparseEmbedder)
    dimension = model.model.dimension_for(body.task) if sparse else model.model.dimension
    parts: dict[str, Any] = {"dimension": dimension, "vectors": ""}
    if not body.texts:
        return None, parts
    job = await service.done(call, model, model.job(body.texts, body.task, prompt_name=body.prompt_name), "texts")
    name, packed = ("sparse", _weights) if sparse else ("multi_vector", _vectors)
    return job, parts | {name: packed(job.rows, dimension)}


def _weights(rows: list[SparseVector], dimension: int) -> dict[str, Any]:
    indices, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    lengths = [len(row.values) for row in rows]
    return {"lengths": lengths, "dimension": dimension, "values": base64_of(values), "indices": base64_of(indices)}


def _vectors(rows: list[Float32], dimension: int) -> dict[str, Any]:
    values = base64_of(np.concatenate(rows))
    return {"lengths": list(map(len, rows)), "dimension": dimension, "values": values, "indices": ""}
