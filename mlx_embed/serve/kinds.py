"""Served models whose results are no single vector a text: weights of tokens, a vector a token, or all three."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from mlx_embed.bge_m3 import BGEM3, M3Vectors
from mlx_embed.checkpoint.modules import Pooling
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.ids import Ids
from mlx_embed.late_interaction import max_sim
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.options import first_prompt
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.models import WARM_SECONDS, Embedder, Float32, Text, input_task, named_prompt, state_of, tokenized
from mlx_embed.serve.queue import Job, ModelQueue, Tokens
from mlx_embed.sparse_encoder import SparseEncoder
from mlx_embed.sparse_vectors import SparseVector, SparseVectors
from mlx_embed.tokenizer import Tokenizer

Model = TypeVar("Model", SparseEncoder, MultiVectorEncoder)
# What BGE-M3's authors weigh cosines, weights of tokens and MaxSim with, where their model card ranks by all three.
M3_WEIGHTS = (0.4, 0.2, 0.4)


class TaskModel(Generic[Model]):
    """A model that has queries and documents apart; attributes as `Embedder`'s."""

    kind: ClassVar[str]
    option: ClassVar[str]

    def __init__(self, name: str, model: Model, batch_tokens: int | None, waiting_tokens: int) -> None:
        """Take a loaded model; `batch_tokens` None is what suits the device."""
        self.id = name
        self.model: Model = model
        self.created = int(time.time())
        self.state = state_of(model)
        self.budget = model.engine.budget(batch_tokens)
        self.queue: ModelQueue[Text] = ModelQueue(
            name,
            self._tokenize,
            self._begin,
            ahead=0,
            batch_tokens=self.budget,
            longest=model.max_seq_length,
            waiting_tokens=waiting_tokens,
        )

    @property
    def name(self) -> str:
        """As the hub or the caller knows it."""
        return self.model.name

    def warm(self) -> None:
        """As `Embedder.warm`."""
        job = self.job(["Is it warm?"], None)
        self.queue.submit(job)
        job.future.result(WARM_SECONDS)

    def job(
        self,
        contents: Sequence[Any],
        input_type: str | None,
        *,
        prompt_name: str | None = None,
        cut_left: bool | None = None,
        strict: bool = False,
    ) -> Job[Text]:
        """Texts of a purpose, "query" or "document"; None has neither's prompt, but the default one.

        Raises:
            Refusal: a prompt that the model does not have, an unknown purpose, or token ids.
        """
        model, task = self.model, input_task(input_type)
        if any(not isinstance(text, str) for text in contents):
            raise Refusal("invalid", f"{self.id} takes texts, and no token ids.", param="inputs")
        if prompt_name is not None:
            named_prompt(model.prompts, prompt_name)
        default = () if model.default_prompt_name is None else (model.default_prompt_name,)
        names = (prompt_name,) if prompt_name else model.task_prompts.get(task or "", default)
        prompt = first_prompt(model.prompts, names)
        texts = [Text(content, prompt, cut_left, task) for content in contents]
        return Job(texts, key=task, limit=self.tokenizer(task).max_length if strict else None)

    def tokenizer(self, task: str | None) -> Tokenizer:
        """What makes token ids of the texts of a task."""
        raise NotImplementedError

    def computed(self, task: Any, ids: Ids) -> list[Any]:
        """A row a text."""
        raise NotImplementedError

    def _tokenize(self, texts: list[Text]) -> list[Tokens]:
        found: dict[int, Tokens] = {}
        for task, cut_left in {(text.task, text.cut_left) for text in texts}:
            chosen = [place for place, text in enumerate(texts) if (text.task, text.cut_left) == (task, cut_left)]
            contents = [texts[i].prompt + str(texts[i].content) for i in chosen]
            found |= zip(chosen, tokenized(self.tokenizer(task), contents, cut_left), strict=True)
        return [found[place] for place in range(len(texts))]

    def _begin(self, key: Hashable, texts: list[Tokens]) -> Callable[[], list[Any]]:
        return partial(self.computed, key, Ids.of([text.ids for text in texts]))


class SparseEmbedder(TaskModel[SparseEncoder]):
    """A sparse model that is served: a row is a SparseVector."""

    kind, option = "sparse model", "--sparse MODEL"

    def tokenizer(self, task: str | None) -> Tokenizer:
        """See `TaskModel`."""
        return self.model.tokenizer_for(task)

    def computed(self, task: Any, ids: Ids) -> list[Any]:
        """See `TaskModel`."""
        return list(self.model.computed(ids, task, self.budget, most=self.model.max_active_dims))


class TokenEmbedder(TaskModel[MultiVectorEncoder]):
    """A model of late interaction that is served: a row is an array [L, D]."""

    kind, option = "late-interaction model", "--multi-vector MODEL"

    def tokenizer(self, task: str | None) -> Tokenizer:
        """See `TaskModel`."""
        return self.model.tokenizer.for_task(task)

    def computed(self, task: Any, ids: Ids) -> list[Any]:
        """See `TaskModel`."""
        return list(self.model.computed(ids, task, self.budget))

    def ranking(self, contents: Sequence[str], purpose: str, *, strict: bool) -> Job[Text]:
        """What `scores` takes: a query, or documents."""
        return self.job(contents, purpose, strict=strict)

    def scores(self, query: Job[Text], documents: Job[Text]) -> tuple[Float32, Float32]:
        """MaxSim of a query and documents [n], of jobs that are done; and its share of each of the query's vectors."""
        found = max_sim(self.model.engine, MultiVectors.of(query.rows), MultiVectors.of(documents.rows))[0]
        return found, found / max(len(query.rows[0]), 1)


class Wanted(NamedTuple):
    """Of what kinds a text's results are beside its vector; jobs of the same share batches."""

    sparse: bool
    multi_vector: bool


class M3Embedder(Embedder):
    """BGE-M3 that is served: an embedding model, whose texts have weights of tokens and a vector a token as well.

    What one job asks for is computed in one forward pass. Attributes as `Embedder`'s, and:
        m3: what computes the other two kinds; `model` is the same weights, for vectors alone.
    """

    kind, option = "BGE-M3 model", "--bge-m3 MODEL"

    def __init__(self, name: str, model: BGEM3, batch_tokens: int | None, waiting_tokens: int) -> None:
        """See `Embedder`."""
        pooling = Pooling(("cls",))
        alone = replace(model.checkpoint, pooling=pooling, modules=(), normalize=True, dimension=model.dimension)
        texts = EmbeddingModel(alone, model.tokenizer, model.engine, (), name=model.name)
        texts.prompts, texts.default_prompt_name = model.prompts, model.default_prompt_name
        super().__init__(name, texts, batch_tokens, waiting_tokens)
        self.m3 = model

    def job(
        self,
        contents: Sequence[str | Sequence[int]],
        *,
        prompt: str = "",
        cut_left: bool | None = None,
        task: str | None = None,
        lora: str | None = None,
        strict: bool = False,
        tokens: bool = False,
        sparse: bool = False,
    ) -> Job[Text]:
        """See `Embedder.job`; with `tokens` or `sparse` a row is an `M3Text`."""
        if not tokens and not sparse:
            return super().job(contents, prompt=prompt, cut_left=cut_left, task=task, strict=strict)
        texts = [Text(content, prompt, cut_left, task) for content in contents]
        limit = self.model.tokenizer.for_task(task).max_length if strict else None
        return Job(texts, key=Wanted(sparse, tokens), limit=limit)

    @property
    def token_width(self) -> int:
        """See `Embedder`."""
        return self.m3.token_dimension

    def token_vectors(self, job: Job[Text]) -> list[Float32]:
        """Of each text of a job of tokens that is done, an array [L, C]."""
        return [row.multi_vector for row in job.rows]

    def weights(self, job: Job[Text]) -> list[SparseVector]:
        """Of each text of a sparse job that is done, the weights of its tokens."""
        return [row.sparse for row in job.rows]

    def ranking(self, contents: Sequence[str], purpose: str, *, strict: bool) -> Job[Text]:
        """What `scores` takes: a query, or documents."""
        prompt = self.prompt(None, purpose)
        return self.job(contents, prompt=prompt, task=purpose, strict=strict, tokens=True, sparse=True)

    def scores(self, query: Job[Text], documents: Job[Text]) -> tuple[Float32, Float32]:
        """The similarity of a query and documents [n], of jobs that are done; twice, for it is within -1..1 already.

        It is of all three kinds, by M3_WEIGHTS: they come of one forward pass, and rank better together.
        """
        found = self.m3.similarity(self._gathered(query), self._gathered(documents), M3_WEIGHTS)[0]
        return found, found

    def _gathered(self, job: Job[Text]) -> M3Vectors:
        sparse = SparseVectors.of(self.weights(job), self.m3.vocabulary)
        return M3Vectors(self._whole(job), sparse, MultiVectors.of(self.token_vectors(job)))

    def _whole(self, job: Job[Text]) -> Float32:
        return np.stack([row.dense for row in job.rows]) if isinstance(job.key, Wanted) else super()._whole(job)

    def _begin(self, key: Hashable, texts: list[Tokens]) -> Callable[[], Any]:
        if not isinstance(key, Wanted):
            return super()._begin(key, texts)
        ids = Ids.of([text.ids for text in texts])
        return partial(self.m3.computed, ids, self.budget, sparse=key.sparse, multi_vector=key.multi_vector)
