"""How well a model finds documents: nDCG@10 on a folder of documents, queries and relevance judgements."""

import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, log2, nan
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed import packed
from mlx_embed.arguments import path_of
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.texts import progress

logger = logging.getLogger("mlx_embed")

# Query id to the ids of the documents found for it, best first.
Rankings: TypeAlias = Mapping[str, Sequence[str]]
# Query id to document id to gain.
Gains: TypeAlias = Mapping[str, Mapping[str, float]]
Vectors: TypeAlias = npt.NDArray[np.float32]

# Queries are scored so many at a time that a block of similarities has at most this many values.
_BLOCK = 2**24
# Cranfield's codes of relevance run from 1, a complete answer, to 4, minimum interest.
_CRANFIELD_GAINS = {"1": 4.0, "2": 3.0, "3": 2.0, "4": 1.0}


@dataclass(frozen=True)
class Collection:
    """Documents, queries and what is known of their relevance.

    Attributes:
        documents: document id to text.
        queries: query id to text.
        gains: query id to document id to gain, 0 or more; empty where nothing was judged.
    """

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    gains: Gains


@dataclass(frozen=True)
class QualityReport:
    """What a conversion did to the order of the documents found for a folder's queries.

    Attributes:
        documents: how many there are.
        queries: likewise.
        ndcg_before: nDCG@10 of the source, documents being relevant or not; None where the folder has no judgements.
        ndcg_after: nDCG@10 of the converted model, likewise.
        top_10_overlap: the share of the source's ten nearest documents that the converted model has in its own ten,
            averaged over queries.
    """

    documents: int
    queries: int
    ndcg_before: float | None
    ndcg_after: float | None
    top_10_overlap: float

    @property
    def ndcg_drop(self) -> float | None:
        """How much nDCG@10 has fallen."""
        if self.ndcg_before is None or self.ndcg_after is None:
            return None
        return self.ndcg_before - self.ndcg_after


def read_collection(folder: str | Path) -> Collection:
    """Read a folder in one of two layouts.

    BEIR's: corpus.jsonl {"_id", "title", "text"}, of which title and text are embedded; queries.jsonl {"_id", "text"};
    qrels/test.tsv with query id, document id, gain, below a line of column names. Cranfield's: docs.jsonl and
    queries.jsonl {"id", "text"}; qrels.tsv of query id, document id and code, from 1 (gain 4) to 4 (gain 1). The
    judgements may be absent. Each file may be packed by gzip: corpus.jsonl.gz.

    Raises:
        ValueError: a file that is missing or malformed, its line named; judgements of other queries.
    """
    folder = path_of("folder", folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder} to evaluate on; BEIR's data sets are such folders.")
    beir = _there(folder / "corpus.jsonl").is_file()
    if not beir and not _there(folder / "docs.jsonl").is_file():
        raise ValueError(f"{folder} has neither corpus.jsonl (BEIR's layout) nor docs.jsonl (Cranfield's).")
    corpus = _there(folder / ("corpus.jsonl" if beir else "docs.jsonl"))
    documents = _texts(corpus, "_id" if beir else "id", titled=beir)
    queries = _texts(_there(folder / "queries.jsonl"), "_id" if beir else "id")
    judgements = _there(folder / ("qrels/test.tsv" if beir else "qrels.tsv"))
    gains = _gains(judgements, beir) if judgements.is_file() else {}
    if judgements.is_file():
        relevant = {document for query in queries for document, gain in gains.get(query, {}).items() if gain > 0}
        if relevant.isdisjoint(documents):
            found = f"; its document {min(relevant)!r}, for example, is not there" if relevant else ""
            raise ValueError(f"{judgements} names no relevant document for any of the queries{found}.")
    return Collection(documents, queries, gains)


def top_10(model: EmbeddingModel, collection: Collection) -> dict[str, list[str]]:
    """The ten documents nearest to each query by the model's own similarity, best first."""
    documents = model.encode_document(list(collection.documents.values()))
    queries = model.encode_query(list(collection.queries.values()))
    return nearest(model, queries, documents, collection, 10)


def nearest(
    model: EmbeddingModel, queries: Vectors, documents: Vectors, collection: Collection, k: int
) -> dict[str, list[str]]:
    """The k documents nearest to each query by the model's own similarity, best first.

    Args:
        model: whose vectors they are.
        queries: [Q, D], in the collection's order.
        documents: [N, D], likewise.
        collection: has their ids.
        k: documents a query; all where there are fewer.
    """
    names, ids = list(collection.documents), list(collection.queries)
    step = max(1, _BLOCK // len(names))
    rankings = {}
    for start in range(0, len(ids), step):
        scores = model.similarity(queries[start : start + step], documents)
        for query, row in zip(ids[start : start + step], np.argsort(-scores, axis=1, kind="stable"), strict=True):
            rankings[query] = [names[i] for i in row[:k]]
    return rankings


def judged_only(gains: Gains) -> dict[str, Mapping[str, float]]:
    """The judgements of the queries that have a relevant document: no others can be found well or badly."""
    return {query: judged for query, judged in gains.items() if max(judged.values(), default=0.0) > 0}


def ndcg_at_10(rankings: Rankings, gains: Gains) -> float:
    """`ndcg`, averaged over the queries that have a relevant document.

    Raises:
        ValueError: no query has a relevant document.
    """
    known = judged_only(gains)
    scores = [ndcg(ranking, known[query]) for query, ranking in rankings.items() if query in known]
    if not scores:
        raise ValueError("No query has a relevant document; do the judgements belong to these queries?")
    return sum(scores) / len(scores)


def ndcg(ranking: Sequence[str], judged: Mapping[str, float]) -> float:
    """Normalised discounted cumulative gain of the first ten documents of one query, which has a relevant one.

    The gain at rank i counts 1 / log2(i + 1), as in trec_eval; with gains of 0 and 1 it is the figure of
    sentence-transformers' InformationRetrievalEvaluator.
    """
    best = _discounted(sorted(judged.values(), reverse=True))
    return _discounted([judged.get(document, 0.0) for document in ranking]) / best


def recall(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """The share of the relevant documents of one query that are among its first k."""
    relevant = {document for document, gain in judged.items() if gain > 0}
    return len(relevant & {*ranking[:k]}) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], judged: Mapping[str, float]) -> float:
    """1 / the rank of the first relevant document of one query; 0 where the first ten have none."""
    return next((1 / rank for rank, document in enumerate(ranking[:10], 1) if judged.get(document, 0.0) > 0), 0.0)


def top_10_overlap(before: Rankings, after: Rankings) -> float:
    """The share of each query's first ten documents that are among the other ranking's first ten, averaged."""
    shares = [len({*found[:10]} & {*after[query][:10]}) / len(found[:10]) for query, found in before.items()]
    return sum(shares) / len(shares)


def quality(before: EmbeddingModel, after: EmbeddingModel, collection: Collection) -> QualityReport:
    """Compare what two models find."""
    total = len(collection.documents) + len(collection.queries)
    logger.info("Embedding %d documents and queries with both models.", total)
    with progress(None, 2 * total, description="Evaluating"):
        found, converted = top_10(before, collection), top_10(after, collection)
    gains = relevant_or_not(collection.gains)
    return QualityReport(
        documents=len(collection.documents),
        queries=len(collection.queries),
        ndcg_before=ndcg_at_10(found, gains) if gains else None,
        ndcg_after=ndcg_at_10(converted, gains) if gains else None,
        top_10_overlap=top_10_overlap(found, converted),
    )


def relevant_or_not(gains: Gains) -> dict[str, dict[str, float]]:
    """The gains as 1 for what is relevant at all, and 0: the nDCG that this package reports.

    It is that of sentence-transformers' InformationRetrievalEvaluator, which knows no degrees of relevance.
    """
    return {query: {d: float(gain > 0) for d, gain in judged.items()} for query, judged in gains.items()}


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains[:10], start=1))


def _texts(path: Path, key: str, titled: bool = False) -> dict[str, str]:
    """Id to text of each line of a JSON lines file."""
    found: dict[str, str] = {}
    for place, line in _lines(path):
        try:
            entry: Any = json.loads(line)
            name, text = entry[key], entry["text"]
            title = entry.get("title") or "" if titled else ""
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f'{place} is no JSON object with "{key}" and "text" ({error!r}).') from error
        if type(name) not in (str, int) or not isinstance(text, str) or not isinstance(title, str):
            raise ValueError(f'{place} needs text or a whole number as "{key}", and text otherwise.')
        if str(name) in found:
            raise ValueError(f"{place} has the id {name!r} of a line before it.")
        found[str(name)] = f"{title} {text}".strip() if titled else text
    if not found:
        raise ValueError(f"{path} is empty.")
    return found


def _gains(path: Path, beir: bool) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    lines = list(_lines(path))
    if beir and lines and isnan(_number(lines[0][1].rpartition("\t")[2])):  # else the names of columns are left out
        del lines[0]
    for place, line in lines:
        fields = line.split("\t")
        if len(fields) != 3:
            raise ValueError(
                f"{place} has {len(fields)} columns, where query id, document id and relevance are needed."
            )
        query, document, relevance = (field.strip() for field in fields)
        found.setdefault(query, {})[document] = _gain(place, relevance) if beir else _cranfield_gain(place, relevance)
    return found


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return nan


def _gain(place: str, relevance: str) -> float:
    gain = _number(relevance)
    if not isfinite(gain):
        raise ValueError(f"{place} has the relevance {relevance!r}, where a number is needed.")
    return max(gain, 0.0)


def _cranfield_gain(place: str, relevance: str) -> float:
    if relevance not in _CRANFIELD_GAINS:
        raise ValueError(
            f"{place} has the relevance {relevance!r}, where Cranfield's code from 1 (best) to 4 is needed; "
            "for other gains use BEIR's layout."
        )
    return _CRANFIELD_GAINS[relevance]


def _there(path: Path) -> Path:
    """The file, or where it is not there the one of its name that is packed."""
    other = path.with_name(path.name + packed.SUFFIX)
    return other if not path.is_file() and other.is_file() else path


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, each with its place."""
    if not path.is_file():
        raise ValueError(f"{path} is missing.")
    try:
        # Not splitlines(): JSON may hold U+2028 and other characters that it takes for line ends.
        with path.open("rb") as file, packed.unpacked(file, path) as within:
            lines = io.TextIOWrapper(within, encoding="utf-8-sig").read().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}.") from error
    return ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip())
