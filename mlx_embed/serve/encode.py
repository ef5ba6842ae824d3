"""What `mlx-embed encode --server` asks: vectors as `encode` gives them, and what there is to know of a model."""

import msgspec

from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.models import Embedder
from mlx_embed.serve.replies import Reply, base64_of, json_reply
from mlx_embed.serve.service import Call, Service


class EncodeRequest(msgspec.Struct):
    """`POST /v1/encode`.

    Attributes:
        texts: any, the empty one too; without any, the answer says what the model is.
        model: its name; the first embedding model without.
        prompt_name: the model's prompt to put before each text.
        truncate_dim: as `encode`'s.
    """

    texts: list[str]
    model: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None


class EncodeResponse(msgspec.Struct):
    """Vectors, and the model.

    Attributes:
        vectors: base64 of little-endian float32 [n, dimension].
        token_counts: of each text, before it was cut at max_tokens.
    """

    model: str
    dimension: int
    max_tokens: int
    prompts: dict[str, str]
    default_prompt_name: str | None
    vectors: str
    token_counts: list[int]


async def encode(service: Service, body: EncodeRequest, call: Call) -> Reply:
    """`POST /v1/encode`."""
    model: Embedder = service.models.find(body.model, Embedder)
    if len(body.texts) > service.limits.inputs:
        raise Refusal(
            "invalid", f"There are {len(body.texts)} texts, and this server takes {service.limits.inputs} at a time."
        )
    dim, prompt = model.dimension(body.truncate_dim), model.prompt(body.prompt_name, None)
    job = await service.embed(call, model, body.texts, prompt=prompt) if body.texts else None
    return json_reply(
        {
            "model": model.id,
            "dimension": dim,
            "max_tokens": model.model.max_seq_length,
            "prompts": model.model.prompts,
            "default_prompt_name": model.model.default_prompt_name,
            "vectors": "" if job is None else base64_of(model.vectors(job, dim)),
            "token_counts": [] if job is None else job.counts,
        }
    )
