"""Serve models over HTTP to the clients of OpenAI, Cohere, Jina, text-embeddings-inference and Ollama."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

NEEDED = ("starlette", "uvicorn", "httptools", "msgspec", "orjson", "prometheus_client")


def add(parser: argparse.ArgumentParser) -> None:
    """Models, where to listen, who may use it, and how much at once."""
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="embedding models: folders, repository ids or aliases"
    )
    parser.add_argument("--reranker", action="append", default=[], metavar="MODEL", help="a cross-encoder; repeatable")
    parser.add_argument("--sparse", action="append", default=[], metavar="MODEL", help="a sparse model; repeatable")
    parser.add_argument(
        "--multi-vector",
        action="append",
        default=[],
        metavar="MODEL",
        help="a model of a vector a token (ColBERT), which /rerank takes too; repeatable",
    )
    parser.add_argument(
        "--bge-m3",
        action="append",
        default=[],
        metavar="MODEL",
        help="BGE-M3 for vectors, weights of tokens, a vector a token, and /rerank by all three; repeatable",
    )
    parser.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="the name that clients use, of the models in their order, then those of the options above; repeatable",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (%(default)s)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line, of which clients need one")
    parser.add_argument("--open-health", action="store_true", help="/health and /metrics need no key")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="web pages that may use it; repeatable"
    )
    parser.add_argument("--device", choices=("cpu", "gpu", "metal", "cuda"), help="where to compute")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16", "int8"), help="to compute in; int8 on a CPU"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="of each embedding model with LoRAs, the task where a request names none"
    )
    parser.add_argument(
        "--max-batch-tokens", type=int, metavar="N", help="tokens a batch; the default suits the device"
    )
    parser.add_argument("--max-concurrent", type=int, default=512, metavar="N", help="requests at once (%(default)s)")
    parser.add_argument(
        "--max-waiting-tokens", type=int, default=2**20, metavar="N", help="tokens that wait for a model (%(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300,
        metavar="SECONDS",
        help="for which a request may wait and run (%(default)g)",
    )
    parser.add_argument(
        "--grace", type=float, default=30, metavar="SECONDS", help="at SIGTERM, for what is running (%(default)g)"
    )
    parser.add_argument(
        "--accept-token-ids", action="store_true", help="take token ids, which have to be of the model's own vocabulary"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from mlx_embed.arguments import finite_number
    from mlx_embed.checkpoint.hub import DEFAULT_MODEL

    for name in ("max_batch_tokens", "max_concurrent", "max_waiting_tokens", "timeout", "grace"):
        option, number = f"--{name.replace('_', '-')}", getattr(options, name)
        if number is not None and finite_number(option, number) <= 0:
            raise ValueError(f"{option} {number:g} is not above 0.")
    if not 0 <= options.port < 2**16:
        raise ValueError(f"--port {options.port} is not within 0..65535.")
    others = [*options.reranker, *options.sparse, *options.multi_vector, *options.bge_m3]
    given = options.models or ([] if others else [DEFAULT_MODEL.value])
    if options.open_health and not options.api_key_file:
        raise ValueError("--open-health is for a server with keys: name them by --api-key-file.")
    if options.accept_token_ids and not given and not options.bge_m3:
        raise ValueError("--accept-token-ids is for embedding models, and none is served.")
    names = served_names([*given, *others], options.served_model_name)
    try:
        from mlx_embed.serve.access import Access, allowed_origins, is_loopback
        from mlx_embed.serve.keys import read_keys
        from mlx_embed.serve.kinds import M3Embedder, SparseEmbedder, TokenEmbedder
        from mlx_embed.serve.limits import Limits
        from mlx_embed.serve.models import Embedder, Models, Served
        from mlx_embed.serve.reranker import Reranker
        from mlx_embed.serve.run import Server, listen
        from mlx_embed.serve.service import Service
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in NEEDED:
            raise
        raise ImportError(f'The server needs {error.name}: pip install ".[serve]" in a clone of mlx-embed') from error
    keys = read_keys(options.api_key_file) if options.api_key_file else ()
    loopback = is_loopback(options.host)
    service = Service(
        Models(names[: len(given)], names[len(given) :]),
        Limits(
            concurrent=options.max_concurrent,
            waiting_tokens=options.max_waiting_tokens,
            seconds=options.timeout,
            grace_seconds=options.grace,
        ),
        Access(keys, loopback, allowed_origins(options.allow_origin), options.open_health),
        accept_token_ids=options.accept_token_ids,
    )
    if not loopback and not keys:
        print(
            f"WARNING: everybody who reaches {options.host} can use this server, for want of --api-key-file.",
            file=sys.stderr,
            flush=True,
        )

    def load() -> Sequence[Served]:
        from mlx_embed.bge_m3 import BGEM3
        from mlx_embed.checkpoint import hub, read_checkpoint
        from mlx_embed.cross_encoder import CrossEncoder
        from mlx_embed.embedding_model import EmbeddingModel
        from mlx_embed.multi_vector_encoder import MultiVectorEncoder
        from mlx_embed.sparse_encoder import SparseEncoder

        # Read once more here, so that a task that no model has is said before any weights are read.
        tasked = [] if options.task is None else [m for m in options.models if read_checkpoint(*hub.find(m)).tasks]
        if options.task is not None and not tasked:
            raise ValueError(f"--task {options.task}: no embedding model here has tasks; leave the option out.")
        chosen = {"device": options.device, "dtype": options.dtype}
        bounds = (options.max_batch_tokens, options.max_waiting_tokens)
        made: list[Served] = []
        left = iter(names)
        for place in given:
            # Without a model it is the default, or what stands in for it where that cannot be had.
            model = EmbeddingModel.from_pretrained(
                place if options.models else None, task=options.task if place in tasked else None, **chosen
            )
            name = next(left)
            named = options.models or options.served_model_name
            made.append(Embedder(name if named else model.name, model, *bounds))
        for place in options.reranker:
            made.append(Reranker(next(left), CrossEncoder.from_pretrained(place, **chosen), *bounds))
        for place in options.sparse:
            made.append(SparseEmbedder(next(left), SparseEncoder.from_pretrained(place, **chosen), *bounds))
        for place in options.multi_vector:
            made.append(TokenEmbedder(next(left), MultiVectorEncoder.from_pretrained(place, **chosen), *bounds))
        for place in options.bge_m3:
            made.append(M3Embedder(next(left), BGEM3.from_pretrained(place, **chosen), *bounds))
        return made

    with listen(options.host, options.port) as listening:
        host, port = listening.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        Server(service, load).serve_on(listening)
    return 0


def served_names(models: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names that clients use: those wanted, then repository ids, and of folders the last part of the path.

    Raises:
        ValueError: more names than models, or an empty one.
    """
    from mlx_embed.checkpoint.hub import served_name

    if len(wanted) > len(models):
        raise ValueError(f"There are {len(wanted)} names for {len(models)} models.")
    if not all(wanted):
        raise ValueError("--served-model-name is empty: a request without a name is for any model.")
    return [*wanted, *map(served_name, models[len(wanted) :])]
