"""What is served equals what `encode` and `predict` give, whoever shares the batch."""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.models import Embedder, Models
from mlx_embed.serve.queue import BatchReport, TextTooLongError
from mlx_embed.serve.reranker import Reranker
from tests.mlx_embed.serve.harness import random_texts, with_prompts

SECONDS = 60
TOLERANCE = 1e-5


def served(folder: Path, **options: str) -> Embedder:
    model = EmbeddingModel.from_pretrained(folder, device="cpu", **options)
    return Embedder("tiny", model, 200, 10**6)


@pytest.fixture(scope="module", params=["native", "reference"])
def embedder(request: pytest.FixtureRequest, embedder_folder: Path) -> Iterator[Embedder]:
    made = served(embedder_folder, engine=request.param)
    yield made
    made.queue.close()


@pytest.fixture(scope="module")
def reranker(reranker_folder: Path) -> Iterator[Reranker]:
    made = Reranker("tiny", CrossEncoder.from_pretrained(reranker_folder, device="cpu"), 200, 10**6)
    yield made
    made.queue.close()


def test_vectors_do_not_depend_on_which_requests_share_a_batch(embedder: Embedder, encoder: EmbeddingModel) -> None:
    rng = random.Random(1)
    texts = random_texts(200, 40)
    reports: list[BatchReport] = []
    embedder.queue.watch = reports.append
    jobs, start = [], 0
    while start < len(texts):
        end = start + rng.choice([1, 1, 1, 2, 9])
        jobs.append(embedder.job(texts[start:end]))
        start = end
    for job in jobs:
        embedder.queue.submit(job)
    wait([job.future for job in jobs], SECONDS)
    vectors = np.concatenate([embedder.vectors(job, 32) for job in jobs])
    assert np.abs(vectors - encoder.encode(texts)).max() <= TOLERANCE
    assert sum(job.computed for job in jobs) == np.minimum(encoder.token_counts(texts), 64).sum()
    assert len(reports) < len(jobs)  # they did share


@pytest.mark.parametrize(("name", "purpose"), [("query", None), (None, "search_query"), (None, "document")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts(name: str | None, purpose: str | None, include_prompt: bool, tmp_path: Path) -> None:
    folder = with_prompts(tmp_path / "model", include_prompt=include_prompt)
    embedder, texts = served(folder), random_texts(20, 20)
    jobs = [embedder.job(texts, prompt=embedder.prompt(name, purpose)), embedder.job(texts)]
    for job in jobs:
        embedder.queue.submit(job)
    wait([job.future for job in jobs], SECONDS)
    embedder.queue.close()
    prompt = "passage" if purpose == "document" else "query"
    expected = embedder.model.encode(texts, prompt_name=prompt)
    assert np.abs(embedder.vectors(jobs[0], 32) - expected).max() <= TOLERANCE
    assert np.abs(embedder.vectors(jobs[1], 32) - embedder.model.encode(texts)).max() <= TOLERANCE


def test_a_query_is_cut_where_the_checkpoint_says(tmp_path: Path) -> None:
    folder = with_prompts(tmp_path / "model")
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"query_length": 7}))
    embedder, texts = served(folder), ["wing heat flow code speed of the wing", "flow"]
    tasks = ("query", "document", None)
    jobs = [embedder.job(texts, prompt=embedder.prompt(None, task), task=task) for task in tasks]
    jobs.append(embedder.job(texts, task="query", strict=True))
    for job in jobs:
        embedder.queue.submit(job)
    vectors = [embedder.vectors(job.future.result(SECONDS), 32) for job in jobs[:3]]
    with pytest.raises(TextTooLongError, match="10 tokens, and the model takes 7"):
        jobs[3].future.result(SECONDS)
    embedder.queue.close()
    model = embedder.model
    for found, encode in zip(vectors, (model.encode_query, model.encode_document, model.encode), strict=True):
        assert np.abs(found - encode(texts)).max() <= TOLERANCE
    assert [embedder.cut(job) for job in jobs[:3]] == [[0], [], []]


def test_dimensions_are_cut_and_scaled(embedder: Embedder, encoder: EmbeddingModel) -> None:
    job = embedder.job(["the wing", "flow"])
    embedder.queue.submit(job)
    job.future.result(SECONDS)
    expected = encoder.encode(["the wing", "flow"], truncate_dim=7)
    assert np.abs(embedder.vectors(job, embedder.dimension(7)) - expected).max() <= TOLERANCE
    for wrong in (0, 33):
        with pytest.raises(Refusal, match=r"1\.\.32"):
            embedder.dimension(wrong)


def test_which_end_is_cut(embedder: Embedder, encoder: EmbeddingModel) -> None:
    text = "wing " * 40 + "heat " * 40 + "flow " * 40
    limit = encoder.max_seq_length
    jobs = [embedder.job([text], cut_left=side) for side in (None, False, True)]
    jobs.append(embedder.job(["the", text], strict=True))
    for job in jobs:
        embedder.queue.submit(job)
    whole, right, left = (embedder.vectors(job.future.result(SECONDS), 32) for job in jobs[:3])
    assert np.abs(whole - right).max() <= TOLERANCE
    tail = " ".join(text.split()[-(limit - 2) :])
    assert np.abs(left - encoder.encode([tail])).max() <= TOLERANCE
    assert np.abs(left - right).max() > 1e-3
    assert embedder.cut(jobs[0]) == [0]
    with pytest.raises(TextTooLongError) as found:
        jobs[3].future.result(SECONDS)
    assert found.value.index == 1


def test_token_ids_are_taken_as_they_are(embedder: Embedder, encoder: EmbeddingModel) -> None:
    text = "the wing of heat"
    job = embedder.job([encoder.tokenizer([text]).ids.tolist()[0], text])
    embedder.queue.submit(job)
    vectors = embedder.vectors(job.future.result(SECONDS), 32)
    assert np.abs(vectors[0] - vectors[1]).max() <= TOLERANCE


def test_a_vector_a_token(embedder: Embedder, encoder: EmbeddingModel) -> None:
    texts = random_texts(12, 30)
    job = embedder.job(texts, tokens=True)
    embedder.queue.submit(job)
    rows = job.future.result(SECONDS).rows
    assert [len(row) for row in rows] == encoder.token_counts(texts).tolist()
    means = np.stack([row.mean(axis=0) for row in rows])  # the model's pooling
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(means - encoder.encode(texts)).max() <= TOLERANCE


def test_logits(reranker: Reranker, cross_encoder: CrossEncoder) -> None:
    pairs = [("the wing", document) for document in random_texts(60, 40)]
    jobs = [reranker.job(pairs[:50]), reranker.job(pairs[50:])]
    for job in jobs:
        reranker.queue.submit(job)
    wait([job.future for job in jobs], SECONDS)
    logits = np.concatenate([reranker.logits(job) for job in jobs])[:, 0]
    assert np.abs(logits - cross_encoder.predict(pairs, activation="Identity")).max() <= TOLERANCE


def test_a_reranker_with_a_prompt(reranker_folder: Path) -> None:
    model = CrossEncoder.from_pretrained(reranker_folder, device="cpu")
    pairs = [("the wing", document) for document in random_texts(5, 9)]
    plain = model.predict(pairs, activation="Identity")
    model.prompts, model.default_prompt_name = {"q": "heat of "}, "q"
    reranker = Reranker("tiny", model, None, 10**6)
    job = reranker.job(pairs)
    reranker.queue.submit(job)
    logits = reranker.logits(job.future.result(SECONDS))[:, 0]
    reranker.queue.close()
    assert np.abs(logits - model.predict(pairs, activation="Identity")).max() <= TOLERANCE
    assert np.abs(logits - plain).max() > 1e-3


def test_documents_cut_to_so_many_tokens(reranker: Reranker, cross_encoder: CrossEncoder) -> None:
    job = reranker.job([("wing", document) for document in ("the wing flow of heat", "the wing", "of " * 99)], most=2)
    reranker.queue.submit(job)
    logits = reranker.logits(job.future.result(SECONDS))[:, 0]
    expected = [("wing", document) for document in ("the wing", "the wing", "of of")]
    assert np.abs(logits - cross_encoder.predict(expected, activation="Identity")).max() <= TOLERANCE


def test_a_long_query_is_cut_as_predict_cuts_it(reranker: Reranker, cross_encoder: CrossEncoder) -> None:
    query = "wing of heat " * 500
    pairs = [(query, "flow"), (query, "speed " * 200), (query, ""), ("wing", "speed " * 200)]
    job = reranker.job(pairs)
    reranker.queue.submit(job)
    logits = reranker.logits(job.future.result(SECONDS))[:, 0]
    assert np.abs(logits - cross_encoder.predict(pairs, activation="Identity")).max() <= TOLERANCE
    assert 1000 < len((job.texts[0].query.cut or "").split()) < 1100


def test_pairs_that_are_too_long(reranker: Reranker) -> None:
    jobs = [
        reranker.job([("wing", "heat"), ("wing", "heat " * limit)], strict=True) for limit in (reranker.longest - 4, 99)
    ]
    for job in jobs:
        reranker.queue.submit(job)
    assert jobs[0].future.result(SECONDS).counts == [5, reranker.longest]
    with pytest.raises(TextTooLongError):
        jobs[1].future.result(SECONDS)


def test_names(embedder: Embedder, reranker: Reranker) -> None:
    models = Models(["org/Tiny-BERT"], ["reranker"])
    with pytest.raises(Refusal, match="being loaded"):
        models.find(None)
    embedder.id, reranker.id = "org/Tiny-BERT", "reranker"
    models.add([embedder, reranker])
    for name in (None, "", "default", "org/tiny-bert", "Tiny-BERT", "tiny-bert:latest"):
        assert models.find(name, Embedder) is embedder
    assert models.find("default", Reranker) is reranker
    assert models.find("reranker") is reranker
    with pytest.raises(Refusal, match=r"'bert' not found: the models served here are org/Tiny-BERT, reranker\."):
        models.find("bert")
    with pytest.raises(Refusal, match=r"embedding models served here are org/Tiny-BERT\."):
        models.find("reranker", Embedder)
    with pytest.raises(ValueError, match="Two models are called a"):
        Models(["a"], ["a"])


class Named(NamedTuple):
    """As much of a served model as its names are."""

    id: str
    name: str
    model: Any


def named(*names: tuple[str, str], folders: Sequence[str] | None = None) -> Models:
    """Models by what they are served as and what they are, each of a folder of its own."""
    models = Models([served_as for served_as, _ in names], [])
    models.loaded = {
        served_as: cast(Any, Named(served_as, name, SimpleNamespace(checkpoint=SimpleNamespace(folder=folder))))
        for (served_as, name), folder in zip(names, folders or [name for name, _ in names], strict=True)
    }
    return models


def test_a_name_of_its_own_comes_before_the_end_of_anothers() -> None:
    models = named(("org/e5", "org/e5"), ("e5", "/e5"), ("default", "/models/x"), ("E5", "/y"), ("z:latest", "z"))
    for name in ("org/e5", "e5", "default", "E5", "z:latest"):
        assert models.find(name).id == name
    assert models.find("e5:latest").id == "e5"
    assert models.find("ORG/E5").id == "org/e5"
    assert models.find(None).id == models.find("").id == "org/e5"
    assert named(("small", "org/e5"), ("e5", "org/other")).find("org/e5").id == "small"


def test_a_name_of_several_models_is_refused() -> None:
    models = named(("a/e5", "a/e5"), ("b/e5", "b/e5"))
    with pytest.raises(Refusal, match="model 'e5' may be a/e5 or b/e5: name one of them"):
        models.find("e5")
    assert models.find("b/e5").id == "b/e5"
    same = named(("one", "org/e5"), ("two", "org/e5"), folders=["/hub/e5", "/hub/e5"])
    assert same.find("org/e5").id == "one"
