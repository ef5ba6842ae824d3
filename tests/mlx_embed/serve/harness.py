"""Tiny models to serve, an embedding model with prompts and a reranker, and a server of them on a free port."""

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_embed import BGEM3, CrossEncoder, EmbeddingModel, MultiVectorEncoder, SparseEncoder
from mlx_embed.serve.kinds import M3Embedder, SparseEmbedder, TokenEmbedder
from mlx_embed.serve.models import Embedder, Models, Served
from mlx_embed.serve.reranker import Reranker
from mlx_embed.serve.run import Server, listen
from mlx_embed.serve.service import Service
from tests.checkpoints import reranker as make_reranker
from tests.conftest import DATA

SECONDS = 30
WORDS = ["the", "wing", "flow", "of", "heat", "code", "qux", "42", "!", "naïve", "日本", "speed"]


def random_texts(count: int, longest: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def with_prompts(folder: Path, *, include_prompt: bool = True) -> Path:
    """A copy of the tiny BERT that has prompts, which are pooled or not."""
    shutil.copytree(DATA / "tiny-bert", folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": {"query": "heat of ", "passage": "the "}}))
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": include_prompt}))
    return folder


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tmp_path_factory.mktemp("served") / "tiny-bert")


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker("bert", 1, tmp_path_factory.mktemp("rerankers") / "tiny-reranker")


@pytest.fixture(scope="session")
def encoder(embedder_folder: Path) -> EmbeddingModel:
    """What the served embedding model is compared with."""
    return EmbeddingModel.from_pretrained(embedder_folder, device="cpu")


@pytest.fixture(scope="session")
def cross_encoder(reranker_folder: Path) -> CrossEncoder:
    return CrossEncoder.from_pretrained(reranker_folder, device="cpu")


@contextmanager
def serving(
    embedders: Mapping[str, EmbeddingModel],
    rerankers: Mapping[str, CrossEncoder] | None = None,
    others: Mapping[str, SparseEncoder | MultiVectorEncoder | BGEM3] | None = None,
    *,
    batch_tokens: int | None = None,
    hold: threading.Event | None = None,
    **options: Any,
) -> Iterator["Running"]:
    """A server of loaded models on a free port of this machine; `hold` keeps it from loading them until it is set."""
    rerankers, others = rerankers or {}, others or {}
    service = Service(Models(list(embedders), list(rerankers), list(others)), **options)
    waiting = service.limits.waiting_tokens

    def load() -> list[Served]:
        if hold is not None:
            hold.wait(SECONDS)
        made: list[Served] = [Embedder(name, model, batch_tokens, waiting) for name, model in embedders.items()]
        made += [Reranker(name, model, batch_tokens, waiting) for name, model in rerankers.items()]
        for name, model in others.items():
            if isinstance(model, SparseEncoder):
                made.append(SparseEmbedder(name, model, batch_tokens, waiting))
            elif isinstance(model, BGEM3):
                made.append(M3Embedder(name, model, batch_tokens, waiting))
            else:
                made.append(TokenEmbedder(name, model, batch_tokens, waiting))
        return made

    listening = listen("127.0.0.1", 0)
    server = Server(service, load)
    thread = threading.Thread(target=server.serve_on, args=(listening,))
    thread.start()
    running = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", server, service)
    try:
        if hold is None:
            until(lambda: bool(service.models.loaded))
        until(lambda: server.started)
        yield running
    finally:
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Running:
    """A server under test."""

    url: str
    server: Server
    service: Service

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=SECONDS, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=SECONDS, **options)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


@pytest.fixture(scope="session")
def running(embedder_folder: Path, reranker_folder: Path) -> Iterator[Running]:
    """A server of an embedding model with prompts, "org/Tiny-BERT", and a reranker, "tiny-reranker"."""
    models = {"org/Tiny-BERT": EmbeddingModel.from_pretrained(embedder_folder, device="cpu")}
    rerankers = {"tiny-reranker": CrossEncoder.from_pretrained(reranker_folder, device="cpu")}
    with serving(models, rerankers) as made:
        yield made
