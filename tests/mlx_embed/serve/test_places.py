"""Room for requests: what is held, what is refused, and when a client is told to come again."""

from typing import Any

import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.limits import Limits, Places
from mlx_embed.serve.queue import QueueFullError
from mlx_embed.serve.service import LONGEST_RETRY
from tests.mlx_embed.serve.harness import serving


def test_a_body_that_is_larger_than_all_may_hold_is_taken_alone() -> None:
    places = Places(Limits(held_bytes=10))
    with places.hold(20):
        assert places.held == 20
        with pytest.raises(Refusal, match="Requests of 20 bytes"):
            places.hold(1).__enter__()
    with places.hold(4), places.hold(6):
        assert places.held == 10
    assert places.held == 0


def test_when_to_come_again(encoder: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise QueueFullError("9 tokens are waiting already.")

    with serving({"tiny": encoder}) as running:
        queue = running.service.models.find(None).queue
        monkeypatch.setattr(queue, "submit", full)
        for seconds, told in ((0.2, 1), (7.4, 7), (1e6, LONGEST_RETRY)):
            monkeypatch.setattr(queue, "seconds_to_wait", lambda seconds=seconds: seconds)
            answer = running.post("/v1/embeddings", {"input": "the wing"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, str(told))
