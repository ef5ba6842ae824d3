"""What every shape of request comes down to: texts to vectors, pairs to scores, each waited for within its limits."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mlx_embed.engine.device import is_cpu
from mlx_embed.scores import sigmoid
from mlx_embed.serve.access import Access
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.kinds import M3Embedder, TokenEmbedder
from mlx_embed.serve.limits import ClientGone, Limits, Places, Receive
from mlx_embed.serve.metrics import Metrics
from mlx_embed.serve.models import Embedder, Float32, Models, Served
from mlx_embed.serve.queue import (
    Job,
    QueueClosedError,
    QueueFullError,
    TextError,
    TextTooLongError,
    TooManyTokensError,
)
from mlx_embed.serve.reranker import Reranker

# A client that is told to come again later than this gives up.
LONGEST_RETRY = 60


@dataclass
class Call:
    """One request, and what it cost.

    Attributes:
        receive: tells when the client goes away.
        began: when it came.
        jobs: what was computed for it.
        device: where, "cpu" or "gpu".
        unread: whether there is a body that has not been read whole.
    """

    receive: Receive
    began: float = field(default_factory=time.monotonic)
    jobs: list[Job[Any]] = field(default_factory=list)
    device: str = "cpu"
    unread: bool = False

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Over:
    """The end of a wait, whatever ends it; of an event loop.

    Attributes:
        future: done at the first call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()

    def __call__(self, *_: Any) -> None:
        """End it; again is nothing."""
        if not self.future.done():
            self.future.set_result(None)


class Mailbox:
    """How other threads end waits of an event loop: it is woken once for all that end at about the same time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[Over] = deque()
        self._called = False

    def put(self, over: Over, *_: Any) -> None:
        """End a wait, from any thread."""
        self._ended.append(over)
        if not self._called:
            self._called = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._called = False  # first, so that none is left that comes while these are taken out
        while self._ended:
            self._ended.popleft()()


@dataclass(frozen=True)
class Ranked:
    """Documents and their relevance to a query.

    Attributes:
        raw: the model's scores [n]: logits, or MaxSim.
        relevance: within 0..1.
        order: the documents' places, the best first.
    """

    raw: Float32
    relevance: Float32
    order: list[int]


@dataclass
class Service:
    """A server's models, limits and counts.

    Attributes:
        accept_token_ids: whether token ids are taken as the model's own.
        stopping: whether new requests are refused.
    """

    models: Models
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    accept_token_ids: bool = False
    stopping: bool = False

    def __post_init__(self) -> None:
        self.places = Places(self.limits)
        self.metrics = Metrics(self.models, self.places)
        self.mailbox: Mailbox | None = None

    def contents(self, given: Any, *, name: str = "input") -> list[Any]:
        """Texts, or token ids, of a string, strings, ids, or lists of ids.

        Raises:
            Refusal: none, too many, an empty one, ids where they are not taken, or of different kinds.
        """
        listed = [given] if isinstance(given, str) else given
        if listed and all(isinstance(item, int) for item in listed):
            listed = [listed]
        if not listed:
            raise Refusal("empty", f"{name} is empty: it needs one text at least.", param=name)
        if len(listed) > self.limits.inputs:
            raise Refusal(
                "invalid",
                f"{name} has {len(listed)} texts, and this server takes {self.limits.inputs} at a time: the first that "
                f"is too many is {name}[{self.limits.inputs}].",
                param=name,
            )
        for index, item in enumerate(listed):
            where = name if given is item else f"{name}[{index}]"
            if isinstance(item, int):
                raise Refusal("invalid", f"{where} is a token id among texts.", param=name)
            if not isinstance(item, str):
                self._check_ids(name, where, item)
            if not item:
                raise Refusal("empty", f"{where} is empty.", param=name)
        return listed

    async def embed(
        self,
        call: Call,
        model: Embedder,
        contents: Sequence[Any],
        *,
        field: str | Sequence[str],
        width: int | None = None,
        **options: Any,
    ) -> Job[Any]:
        """Texts, as a job that is done; `field` and `width` are as of `done`, and `options` those of `Embedder.job`."""
        for index, item in enumerate(contents):
            if not isinstance(item, str) and max(item) >= model.model.checkpoint.encoder_config.vocab_size:
                where = _where(field, index)
                raise Refusal("invalid", f"{where} has a token id that the model does not have.", param=_top(where))
        return await self.done(call, model, model.job(contents, **options), field, width=width)

    async def score(
        self,
        call: Call,
        model: Reranker,
        pairs: Sequence[tuple[str, str]],
        *,
        field: str | Sequence[str],
        **options: Any,
    ) -> tuple[Job[Any], Float32]:
        """Pairs, as a job that is done, and its logits [n, labels]; `field` is as of `done`."""
        job = await self.done(call, model, model.job(pairs, **options), field)
        return job, model.logits(job)

    async def rank(
        self,
        call: Call,
        model: Reranker | TokenEmbedder | M3Embedder,
        query: str,
        documents: Sequence[str],
        *,
        field: str = "documents",
        most: int | None = None,
        strict: bool = False,
    ) -> "Ranked":
        """Documents, of a request's `field`, by their relevance to a query.

        A model of late interaction scores by MaxSim, whose share of a query's vector is the relevance; BGE-M3 by all
        that it computes, see `M3Embedder.scores`.

        Raises:
            Refusal: nothing to rank, too much of it, a model of several labels, or `most` of a model that scores no
                pairs.
        """
        if isinstance(model, Reranker) and model.model.num_labels != 1:
            raise Refusal("invalid", f"{model.id} has {model.model.num_labels} labels, and cannot rank.", param="model")
        if not query:
            raise Refusal("empty", "query is empty.", param="query")
        if not documents:
            raise Refusal("empty", f"{field} is empty: it needs one text at least.", param=field)
        if len(documents) > self.limits.inputs:
            raise Refusal(
                "invalid",
                f"{field} has {len(documents)} texts, and this server takes {self.limits.inputs} at a time.",
                param=field,
            )
        if isinstance(model, Reranker):
            pairs = [(query, text) for text in documents]
            _, logits = await self.score(call, model, pairs, field=field, most=most, strict=strict)
            raw, scores = logits[:, 0], relevance(logits[:, 0])
        elif most is not None:
            raise Refusal("invalid", f"{model.id} cuts documents at its own length.", param="max_tokens_per_doc")
        else:
            asked = await self.done(call, model, model.ranking([query], "query", strict=strict), ["query"])
            found = await self.done(call, model, model.ranking(documents, "document", strict=strict), field)
            raw, shares = model.scores(asked, found)
            scores = np.clip(shares, 0, 1).astype(np.float32)
        return Ranked(raw, scores, np.argsort(-raw, kind="stable").tolist())

    def _check_ids(self, name: str, where: str, ids: Sequence[Any]) -> None:
        if not self.accept_token_ids:
            raise Refusal(
                "invalid",
                f"{where} is made of token ids, which are another vocabulary's than this model's: send texts. "
                "LangChain's OpenAIEmbeddings does so with check_embedding_ctx_length=False. A server started with "
                "--accept-token-ids takes ids of the model's own vocabulary.",
                param=name,
                code="token_ids_not_accepted",
            )
        if min(ids, default=0) < 0:
            raise Refusal("invalid", f"{where} has a negative token id.", param=name)

    async def done(
        self, call: Call, model: Served, job: Job[Any], field: str | Sequence[str], *, width: int | None = None
    ) -> Job[Any]:
        """Wait for a job, of texts that a request has in `field`, or each in one of these.

        `width` is that of vectors where each token is answered with one.

        Raises:
            Refusal: an overloaded server, a text that cannot be computed, too large an answer, or too long a wait.
            ClientGone: nobody waits for it any more.
        """
        call.jobs.append(job)
        job.most = None if width is None else max(self.limits.numbers // width, model.queue.longest)
        call.device = "cpu" if is_cpu(model.model.engine.device) else "gpu"
        try:
            model.queue.submit(job)
        except QueueFullError as error:
            seconds = min(max(round(model.queue.seconds_to_wait()), 1), LONGEST_RETRY)
            raise Refusal("overloaded", str(error), headers={"retry-after": str(seconds)}) from error
        except QueueClosedError as error:
            raise stopping() from error
        loop = asyncio.get_running_loop()
        over = Over(loop)
        if self.mailbox is None:
            self.mailbox = Mailbox(loop)
        job.future.add_done_callback(partial(self.mailbox.put, over))
        gone = loop.create_task(call.gone())
        gone.add_done_callback(over)
        timer = loop.call_later(max(self.limits.seconds - (time.monotonic() - call.began), 0.0), over)
        try:
            await over.future
            if job.future.done():
                return job.future.result()
            if gone.done():
                raise ClientGone
            raise Refusal(
                "timeout",
                f"The request was not done within {self.limits.seconds:g} seconds.",
                headers={"retry-after": str(LONGEST_RETRY)},
            )
        except TextTooLongError as error:
            where = _where(field, error.index)
            raise Refusal("invalid", f"{where} {error}.", param=_top(where), code="too_long") from error
        except TextError as error:
            where = _where(field, error.index)
            raise Refusal("uncomputable", f"{where} {error}.", param=_top(where)) from error
        except TooManyTokensError as error:
            raise Refusal(
                "too_large",
                f"The texts have {error} together, and this server answers no more with a vector of {width} numbers "
                "each: send fewer texts at a time.",
                param=_top(_where(field, 0)),
            ) from error
        except QueueClosedError as error:
            raise stopping() from error
        finally:
            timer.cancel()
            gone.cancel()
            job.future.cancel()  # where it is not done


def stopping() -> Refusal:
    """The server is told to stop, and takes no new work."""
    return Refusal("stopping", "The server is stopping.", headers={"retry-after": "5", "connection": "close"})


def relevance(logits: Float32) -> Float32:
    """Scores within 0..1."""
    scores: Float32 = sigmoid(logits.astype(np.float64)).astype(np.float32)
    return scores


def _where(field: str | Sequence[str], index: int) -> str:
    """The place in a request of one of its texts."""
    return f"{field}[{index}]" if isinstance(field, str) else field[index]


def _top(where: str) -> str:
    """The field of the request that a place is in."""
    return where.partition("[")[0].partition(".")[0]
