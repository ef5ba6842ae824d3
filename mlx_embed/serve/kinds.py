"""Served models whose results are no single vector a text: weights of tokens, or a vector a token."""

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from mlx_embed.ids import Ids
from mlx_embed.late_interaction import max_sim
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.models import INPUT_TYPES, WARM_SECONDS, Text, input_task
from mlx_embed.serve.queue import Job, ModelQueue, Tokens
from mlx_embed.sparse_encoder import SparseEncoder
from mlx_embed.tokenizer import Tokenizer

Model = TypeVar("Model", SparseEncoder, MultiVectorEncoder)


class TaskModel(Generic[Model]):
    """A model that has queries and documents apart; attributes as `Embedder`'s."""

    kind: ClassVar[str]

    def __init__(self, name: str, model: Model, batch_tokens: int | None, waiting_tokens: int) -> None:
        """Take a loaded model; `batch_tokens` None is what suits the device."""
        self.id = name
        self.model: Model = model
        self.created = int(time.time())
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
        if prompt_name is not None and prompt_name not in model.prompts:
            raise Refusal(
                "invalid",
                f"prompt_name {prompt_name!r} is not among the model's: {sorted(model.prompts) or 'none'}.",
                param="prompt_name",
            )
        names = (prompt_name,) if prompt_name else INPUT_TYPES.get(task or "", (model.default_prompt_name,))
        prompt = next((model.prompts[name] or "" for name in names if name in model.prompts), "")
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
            tokenizer = self.tokenizer(task)
            encoded = tokenizer.encode([texts[i].prompt + str(texts[i].content) for i in chosen], cuts=not cut_left)
            tokens = tokenizer.tokens(encoded, cut_left=cut_left)
            for place, ids, count in zip(chosen, tokens.ids, tokens.counts.tolist(), strict=True):
                found[place] = Tokens(ids, None, count)
        return [found[place] for place in range(len(texts))]

    def _begin(self, key: Hashable, texts: list[Tokens]) -> Callable[[], list[Any]]:
        return partial(self.computed, key, Ids.of([text.ids for text in texts]))


class SparseEmbedder(TaskModel[SparseEncoder]):
    """A sparse model that is served: a row is a SparseVector."""

    kind = "sparse model"

    def tokenizer(self, task: str | None) -> Tokenizer:
        """See `TaskModel`."""
        return self.model.tokenizer_for(task)

    def computed(self, task: Any, ids: Ids) -> list[Any]:
        """See `TaskModel`."""
        return list(self.model.computed(ids, task, self.budget, most=self.model.max_active_dims))


class TokenEmbedder(TaskModel[MultiVectorEncoder]):
    """A model of late interaction that is served: a row is an array [L, D]."""

    kind = "late-interaction model"

    def tokenizer(self, task: str | None) -> Tokenizer:
        """See `TaskModel`."""
        return self.model.tokenizer.for_task(task)

    def computed(self, task: Any, ids: Ids) -> list[Any]:
        """See `TaskModel`."""
        return list(self.model.computed(ids, task, self.budget))

    def scores(self, query: Job[Text], documents: Job[Text]) -> tuple[npt.NDArray[np.float32], int]:
        """MaxSim of a query and documents [n], of jobs that are done, and the number of the query's vectors."""
        found = max_sim(self.model.engine, MultiVectors.of(query.rows), MultiVectors.of(documents.rows))[0]
        return found, max(len(query.rows[0]), 1)
