"""LoRAs for tasks over HTTP: what a request names, beside the same model asked directly; errors in words."""

import json
from base64 import b64decode
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.serve.models import Embedder
from tests.conftest import DATA
from tests.mlx_embed.checkpoint import test_jina_v5, test_tasks
from tests.mlx_embed.serve.harness import Running, serving

TEXTS = ["the wing", "heat of the flow", "code"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EmbeddingModel]:
    folder = tmp_path_factory.mktemp("tasks")
    made: dict[str, Path] = {
        "v3": test_tasks.authors(folder / "v3"),
        "v5": test_jina_v5.authors(folder / "v5", "nano"),
        "plain": test_jina_v5.merged(folder / "plain", "nano", "clustering"),
    }
    prompts = {"prompts": {**test_tasks.PROMPTS, "text-matching": "alike "}}
    (made["v3"] / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return {name: EmbeddingModel.from_pretrained(place, device="cpu") for name, place in made.items()}


@pytest.fixture(scope="module")
def served(models: dict[str, EmbeddingModel]) -> Iterator[Running]:
    with serving(models) as running:
        yield running


def vectors(served: Running, path: str, body: dict[str, Any]) -> np.ndarray:
    answer = served.post(path, body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if path == "/v1/embeddings":
        return np.array([entry["embedding"] for entry in found["data"]])
    return np.array(found["embeddings"]["float"] if path == "/v2/embed" else found)


def test_a_servers_task_is_for_the_models_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Embedder] = []

    class Loaded:
        """A server that ends when its models are there."""

        def __init__(self, service: Any, load: Any) -> None:
            self.load = load

        def serve_on(self, listening: Any) -> None:
            made.extend(self.load())

    monkeypatch.setattr(import_module("mlx_embed.serve.run"), "Server", Loaded)
    command, plain = ["serve", "--port", "0", "--device", "cpu", "--task", "retrieval.query"], str(DATA / "tiny-bert")
    assert cli.main([*command, plain, str(test_tasks.authors(tmp_path / "v3"))]) == 0
    assert [served.model.checkpoint.task for served in made] == [None, "retrieval.query"]
    for served in made:
        served.queue.close()
    assert cli.main([*command, plain]) == 2
    assert "--task retrieval.query: no embedding model here has tasks" in capsys.readouterr().err


# What is asked for, and what `encode` is asked for to have the same; {"side": ...} is encode_query or encode_document.
ASKED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("v3", {}, {}),
    ("v3", {"task": "text-matching"}, {"task": "text-matching", "prompt_name": "text-matching"}),
    (
        "v3",
        {"task": "text_matching", "prompt_name": "retrieval.query"},
        {"task": "text-matching", "prompt": "query of "},
    ),
    ("v3", {"task": "retrieval.query"}, {"side": "query"}),
    ("v3", {"task": "retrieval.passage"}, {"side": "document"}),
    ("v3", {"input_type": "query"}, {"side": "query"}),
    ("v3", {"input_type": "document"}, {"side": "document"}),
    ("v5", {"task": "retrieval"}, {"side": "document"}),
    ("v5", {"task": "retrieval.query"}, {"side": "query"}),
    ("v5", {"task": "retrieval.passage"}, {"side": "document"}),
    ("v5", {"input_type": "query"}, {"side": "query"}),
    ("v5", {"task": "clustering"}, {"task": "clustering"}),
    ("v5", {"task": "clustering", "prompt_name": "query"}, {"task": "clustering", "prompt_name": "query"}),
]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
@pytest.mark.parametrize(("name", "body", "options"), ASKED)
def test_a_request_names_its_task(
    served: Running,
    models: dict[str, EmbeddingModel],
    path: str,
    name: str,
    body: dict[str, Any],
    options: dict[str, Any],
) -> None:
    model, own = models[name], dict(options)
    side = own.pop("side", None)
    encode: Any = {"query": model.encode_query, "document": model.encode_document}.get(side, model.encode)
    field = "inputs" if path == "/embed" else "input"
    found = vectors(served, path, {field: TEXTS, "model": name, **body})
    assert np.abs(found - encode(TEXTS, **own)).max() <= TOLERANCE


def test_other_shapes(served: Running, models: dict[str, EmbeddingModel]) -> None:
    """Cohere's purposes, similarities, the root, and a vector a token."""
    v5 = models["v5"]
    for kind, expected in (
        ("search_query", v5.encode_query(TEXTS)),
        ("clustering", v5.encode(TEXTS, task="clustering")),
    ):
        found = vectors(served, "/v2/embed", {"texts": TEXTS, "model": "v5", "input_type": kind})
        assert np.abs(found - expected).max() <= TOLERANCE
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    body = {"inputs": inputs, "model": "v5", "parameters": {"task": "text-matching"}}
    expected = v5.encode(TEXTS, task="text-matching")
    assert served.post("/similarity", body).json() == pytest.approx((expected[1:] @ expected[0]).tolist(), abs=1e-5)
    for body in ({"task": "clustering"}, {"parameters": {"task": "clustering"}}):
        found = vectors(served, "/", {"inputs": TEXTS, "model": "v5", **body})
        assert np.abs(found - v5.encode(TEXTS, task="clustering")).max() <= TOLERANCE
    tokens = [
        served.post("/embed_all", {"inputs": TEXTS[0], "model": "v5", "task": task}).json()[0]
        for task in ("clustering", "retrieval", "clustering")
    ]
    last = np.array(tokens[0][-1])
    assert np.abs(last / np.linalg.norm(last) - v5.encode(TEXTS[0], task="clustering")).max() <= TOLERANCE
    assert tokens[0] == tokens[2] != tokens[1]


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("v5", {}, "This model needs a task, of retrieval, text-matching, clustering, classification"),
        ("v5", {"task": "summary"}, "task 'summary' is not one of the model's: retrieval, text-matching"),
        ("v3", {"task": "retrieval"}, "task 'retrieval' is not one of the model's: retrieval.query"),
        ("plain", {"task": "clustering"}, "task 'clustering': this model has no tasks"),
        ("plain", {"task": "retrieval.query"}, "task 'retrieval.query': this model has no tasks"),
    ],
)
def test_what_is_refused(served: Running, name: str, body: dict[str, Any], message: str) -> None:
    answer = served.post("/v1/embeddings", {"input": TEXTS, "model": name, **body})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "task"


def test_encode_by_a_server(served: Running, models: dict[str, EmbeddingModel]) -> None:
    """Before any text is sent it is said that there is no task; queries and documents have theirs."""
    assert served.post("/v1/encode", {"texts": [], "model": "v5"}).status_code == 400
    answer = served.post("/v1/encode", {"texts": TEXTS, "model": "v5", "task": "query"}).json()
    found = np.frombuffer(b64decode(answer["vectors"]), "<f4").reshape(len(TEXTS), -1)
    assert np.abs(found - models["v5"].encode_query(TEXTS)).max() <= TOLERANCE


def test_a_task_of_the_start(models: dict[str, EmbeddingModel]) -> None:
    """Where a request names none."""
    model = EmbeddingModel.from_pretrained(models["v5"].checkpoint.folder, device="cpu", task="clustering")
    with serving({"v5": model}) as served:
        for body, options in (({}, {}), ({"task": "retrieval"}, {"task": "retrieval"})):
            found = vectors(served, "/v1/embeddings", {"input": TEXTS, **body})
            assert np.abs(found - model.encode(TEXTS, **options)).max() <= TOLERANCE
