"""The models that are served: what is asked of them, as jobs of their queues, and what came out, as numbers."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.checkpoint.tasks import PURPOSES, for_purpose, known
from mlx_embed.embedding_model import TASKS, EmbeddingModel, Task
from mlx_embed.engine.contract import Parameters
from mlx_embed.options import first_prompt
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.queue import Job, ModelQueue, Tokens
from mlx_embed.tokenizer import Tokenizer

Float32: TypeAlias = npt.NDArray[np.float32]

WARM_SECONDS = 600
# Characters of texts that are tokenized together: of one word a character, the tokenizer takes 200 bytes for each.
TOGETHER = 2**19


@dataclass(frozen=True)
class Text:
    """A text to embed.

    Attributes:
        content: a string, or token ids of the model's own vocabulary, which are taken as they are.
        prompt: what to put before it.
        cut_left: whether it is cut at its beginning; None is what the checkpoint says.
        task: "query" or "document" where it is said to be that, for which the checkpoint may have another length.
    """

    content: str | Sequence[int]
    prompt: str = ""
    cut_left: bool | None = None
    task: str | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.content)


@dataclass(frozen=True)
class TokenHead:
    """Hidden states as they are: a vector a token."""

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [T, H] float32."""
        return ops.float32(hidden)


def state_of(model: Any) -> str:
    """By which a client sees that a name is another model's than before: of its files when it was loaded, and dtype."""
    return f"{model.checkpoint.fingerprint} {model.engine.dtype}"


class Embedder:
    """An embedding model that is served.

    Attributes:
        id: the name that clients use.
        model: what computes.
        queue: its texts.
        created: seconds since 1970 when it was loaded.
        state: see `state_of`.
    """

    kind, option = "embedding model", "MODEL"

    def __init__(self, name: str, model: EmbeddingModel, batch_tokens: int | None, waiting_tokens: int) -> None:
        """Take a loaded model; `batch_tokens` None is what suits the device."""
        self.id = name
        self.model = model
        self.created = int(time.time())
        self.state = state_of(model)
        self.budget = model.engine.budget(batch_tokens)
        self.queue: ModelQueue[Text] = ModelQueue(
            name,
            self._tokenize,
            self._begin,
            ahead=model.engine.ahead,
            batch_tokens=self.budget,
            longest=model.max_seq_length,
            waiting_tokens=waiting_tokens,
        )
        self._token_heads = {model.checkpoint.task: model.engine.head(TokenHead())}

    @property
    def name(self) -> str:
        """As the hub or the caller knows it."""
        return self.model.name

    def warm(self) -> None:
        """Compute something, so that the first request does not wait for what is made once."""
        job = self.job(["Is it warm?"])
        self.queue.submit(job)
        job.future.result(WARM_SECONDS)

    def prompt(self, name: str | None, input_type: str | None) -> str:
        """The text that goes before each text: the prompt of a name, of a purpose, or the checkpoint's default.

        Raises:
            Refusal: a prompt that the model does not have, or an unknown purpose.
        """
        prompts = self.model.prompts
        if name is not None:
            return named_prompt(prompts, name)
        purpose = input_task(input_type)
        if purpose is not None:
            return first_prompt(prompts, TASKS[purpose])
        default = self.model.default_prompt_name
        return "" if default is None else prompts[default]

    def asked(
        self, prompt_name: str | None = None, input_type: str | None = None, task: str | None = None
    ) -> dict[str, Any]:
        """How texts are embedded that come with a prompt's name, a purpose, or a LoRA's task: options of `job`.

        A task brings its prompt, as in Jina's API, whose names of tasks mean queries and documents where the model has
        one LoRA for both. A purpose brings its LoRA, as in `encode_query`.

        Raises:
            Refusal: a prompt or a task that the model does not have, an unknown purpose, or no task of a model that
                needs one.
        """
        purpose, tasks, wanted = input_task(input_type), self.model.checkpoint.tasks, task
        if task is not None and (meant := next((p for p in TASKS if known([PURPOSES[p]], task)), None)):
            purpose = purpose or meant
            wanted = for_purpose(tasks, meant) or task
        try:
            lora = self.model.lora_task(wanted, purpose)
        except ValueError as error:
            raise Refusal("invalid", str(error), param="task") from error
        if prompt_name is None and purpose is None and task is not None:
            prompt_name = known(list(self.model.prompts), task)
        return {"prompt": self.prompt(prompt_name, purpose), "task": purpose, "lora": lora}

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
    ) -> Job[Text]:
        """Texts to embed. `strict` refuses those that are too long; `tokens` asks for a vector a token.

        `lora` is the task of a LoRA; None is that which the model was loaded with, or none.
        """
        pooled = self.model.checkpoint.pooling.include_prompt or not prompt
        skip = 0 if pooled or tokens else self.model.tokenizer.pooled_from(prompt)
        key = None if tokens else skip, lora or self.model.checkpoint.task
        texts = [Text(content, prompt, cut_left, task) for content in contents]
        return Job(texts, key=key, limit=self.model.tokenizer.for_task(task).max_length if strict else None)

    @property
    def token_width(self) -> int:
        """Numbers of a vector of `token_vectors`."""
        return self.model.checkpoint.encoder_config.hidden_size

    def token_vectors(self, job: Job[Text]) -> list[Float32]:
        """Of each text of a job of tokens that is done, an array [L, H]: the encoder's hidden states."""
        return job.rows

    def dimension(self, wanted: int | None, name: str = "dimensions") -> int:
        """The length of vectors, where a client wants them cut; `name` is the request's field.

        Raises:
            Refusal: more than the model has, or less than one.
        """
        whole = self.model.checkpoint.dimension
        if wanted is None:
            return self.model.dimension
        if not 1 <= wanted <= whole:
            raise Refusal("invalid", f"{name} {wanted} is not within 1..{whole}, the model's.", param=name)
        return wanted

    def vectors(self, job: Job[Text], dim: int, unit: bool | None = None) -> Float32:
        """[n, dim] of a job that is done; `unit` scales them to length 1, None as the checkpoint says."""
        vectors = self._whole(job)[:, :dim]
        unit = self.model.checkpoint.normalize if unit is None else unit
        return np.ascontiguousarray(ops.normalize(vectors) if unit else vectors)

    def _whole(self, job: Job[Text]) -> Float32:
        """The texts' vectors [n, D] of a job that is done."""
        return np.stack(job.rows)

    def cut(self, job: Job[Text]) -> list[int]:
        """Which texts of a job were cut."""
        longest = self.model.tokenizer.for_task(job.texts[0].task).max_length
        return [index for index, count in enumerate(job.counts) if count > longest]

    def _tokenize(self, texts: list[Text]) -> list[Tokens]:
        tokenizer = self.model.tokenizer
        found: dict[int, Tokens] = {}
        for index, text in enumerate(texts):
            if not isinstance(text.content, str):
                ids, own = text.content, tokenizer.for_task(text.task)
                most, from_left = own.max_length, own.cut_left if text.cut_left is None else text.cut_left
                found[index] = Tokens(ids[-most:] if from_left else ids[:most], None, len(ids))
        read = [index for index in range(len(texts)) if index not in found]
        for task, cut_left in {(texts[index].task, texts[index].cut_left) for index in read}:
            chosen = [index for index in read if (texts[index].task, texts[index].cut_left) == (task, cut_left)]
            contents = [texts[i].prompt + str(texts[i].content) for i in chosen]
            found |= zip(chosen, tokenized(tokenizer.for_task(task), contents, cut_left), strict=True)
        return [found[index] for index in range(len(texts))]

    def _begin(self, key: Hashable, texts: list[Tokens]) -> Callable[[], Float32 | list[Float32]]:
        ids = [text.ids for text in texts]
        skip, lora = cast(tuple[int | None, str | None], key)
        if skip is None:
            return partial(self._token_vectors, ids, lora)
        engine, head = self.model.of_task(lora)  # whose weights are read for the first request that names it
        return engine.begin(engine.batches(ids, self.budget), head(skip, self.model.checkpoint.dimension, False))

    def _token_vectors(self, ids: Sequence[Sequence[int]], lora: str | None) -> list[Float32]:
        engine, lengths = self.model.of_task(lora)[0], np.array([len(row) for row in ids])
        if lora not in self._token_heads:
            self._token_heads[lora] = engine.head(TokenHead())
        found: list[Any] = [None] * len(ids)
        with closing(engine.run(engine.batches(ids, self.budget), self._token_heads[lora], of_tokens=True)) as run:
            for batch, rows in run:
                parts = np.split(rows, np.cumsum(lengths[batch.texts])[:-1])
                for text, own in zip(batch.texts.tolist(), parts, strict=True):
                    found[text] = own.copy()
        return found


def tokenized(tokenizer: Tokenizer, contents: Sequence[str], cut_left: bool | None) -> Iterator[Tokens]:
    """The tokens of each text, some texts at a time; of one that is far too long only its beginning is read."""
    for part in together(contents):
        alone = len(part[0]) > TOGETHER
        encoded = tokenizer.encode(part, whole=not alone or bool(cut_left), cuts=not cut_left)
        tokens = tokenizer.tokens(encoded, cut_left=cut_left)
        for ids, count in zip(tokens.ids, tokens.counts.tolist(), strict=True):
            yield Tokens(ids, None, count, exact=encoded.whole)


def together(contents: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of no more than TOGETHER characters; a longer one has its own."""
    part: list[str] = []
    size = 0
    for text in contents:
        if part and size + len(text) > TOGETHER:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


class Served(Protocol):
    """What each kind of served model has.

    Attributes:
        id: the name that clients use.
        model: what computes.
        queue: its texts.
        created: seconds since 1970 when it was loaded.
        budget: tokens of a batch.
    """

    id: str
    model: Any
    queue: ModelQueue[Any]
    created: int
    budget: int

    @property
    def name(self) -> str:
        """As the hub or the caller knows it."""

    def warm(self) -> None:
        """Compute something, so that the first request does not wait for what is made once."""


class Models:
    """The models of a server, by the names that clients may use.

    Attributes:
        names: every name, in the order of the command line; there before the models are.
        loaded: the models, once all are loaded.
    """

    def __init__(self, embedders: Sequence[str], rerankers: Sequence[str], others: Sequence[str] = ()) -> None:
        """Take the models' names; ValueError where two are the same."""
        self.names = [*embedders, *rerankers, *others]
        self.loaded: dict[str, Served] = {}
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(
                f"Two models are called {', '.join(sorted(twice))}: tell them apart by --served-model-name."
            )

    def add(self, models: Sequence[Served]) -> None:
        """Serve them."""
        self.loaded = {model.id: model for model in models}

    def close(self) -> None:
        """Stop their queues."""
        for model in self.loaded.values():
            model.queue.close()

    def find(self, name: str | None, *kinds: type[Any]) -> Any:
        """The model of a name, of these kinds or of any: its own, or its repository's, or the last part of either.

        "default", where no model is called so, and no name are the first.

        Raises:
            Refusal: none of this name, or of this kind, or several; while they are still loading.
        """
        if not self.loaded:
            raise Refusal("loading", "The models are being loaded.", headers={"retry-after": "1"})
        served = [model for model in self.loaded.values() if not kinds or isinstance(model, kinds)]
        wanted = (name or "").removesuffix(":latest")
        for given in dict.fromkeys((name, wanted)):
            if given and (found := _called(given, served)):
                return found
        if served and wanted.lower() in ("", "default"):
            return served[0]
        there = [kind for kind in kinds if any(isinstance(model, kind) for model in served)] or kinds[:1]
        what = " and ".join(f"{kind.kind}s" for kind in there) or "models"
        here = ", ".join(model.id for model in served)
        how = f": start the server with `mlx-embed serve {kinds[0].option}`" if kinds else ""
        raise Refusal(
            "not_found",
            f"model {name or 'default'!r} not found: "
            + (f"the {what} served here are {here}." if served else f"no {what} are served here{how}."),
            param="model",
            code="model_not_found",
        )


def _called(wanted: str, served: Sequence[Served]) -> Served | None:
    """The model that a name means, the most exactly; Refusal where it is the end of several names."""
    folded = wanted.lower()
    ways: tuple[Callable[[Served], bool], ...] = (
        lambda model: model.id == wanted,
        lambda model: model.id.lower() == folded,
        lambda model: model.name.lower() == folded,
        lambda model: model.id.rpartition("/")[2].lower() == folded,
    )
    for means in ways:
        found = [model for model in served if means(model)]
        if len({model.model.checkpoint.folder for model in found}) > 1:
            several = " or ".join(model.id for model in found)
            raise Refusal("invalid", f"model {wanted!r} may be {several}: name one of them.", param="model")
        if found:
            return found[0]
    return None


def named_prompt(prompts: Mapping[str, str], name: str) -> str:
    """The prompt of a name; Refusal where the model has none of it."""
    if name not in prompts:
        raise Refusal(
            "invalid",
            f"prompt_name {name!r} is not among the model's: {sorted(prompts) or 'none'}.",
            param="prompt_name",
        )
    return prompts[name]


def task_of(input_type: str | None) -> Task | None:
    """The task, "query" or "document", that an `input_type` names; None for another."""
    task = "" if input_type is None else input_type.lower().removeprefix("search_")
    return next((known for known in TASKS if known == task), None)


def input_task(input_type: str | None) -> Task | None:
    """The task that an `input_type` names; None for none.

    Raises:
        Refusal: another.
    """
    task = task_of(input_type)
    if task is None and input_type is not None:
        raise Refusal("invalid", f'input_type {input_type!r} is not "query" or "document".', param="input_type")
    return task
