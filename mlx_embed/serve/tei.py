"""text-embeddings-inference's native routes, which `huggingface_hub.InferenceClient` and others speak."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from mlx_embed.scores import softmax
from mlx_embed.serve import cohere
from mlx_embed.serve.cohere import Document, RerankRequest
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.kinds import M3Embedder, SparseEmbedder, TaskModel, TokenEmbedder
from mlx_embed.serve.models import Embedder
from mlx_embed.serve.replies import Reply, json_reply
from mlx_embed.serve.reranker import Reranker
from mlx_embed.serve.service import Call, Service, relevance

Direction = Literal["left", "right", "Left", "Right"]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Inputs = str | list[str | Id | list[Id]]


class Sentences(msgspec.Struct):
    """A sentence, and others to compare it with."""

    source_sentence: str
    sentences: list[str]


class Parameters(msgspec.Struct):
    """What the inference client puts beside its inputs."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    task: str | None = None


class TeiEmbedRequest(msgspec.Struct):
    """`POST /embed` and `/embed_all`; `truncate` false refuses texts that are too long.

    `input_type`, "query" or "document", says what texts are for: which prompt they get where none is named, and which
    side of a model of a vector a token. `task` names a LoRA, of a model that has some.
    """

    inputs: Inputs
    model: str | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None
    input_type: str | None = None
    task: str | None = None


class SparseRequest(msgspec.Struct):
    """`POST /embed_sparse`; `input_type`, "query" or "document", says which side of a model texts are for."""

    inputs: Inputs
    model: str | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    input_type: str | None = None


class SimilarityRequest(msgspec.Struct):
    """`POST /similarity`."""

    inputs: Sentences
    model: str | None = None
    parameters: Parameters | None = None


class RootRequest(msgspec.Struct):
    """`POST /`: what the inference client sends to a server's root, for vectors or for similarities."""

    inputs: str | list[str | Id | list[Id]] | Sentences
    model: str | None = None
    parameters: Parameters | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    task: str | None = None


class EitherRerankRequest(msgspec.Struct):
    """`POST /rerank`: with `texts` this server's answer is TEI's, with `documents` Cohere's."""

    query: str
    texts: list[str] | None = None
    documents: list[str | Document] | None = None
    model: str | None = None
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None


class PredictRequest(msgspec.Struct):
    """`POST /predict`: a pair of texts, or a list of pairs."""

    inputs: str | list[str | list[str]]
    model: str | None = None
    raw_scores: bool = False
    truncate: bool | None = None


class TokenizeRequest(msgspec.Struct):
    """`POST /tokenize`."""

    inputs: str | list[str]
    model: str | None = None
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(msgspec.Struct):
    """`POST /decode`."""

    ids: list[Id | list[Id]]
    model: str | None = None
    skip_special_tokens: bool = True


async def root(service: Service, body: RootRequest, call: Call) -> Reply:
    """`POST /`."""
    if isinstance(body.inputs, Sentences):
        return await similarity(service, SimilarityRequest(body.inputs, body.model, body.parameters), call)
    given = body.parameters or Parameters()
    return await embed(
        service,
        TeiEmbedRequest(
            body.inputs,
            body.model,
            given.truncate if body.truncate is None else body.truncate,
            body.truncation_direction or given.truncation_direction,
            body.prompt_name or given.prompt_name,
            body.normalize is not False,
            body.dimensions,
            task=body.task or given.task,
        ),
        call,
    )


async def embed(service: Service, body: TeiEmbedRequest, call: Call) -> Reply:
    """`POST /embed`: always a list of vectors."""
    model: Embedder = service.models.find(body.model, Embedder)
    dim = model.dimension(body.dimensions)
    contents = service.contents(body.inputs, name="inputs")
    job = await service.embed(call, model, contents, field="inputs", **_options(model, body))
    return json_reply(list(model.vectors(job, dim, unit=body.normalize)))


async def embed_all(service: Service, body: TeiEmbedRequest, call: Call) -> Reply:
    """`POST /embed_all`: a vector of each token of each text: the encoder's, or a late-interaction model's.

    BGE-M3's are those by which it compares tokens, of all tokens but the first.
    """
    model: Embedder | TokenEmbedder = service.models.find(body.model, Embedder, TokenEmbedder)
    contents = service.contents(body.inputs, name="inputs")
    if isinstance(model, Embedder):
        options = {"width": model.token_width, "tokens": True, **_options(model, body)}
        return json_reply(model.token_vectors(await service.embed(call, model, contents, field="inputs", **options)))
    job = model.job(contents, body.input_type or "document", **_taken(body))
    return json_reply((await service.done(call, model, job, "inputs", width=model.model.dimension)).rows)


async def embed_sparse(service: Service, body: SparseRequest, call: Call) -> Reply:
    """`POST /embed_sparse`: of each text the tokens of the vocabulary that have a weight."""
    model: SparseEmbedder | M3Embedder = service.models.find(body.model, SparseEmbedder, M3Embedder)
    contents = service.contents(body.inputs, name="inputs")
    if isinstance(model, M3Embedder):
        options = _options(model, body)
        rows = model.weights(await service.embed(call, model, contents, field="inputs", sparse=True, **options))
    else:
        rows = (await service.done(call, model, model.job(contents, body.input_type, **_taken(body)), "inputs")).rows
    return json_reply(
        [
            [{"index": i, "value": value} for i, value in zip(row.indices.tolist(), row.values.tolist(), strict=True)]
            for row in rows
        ]
    )


async def similarity(service: Service, body: SimilarityRequest, call: Call) -> Reply:
    """`POST /similarity`: of a sentence and each of others."""
    model: Embedder = service.models.find(body.model, Embedder)
    given = body.inputs
    contents = service.contents(given.source_sentence, name="inputs.source_sentence")
    contents = contents + service.contents(given.sentences, name="inputs.sentences")
    fields = ["inputs.source_sentence", *(f"inputs.sentences[{i}]" for i in range(len(given.sentences)))]
    options = _options(model, body.parameters or Parameters())
    job = await service.embed(call, model, contents, field=fields, **options)
    vectors = model.vectors(job, model.dimension(None))
    return json_reply(np.ascontiguousarray(model.model.similarity(vectors[:1], vectors[1:])[0]))


async def rerank(service: Service, body: EitherRerankRequest, call: Call) -> Reply:
    """`POST /rerank`: texts, the most relevant first."""
    if body.texts is None:
        if body.documents is None:
            raise Refusal("invalid", "The request has neither texts nor documents.", param="texts")
        asked = RerankRequest(
            body.query, body.documents, body.model, body.top_n, body.return_documents, body.max_tokens_per_doc
        )
        return await cohere.rerank(service, asked, call)
    model = service.models.find(body.model, Reranker, TokenEmbedder, M3Embedder)
    ranked = await service.rank(call, model, body.query, body.texts, field="texts", strict=body.truncate is False)
    scores, order = (ranked.raw if body.raw_scores else ranked.relevance).tolist(), ranked.order
    texts = body.texts if body.return_text else None
    return json_reply([{"index": i, "score": scores[i]} | ({} if texts is None else {"text": texts[i]}) for i in order])


async def predict(service: Service, body: PredictRequest, call: Call) -> Reply:
    """`POST /predict`: each label and its score, the best first."""
    model: Reranker = service.models.find(body.model, Reranker)
    given: Any = body.inputs
    single = isinstance(given, str) or (bool(given) and all(isinstance(text, str) for text in given))
    pairs = [given] if single else given
    if not pairs or len(pairs) > service.limits.inputs:
        raise Refusal("invalid", f"inputs needs 1 to {service.limits.inputs} pairs of texts.", param="inputs")
    for index, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            where = "inputs" if single else f"inputs[{index}]"
            raise Refusal("invalid", f"{where} is no pair of texts, which {model.id} scores.", param="inputs")
    field = ["inputs"] if single else "inputs"
    strict = body.truncate is False
    _, logits = await service.score(call, model, [(a, b) for a, b in pairs], field=field, strict=strict)
    scores = logits if body.raw_scores else _probabilities(logits)
    found = [
        sorted(
            ({"score": score, "label": label} for score, label in zip(row, model.labels(), strict=True)),
            key=lambda entry: -float(str(entry["score"])),
        )
        for row in scores.tolist()
    ]
    return json_reply(found[0] if single else found)


async def tokenize(service: Service, body: TokenizeRequest, call: Call) -> Reply:
    """`POST /tokenize`: the tokens of texts, and where they are in them."""
    model: Any = service.models.find(body.model)
    texts = service.contents(body.inputs, name="inputs")
    if isinstance(model, Embedder) and body.prompt_name is not None:
        prompt = model.prompt(body.prompt_name, None)
        texts = [prompt + text for text in texts]

    def tokens() -> list[list[dict[str, Any]]]:
        encodings = model.model.tokenizer.library.encode_batch(texts, add_special_tokens=body.add_special_tokens)
        return [
            [
                {"id": i, "text": text, "special": bool(special)}
                | ({"start": None, "stop": None} if special else {"start": place[0], "stop": place[1]})
                for i, text, special, place in zip(
                    one.ids, one.tokens, one.special_tokens_mask, one.offsets, strict=True
                )
            ]
            for one in encodings
        ]

    return json_reply(await asyncio.to_thread(tokens))


async def decode(service: Service, body: DecodeRequest, call: Call) -> Reply:
    """`POST /decode`: the texts of token ids."""
    model: Any = service.models.find(body.model)
    flat = [i for i in body.ids if isinstance(i, int)]
    if flat and len(flat) != len(body.ids):
        raise Refusal("invalid", "ids has token ids among lists of them.", param="ids")
    if not body.ids or len(body.ids) > (service.limits.body_bytes if flat else service.limits.inputs):
        raise Refusal("invalid", f"ids needs 1 to {service.limits.inputs} lists of token ids.", param="ids")
    rows: Sequence[Any] = [flat] if flat else body.ids
    library = model.model.tokenizer.library
    return json_reply(await asyncio.to_thread(library.decode_batch, rows, skip_special_tokens=body.skip_special_tokens))


async def info(service: Service, call: Call) -> Reply:
    """`GET /info`: of the first model."""
    from mlx_embed import __version__

    model: Any = service.models.find(None)
    if isinstance(model, Embedder):
        modes = model.model.checkpoint.pooling.modes
        kind: dict[str, Any] = {"embedding": {"pooling": ", ".join(modes)}}
    elif isinstance(model, TaskModel):
        kind = {"embedding": {"pooling": "splade" if isinstance(model, SparseEmbedder) else "none"}}
    else:
        labels = dict(enumerate(model.labels()))
        names = {
            "id2label": {str(i): name for i, name in labels.items()},
            "label2id": {n: i for i, n in labels.items()},
        }
        kind = {"reranker": names} if model.model.num_labels == 1 else {"classifier": names}
    return json_reply(
        {
            "model_id": model.id,
            "model_sha": None,
            "model_dtype": str(model.model.engine.dtype).removeprefix("mlx.core."),
            "served_model_name": model.id,
            "model_type": kind,
            "max_concurrent_requests": service.limits.concurrent,
            "max_input_length": model.queue.longest,
            "max_batch_tokens": model.budget,
            "max_batch_requests": None,
            "max_client_batch_size": service.limits.inputs,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": __version__,
            "models": list(service.models.loaded),
            "scores": "relevance scores are within 0..1; raw_scores gives logits",
        }
    )


async def health(service: Service, call: Call) -> Reply:
    """`GET /health`: 200 once the models are there and have computed something, 503 before and while stopping."""
    if service.stopping:
        raise Refusal("stopping", "The server is stopping.")
    service.models.find(None)
    return json_reply({"status": "ok"})


async def metrics(service: Service, call: Call) -> Reply:
    """`GET /metrics`, for Prometheus."""
    return Reply(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def timing_headers(call: Call, seconds: float) -> dict[str, str]:
    """What a request cost, in milliseconds."""
    jobs = call.jobs
    parts = [sum(getattr(job, part) for job in jobs) for part in ("tokenizing", "queued", "inferring")]
    names = ("x-tokenization-time", "x-queue-time", "x-inference-time")
    return {
        "x-compute-type": call.device,
        "x-compute-characters": str(sum(len(text) for job in jobs for text in job.texts)),
        "x-compute-tokens": str(sum(job.computed for job in jobs)),
        "x-compute-time": f"{1000 * (parts[0] + parts[2]):.0f}",
        "x-total-time": f"{1000 * seconds:.0f}",
        **{name: f"{1000 * part:.0f}" for name, part in zip(names, parts, strict=True)},
    }


def _options(model: Embedder, given: TeiEmbedRequest | SparseRequest | Parameters) -> dict[str, Any]:
    purpose = None if isinstance(given, Parameters) else given.input_type
    task = None if isinstance(given, SparseRequest) else given.task
    return {
        **model.asked(given.prompt_name, purpose, task),
        "cut_left": _cut_left(given.truncation_direction),
        "strict": given.truncate is False,
    }


def _taken(given: TeiEmbedRequest | SparseRequest) -> dict[str, Any]:
    return {
        "prompt_name": given.prompt_name,
        "cut_left": _cut_left(given.truncation_direction),
        "strict": given.truncate is False,
    }


def _cut_left(side: Direction | None) -> bool | None:
    return None if side is None else side.lower() == "left"


def _probabilities(logits: Any) -> Any:
    return relevance(logits) if logits.shape[1] == 1 else softmax(logits.astype(np.float64))
