"""The fixtures of `harness`, where the extra `serve` is installed; the queue's own tests need none of it."""

from importlib.util import find_spec

NEEDED = ("starlette", "uvicorn", "httptools", "msgspec", "orjson", "prometheus_client", "httpx")
if all(find_spec(name) for name in NEEDED):
    from tests.mlx_embed.serve.harness import (  # noqa: F401
        cross_encoder,
        embedder_folder,
        encoder,
        reranker_folder,
        running,
    )
else:
    collect_ignore_glob = ["test_[!fq]*.py"]
