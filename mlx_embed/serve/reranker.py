"""Reranker: a cross-encoder that is served; pairs to jobs of its queue, and what came out, as logits."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.options import chosen_prompt
from mlx_embed.serve.models import TOGETHER, WARM_SECONDS, Float32
from mlx_embed.serve.queue import Job, ModelQueue, Tokens

# Of a query, so many times the tokens that the model takes are kept. Which of a pair is cut more depends on which is
# longer, so that the longer one has to stay that: the document beside a cut query is cut to one token more, or less.
QUERY_LENGTHS = 16


@dataclass
class Query:
    """A query of many pairs.

    Attributes:
        text: it.
        cut: its beginning, or end, beyond which the model takes none; known once a pair of it is tokenized.
        count: its tokens before that, as `Reranker._cut` has them.
    """

    text: str
    cut: str | None = None
    count: int = 0


@dataclass(frozen=True)
class Pair:
    """A query and a document to score; `most` cuts the document to so many tokens first."""

    query: Query
    document: str
    most: int | None = None

    def __len__(self) -> int:
        return len(self.query.text) + len(self.document)


class Reranker:
    """A cross-encoder that is served; attributes as `Embedder`'s."""

    kind, option = "reranker", "--reranker MODEL"

    def __init__(self, name: str, model: CrossEncoder, batch_tokens: int | None, waiting_tokens: int) -> None:
        """Take a loaded model; `batch_tokens` None is what suits the device."""
        self.id = name
        self.model = model
        self.created = int(time.time())
        self.budget = model.engine.budget(batch_tokens)
        self.longest = model.tokenizer.max_length
        self.queue: ModelQueue[Pair] = ModelQueue(
            name,
            self._tokenize,
            self._begin,
            ahead=model.engine.ahead,
            batch_tokens=self.budget,
            longest=self.longest,
            waiting_tokens=waiting_tokens,
        )

    @property
    def name(self) -> str:
        """As the hub or the caller knows it."""
        return self.model.name

    def warm(self) -> None:
        """As `Embedder.warm`."""
        job = self.job([("Is it warm?", "It is.")])
        self.queue.submit(job)
        job.future.result(WARM_SECONDS)

    def job(self, pairs: Sequence[tuple[str, str]], *, most: int | None = None, strict: bool = False) -> Job[Pair]:
        """Pairs to score; `most` cuts documents to so many tokens, `strict` refuses pairs that are too long."""
        queries = {query: Query(query) for query, _ in pairs}
        texts = [Pair(queries[query], document, most) for query, document in pairs]
        return Job(texts, key=0, limit=self.longest if strict else None)

    def logits(self, job: Job[Pair]) -> Float32:
        """[n, labels] of a job that is done."""
        return np.stack(job.rows)

    def labels(self) -> list[str]:
        """The labels' names."""
        names = self.model.checkpoint.config.get("id2label")
        names = names if isinstance(names, dict) else {}
        return [str(names.get(str(i), f"LABEL_{i}")) for i in range(self.model.num_labels)]

    def _tokenize(self, pairs: list[Pair]) -> list[Tokens]:
        texts = []
        most = QUERY_LENGTHS * self.longest
        for pair in pairs:
            # A query of a megabyte is not to be tokenized again with each of a thousand documents.
            if pair.query.cut is None:
                pair.query.cut, pair.query.count = self._cut(pair.query.text, most)
            document = pair.document if pair.most is None else self._cut(pair.document, pair.most)[0]
            if len(document) > (most + 1 if pair.query.count > most else TOGETHER):
                longer, count = self._cut(document, most + 1)
                document = self._cut(document, most - 1)[0] if count < pair.query.count else longer
            texts.append((pair.query.cut, document))
        prompt = chosen_prompt(self.model.prompts, self.model.default_prompt_name, None, None)
        ids, types = self.model.tokenizer(texts, prompt)
        typed = self.model.takes_types
        # The tokenizer does not say what it cut: a pair of full length may have been.
        counts = [
            len(row) if len(row) < self.longest else self._count(prompt, *text)
            for row, text in zip(ids, texts, strict=True)
        ]
        return [
            Tokens(row, kind if typed else None, count)
            for row, kind, count in zip(self.model.seen(ids), types, counts, strict=True)
        ]

    def _cut(self, text: str, most: int) -> tuple[str, int]:
        """The text's first so many tokens, or its last, where the checkpoint has texts cut at their beginning.

        Beside it how many there are, of a text of megabytes those that were read of it.
        """
        tokenizer = self.model.tokenizer
        read = tokenizer.beginning(text, most) if len(text) > TOGETHER else text
        places = tokenizer.library.encode(read, add_special_tokens=False).offsets
        if len(places) <= most and read != text:
            places = tokenizer.library.encode(text, add_special_tokens=False).offsets
        if len(places) <= most:
            return text, len(places)
        # Where characters have several tokens, as of bytes, one that would lose some is left out.
        if tokenizer.cut_left:
            (_, before), (start, end) = places[-most - 1], places[-most]
            return text[end if before > start else start :], len(places)
        (start, end), (after, _) = places[most - 1], places[most]
        return text[: start if after < end else end], len(places)

    def _count(self, prompt: str, query: str, document: str) -> int:
        """The tokens of a pair, each text's counted up to the longest that the model takes."""
        tokenizer = self.model.tokenizer
        parts = tokenizer.library.encode_batch([query, document], add_special_tokens=False)
        return sum(min(len(part), self.longest) for part in parts) + tokenizer.beside(prompt)

    def _begin(self, key: Hashable, pairs: list[Tokens]) -> Callable[[], Float32]:
        engine = self.model.engine
        types = [pair.types for pair in pairs if pair.types is not None] if self.model.takes_types else None
        batches = engine.batches([pair.ids for pair in pairs], self.budget, token_types=types)
        waiting = engine.begin(batches, self.model.head)

        def rows() -> Float32:
            found = waiting()
            blank = [place for place, pair in enumerate(pairs) if not len(pair.ids)]
            if blank:  # two texts without a token have no score: the queue refuses what is not finite
                found = found.copy()
                found[blank] = np.nan
            return found

        return rows
