"""A server that is told to stop: what it says meanwhile, and a second time."""

from mlx_embed import EmbeddingModel
from mlx_embed.serve.limits import Limits
from mlx_embed.serve.models import Models
from mlx_embed.serve.run import Server
from mlx_embed.serve.service import Service
from tests.mlx_embed.serve.harness import serving


def test_it_is_not_healthy_and_takes_no_more(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}) as running:
        assert running.get("/health").status_code == 200
        running.service.stopping = True
        for answer in (running.get("/health"), running.post("/v1/embeddings", {"input": "the wing"})):
            assert answer.status_code == 503
            assert "stopping" in answer.text
        running.service.stopping = False


def test_a_second_time_it_ends_at_once() -> None:
    server = Server(Service(Models([], []), Limits(grace_seconds=600)), list)
    server.stop()
    try:
        assert (server.should_exit, server.force_exit, server.service.stopping) == (True, False, True)
        assert server._grace.is_alive()
        server.stop()
        assert server.force_exit
    finally:
        server._grace.cancel()
