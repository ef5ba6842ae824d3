"""Ollama's embeddings, as far as its clients need them."""

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

import msgspec

from mlx_embed.serve.models import Embedder, Served
from mlx_embed.serve.replies import Reply, json_reply
from mlx_embed.serve.service import Call, Service

# What clients ask for before they use a route: of an Ollama that has /api/embed.
VERSION = "0.12.0"


class OllamaEmbedRequest(msgspec.Struct):
    """`POST /api/embed`. Fields that are not here, such as keep_alive, are ignored."""

    model: str
    input: str | list[str] = ""
    truncate: bool | None = None
    dimensions: int | None = None


class OllamaEmbedResponse(msgspec.Struct):
    """Vectors of length 1; durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsRequest(msgspec.Struct):
    """`POST /api/embeddings`, the older one."""

    model: str
    prompt: str = ""


class OllamaEmbeddingsResponse(msgspec.Struct):
    """A vector; an empty one of an empty prompt."""

    embedding: list[float]


class ShowRequest(msgspec.Struct):
    """`POST /api/show`."""

    model: str | None = None
    name: str | None = None


async def embed(service: Service, body: OllamaEmbedRequest, call: Call) -> Reply:
    """`POST /api/embed`; nothing to embed only asks whether the model is there."""
    began = time.perf_counter_ns()
    model: Embedder = service.models.find(body.model, Embedder)
    dim = model.dimension(body.dimensions)
    vectors, tokens = [], 0
    if body.input:
        contents = service.contents(body.input)
        strict = body.truncate is False
        job = await service.embed(call, model, contents, field="input", strict=strict, **model.asked())
        vectors, tokens = list(model.vectors(job, dim, unit=True)), job.computed
    return json_reply(
        {
            "model": body.model,
            "embeddings": vectors,
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        }
    )


async def embeddings(service: Service, body: OllamaEmbeddingsRequest, call: Call) -> Reply:
    """`POST /api/embeddings`."""
    model: Embedder = service.models.find(body.model, Embedder)
    if not body.prompt:
        return json_reply({"embedding": []})
    job = await service.embed(call, model, [body.prompt], field=["prompt"], **model.asked())
    return json_reply({"embedding": model.vectors(job, model.dimension(None), unit=True)[0]})


async def tags(service: Service, call: Call) -> Reply:
    """`GET /api/tags`: the models that are here."""
    return json_reply({"models": [_tag(model) for model in service.models.loaded.values()]})


async def running(service: Service, call: Call) -> Reply:
    """`GET /api/ps`: the models that are loaded, which are all, and for ever."""
    forever = datetime(9999, 12, 31, tzinfo=timezone.utc).isoformat()
    loaded = [_tag(model) | {"expires_at": forever, "size_vram": 0} for model in service.models.loaded.values()]
    return json_reply({"models": loaded})


async def version(service: Service, call: Call) -> Reply:
    """`GET /api/version`."""
    return json_reply({"version": VERSION})


async def show(service: Service, body: ShowRequest, call: Call) -> Reply:
    """`POST /api/show`: what a model is."""
    model: Served = service.models.find(body.model or body.name)
    config = model.model.checkpoint.config
    family = str(config.get("model_type"))
    info = {
        "general.architecture": family,
        f"{family}.context_length": model.queue.longest,
        f"{family}.embedding_length": model.model.checkpoint.dimension,
    }
    return json_reply(
        {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(model),
            "model_info": info,
            "capabilities": ["embedding"] if isinstance(model, Embedder) else [],
            "modified_at": _modified(model),
        }
    )


def _tag(model: Served) -> dict[str, Any]:
    digest = sha256(model.id.encode()).hexdigest()
    size = sum(path.stat().st_size for path in model.model.checkpoint.transformer.glob("*.safetensors"))
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": _modified(model),
        "size": size,
        "digest": digest,
        "details": _details(model),
    }


def _modified(model: Served) -> str:
    return datetime.fromtimestamp(model.created, timezone.utc).isoformat()


def _details(model: Served) -> Mapping[str, Any]:
    family = str(model.model.checkpoint.config.get("model_type"))
    dtype = str(model.model.engine.dtype).removeprefix("mlx.core.")
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": dtype,
    }
