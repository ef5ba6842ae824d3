"""How well models find, and at what cost: `mlx-embed evaluate`, on a folder of documents, queries and judgements."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from platform import platform

import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels.arrays import spelled
from mlx_embed.checkpoint import hub, read_checkpoint
from mlx_embed.checkpoint.hub import served_name
from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.engine.device import describe
from mlx_embed.errors import warn
from mlx_embed.evaluation import (
    Collection,
    Gains,
    Rankings,
    judged_only,
    ndcg,
    nearest,
    recall,
    reciprocal_rank,
    relevant_or_not,
)
from mlx_embed.texts import progress
from mlx_embed.tokenizer import TruncationWarning

logger = logging.getLogger("mlx_embed")

# Documents a query that are looked at, and that a reranker may reorder.
DEPTH = 100
# What is said of one query, by its name.
METRICS: Mapping[str, Callable[[Sequence[str], Mapping[str, float]], float]] = {
    "nDCG@10": ndcg,
    "recall@10": lambda ranking, judged: recall(ranking, judged, 10),
    "recall@100": lambda ranking, judged: recall(ranking, judged, 100),
    "MRR@10": reciprocal_rank,
}
NDCG = "nDCG@10"
# Bootstrap: so many samples of as many queries, and the share of them that an interval holds.
SAMPLES, SHARE = 2000, 0.95
# Queries that are shown of those on which the contenders differ most, and documents of each.
DISPUTED, SHOWN = 12, 5
# Documents that are embedded before anything is timed, for what compiles.
WARM = 16


@dataclass(frozen=True)
class Interval:
    """An average over queries, and within what it lies in 95 of 100 samples of as many queries."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Contender:
    """A model, alone or with a reranker, and what it found.

    Attributes:
        name: tells it from the others.
        model: as it was given.
        reranker: likewise, or None.
        dtype: that the model computes in.
        device: as a person would name it.
        dimension: of its vectors.
        bytes: of a vector.
        documents_per_second: embedded.
        queries_per_second: embedded, compared with all documents, and reranked.
        scores: by the name of the metric.
        change: of nDCG@10 to the first contender, query by query; None of the first.
        ndcg: of each judged query, in the order of `Evaluation.judged`.
    """

    name: str
    model: str
    reranker: str | None
    dtype: str
    device: str
    dimension: int
    bytes: int
    documents_per_second: float
    queries_per_second: float
    scores: dict[str, Interval]
    change: Interval | None
    ndcg: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What a contender found for a query: its nDCG@10, and the first documents with whether they are relevant."""

    contender: str
    ndcg: float
    documents: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Disputed:
    """A query on which contenders differ.

    Attributes:
        query: its id.
        text: the query.
        relevant: how many documents are.
        answers: by each contender.
    """

    query: str
    text: str
    relevant: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        folder: of documents, queries and judgements.
        documents: how many.
        queries: likewise.
        judged: ids of the queries that have a relevant document, which alone count.
        graded: whether gains are as they were judged, rather than relevant or not.
        contenders: the first is what the others are compared with.
        disputed: the queries on which they differ most, the most first.
        beginnings: of the documents that are shown there, by id.
        platform: the operating system.
        cores: that this process may use.
        load: of the machine before, in cores.
        seconds: that it took.
    """

    folder: str
    documents: int
    queries: int
    judged: tuple[str, ...]
    graded: bool
    contenders: tuple[Contender, ...]
    disputed: tuple[Disputed, ...]
    beginnings: dict[str, str]
    platform: str
    cores: int
    load: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """What a contender does, before it is judged: as `Contender` has it, and its rankings."""

    name: str
    model: str
    reranker: str | None
    dtype: str
    device: str
    dimension: int
    documents_per_second: float
    queries_per_second: float
    rankings: Rankings


def evaluate(
    collection: Collection,
    models: Sequence[str],
    *,
    folder: str = "",
    dtypes: Sequence[str | None] = (None,),
    rerankers: Sequence[str] = (),
    device: str | None = None,
    truncate_dim: int | None = None,
    graded: bool = False,
) -> Evaluation:
    """Let each model, in each dtype, alone and with each reranker, answer all queries.

    Args:
        collection: with judgements.
        models: as `EmbeddingModel.from_pretrained` takes them.
        folder: of the collection, for the report.
        dtypes: to compute in.
        rerankers: as `CrossEncoder.from_pretrained` takes them; each reorders the first DEPTH documents.
        device: of all.
        truncate_dim: keep the first so many dimensions.
        graded: use gains as they were judged, as BEIR's own evaluation does, rather than relevant or not.

    Raises:
        ValueError: no model, no judgements, a reranker of several labels, or a truncate_dim that a model does not have.
        MLXEmbedError: a model that cannot be loaded.
    """
    if not models:
        raise ValueError("There is no model to evaluate.")
    gains = judged_only(collection.gains if graded else relevant_or_not(collection.gains))
    judged = tuple(query for query in collection.queries if query in gains)
    if not judged:
        raise ValueError("There are no judgements, so nothing says what was found well.")
    for name in models:  # what is wrong with the last is said before the first is run
        dimension = read_checkpoint(*hub.find(name)).dimension
        if truncate_dim is not None and not 1 <= truncate_dim <= dimension:
            raise ValueError(f"truncate_dim {truncate_dim} is not within 1..{dimension}, the dimension of {name}.")
    began, load = time.perf_counter(), os.getloadavg()[0]
    again = {name: CrossEncoder.from_pretrained(name, device=device) for name in rerankers}
    for reranker in again.values():
        reranker.require_one_label()
    names = _names(models, dtypes)
    runs: list[Run] = []
    for name in models:
        for dtype in dtypes:
            logger.info("loading %s", name)
            model = EmbeddingModel.from_pretrained(name, dtype=dtype, device=device)
            runs += _runs(model, names[name, dtype], name, collection, again, truncate_dim)
    contenders = judged_runs(runs, judged, gains)
    disputed = most_disputed(contenders, runs, judged, gains, collection)
    shown = {document for query in disputed for answer in query.answers for document, _ in answer.documents}
    return Evaluation(
        folder=folder,
        documents=len(collection.documents),
        queries=len(collection.queries),
        judged=judged,
        graded=graded,
        contenders=contenders,
        disputed=disputed,
        beginnings={document: beginning(collection.documents[document]) for document in sorted(shown)},
        platform=platform(),
        cores=cpu.usable_cores(),
        load=load,
        seconds=time.perf_counter() - began,
    )


def judged_runs(runs: Sequence[Run], judged: Sequence[str], gains: Gains) -> tuple[Contender, ...]:
    """Each run with its figures; the same samples of queries for all, so that differences are of the same queries."""
    picks = np.random.default_rng(0).integers(0, len(judged), size=(SAMPLES, len(judged)))
    contenders: list[Contender] = []
    first: npt.NDArray[np.float64] | None = None
    for run in runs:
        by_metric = {
            name: np.array([metric(run.rankings[query], gains[query]) for query in judged])
            for name, metric in METRICS.items()
        }
        own = by_metric[NDCG]
        contenders.append(
            Contender(
                name=run.name,
                model=run.model,
                reranker=run.reranker,
                dtype=run.dtype,
                device=run.device,
                dimension=run.dimension,
                bytes=4 * run.dimension,
                documents_per_second=run.documents_per_second,
                queries_per_second=run.queries_per_second,
                scores={name: interval(values, picks) for name, values in by_metric.items()},
                change=None if first is None else interval(own - first, picks),
                ndcg=tuple(own.tolist()),
            )
        )
        first = own if first is None else first
    return tuple(contenders)


def interval(values: npt.NDArray[np.float64], picks: npt.NDArray[np.int64]) -> Interval:
    """The mean of values [Q], and the percentile bootstrap's interval of it by samples [S, Q] of their places."""
    means = values[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def most_disputed(
    contenders: Sequence[Contender], runs: Sequence[Run], judged: Sequence[str], gains: Gains, collection: Collection
) -> tuple[Disputed, ...]:
    """The queries whose nDCG@10 lies furthest apart, the furthest first; none of a single contender."""
    scores = np.array([contender.ndcg for contender in contenders])
    apart = scores.max(axis=0) - scores.min(axis=0)
    order = [place for place in np.argsort(-apart, kind="stable")[:DISPUTED] if apart[place] > 0]
    return tuple(
        Disputed(
            query=judged[place],
            text=collection.queries[judged[place]],
            relevant=sum(gain > 0 for gain in gains[judged[place]].values()),
            answers=tuple(
                Answer(
                    run.name,
                    contender.ndcg[place],
                    tuple(
                        (document, gains[judged[place]].get(document, 0.0) > 0)
                        for document in run.rankings[judged[place]][:SHOWN]
                    ),
                )
                for contender, run in zip(contenders, runs, strict=True)
            ),
        )
        for place in order
    )


def to_json(evaluation: Evaluation) -> str:
    """The evaluation as JSON text."""
    return json.dumps(asdict(evaluation), indent=2, ensure_ascii=False)


def beginning(text: str, length: int = 160) -> str:
    """Of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1].rsplit(' ', 1)[0]}…"


def _runs(
    model: EmbeddingModel,
    name: str,
    given: str,
    collection: Collection,
    rerankers: Mapping[str, CrossEncoder],
    truncate_dim: int | None,
) -> list[Run]:
    """Those of one model: alone, and with each reranker."""
    documents, queries = list(collection.documents.values()), list(collection.queries.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # it would be of those alone that warm up
        model.encode_document(documents[:WARM], truncate_dim=truncate_dim)
        with progress(None, len(documents) + len(queries), description=name):
            start = time.perf_counter()
            document_vectors, info = model.encode_document(documents, truncate_dim=truncate_dim, return_info=True)
            embedded = time.perf_counter()
            query_vectors = model.encode_query(queries, truncate_dim=truncate_dim)
    if cut := int(info.truncated.sum()):
        warn(
            TruncationWarning(
                f"{cut:,} of {len(documents):,} documents are longer than the {model.max_seq_length} tokens of {name}: "
                "of each only these were embedded."
            )
        )
    found = nearest(model, query_vectors, document_vectors, collection, DEPTH)
    answered = time.perf_counter()

    def run(name: str, reranker: str | None, seconds: float, rankings: Rankings) -> Run:
        return Run(
            name=name,
            model=given,
            reranker=reranker,
            dtype=spelled(model.dtype),
            device=describe(model.device),
            dimension=document_vectors.shape[1],
            documents_per_second=len(documents) / (embedded - start),
            queries_per_second=len(queries) / seconds,
            rankings=rankings,
        )

    runs = [run(name, None, answered - embedded, found)]
    for reranker_name, reranker in rerankers.items():
        own = f"{name} + {served_name(reranker_name)}"
        begin = time.perf_counter()
        again = reranked(reranker, found, collection, own)
        runs.append(run(own, reranker_name, answered - embedded + time.perf_counter() - begin, again))
    return runs


def reranked(reranker: CrossEncoder, found: Rankings, collection: Collection, name: str = "") -> dict[str, list[str]]:
    """The same documents of each query, in the reranker's order, which is that of its logits.

    Raises:
        ValueError: a reranker of several labels.
    """
    reranker.require_one_label()
    pairs = [(query, document) for query, ranking in found.items() for document in ranking]
    with progress(None, len(pairs), "pair", description=name or "Reranking"):
        logits = reranker.predict(
            [(collection.queries[query], collection.documents[document]) for query, document in pairs],
            activation="Identity",
        )
    scores = dict(zip(pairs, logits.tolist(), strict=True))
    return {query: sorted(ranking, key=lambda document: -scores[query, document]) for query, ranking in found.items()}


def _names(models: Sequence[str], dtypes: Sequence[str | None]) -> dict[tuple[str, str | None], str]:
    """Short names that tell models and dtypes apart."""
    short = [served_name(model) for model in models]
    # Folders of one name are told apart by the whole path.
    own = {model: model if short.count(name) > 1 else name for model, name in zip(models, short, strict=True)}
    return {
        (model, dtype): own[model] if len(dtypes) == 1 else f"{own[model]}, {dtype}"
        for model in models
        for dtype in dtypes
    }
