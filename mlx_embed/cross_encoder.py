"""CrossEncoder: a query and a document read together, to a score of their relevance."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.checkpoint import Checkpoint, heads
from mlx_embed.checkpoint.modules import ACTIVATIONS, Module
from mlx_embed.engine import Engine, Head
from mlx_embed.engine.contract import Parameters, Run
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError
from mlx_embed.loading import open_model
from mlx_embed.options import LoadOptions
from mlx_embed.pooling import POOLING
from mlx_embed.texts import begun_ahead, progress, windows
from mlx_embed.tokenizer.pairs import PairTokenizer

if TYPE_CHECKING:
    from mlx_embed.options import Unpack


@dataclass(frozen=True)
class ClassifierHead:
    """Hidden states to logits: one vector a pair, and the classifier's layers.

    Attributes:
        pooling: a key of POOLING, what the layers read.
        layers: the last of which gives the labels.
    """

    pooling: str
    layers: tuple[Module, ...]

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [n, labels]."""
        x = POOLING[self.pooling](ops.float32(hidden), cu_seqlens, max_seqlen, 0)
        for layer, own in zip(self.layers, parameters, strict=True):
            x = layer(x, own)
        return x


class CrossEncoder:
    """A reranker: pairs of texts in, scores out. It may be used from any thread.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of pairs.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        num_labels: scores a pair.
        activation: what logits go through, by torch's name; "Identity" leaves them as they are.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: PairTokenizer,
        engine: Engine,
        head: Sequence[tuple[Module, Mapping[str, mx.array]]],
        *,
        name: str = "",
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.name = name or str(checkpoint.folder)
        self.num_labels: int = head[-1][0].out_features  # type: ignore[union-attr]
        self.activation = heads.activation(checkpoint, self.num_labels)
        function = ClassifierHead(heads.pooling(checkpoint), tuple(layer for layer, _ in head))
        self._head = engine.head(function, [parameters for _, parameters in head])
        self._typed = checkpoint.token_types and checkpoint.encoder_config.type_vocab_size > 1

    @property
    def head(self) -> Head:
        """What `predict` runs, ready for the engine: it gives logits, a row a pair."""
        return self._head

    @property
    def takes_types(self) -> bool:
        """Whether the encoder is told which of a pair's texts a token is of."""
        return self._typed

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: "Unpack[LoadOptions]") -> "CrossEncoder":
        """Load a sequence-classification checkpoint; `options` are those of `EmbeddingModel.from_pretrained`.

        Raises:
            CheckpointError: a checkpoint without a classifier; and what `EmbeddingModel.from_pretrained` raises.
        """
        opened = open_model("from_pretrained", name_or_path, options)
        checkpoint = opened.checkpoint
        tokenizer = PairTokenizer(checkpoint, opened.max_seq_length)
        engine = opened.load()
        head = worker.run(partial(heads.load_head, checkpoint), opened.device)
        model = cls(checkpoint, tokenizer, engine, head, name=opened.name)
        names = checkpoint.config.get("id2label")
        if isinstance(names, dict) and len(names) != model.num_labels:
            raise CheckpointError(f"config.json names {len(names)} labels, but the classifier has {model.num_labels}.")
        return model

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, num_labels={self.num_labels}, activation={self.activation!r})"

    def predict(
        self,
        pairs: Iterable[Sequence[str]] | Sequence[str],
        *,
        activation: str | None = None,
        apply_softmax: bool = False,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> npt.NDArray[np.float32]:
        """Score pairs of a query and a document, batched by length, in the order given.

        Args:
            pairs: (query, document) pairs, or a single one.
            activation: torch's name of what logits go through instead, "Sigmoid" or "Identity" mostly.
            apply_softmax: make the scores of a pair's labels add up to 1, where there are several.
            batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes scores.
            show_progress_bar: show a bar of pairs done. None shows it where mlx_embed logs at INFO.

        Returns:
            numpy float32: [N], [N, labels] of a model with several labels; without the N for a single pair.

        Raises:
            TypeError: something that is no pair of strings; its index is named.
            ValueError: an unknown activation, or an option out of range.
        """
        name = self.activation if activation is None else activation
        if name not in ACTIVATIONS:
            raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}.")
        listed: list[Any] = list(pairs)
        single = len(listed) == 2 and all(isinstance(text, str) for text in listed)
        checked = [_pair(index, pair) for index, pair in enumerate([listed] if single else listed)]
        logits = self._logits(checked, batch_tokens, show_progress_bar)
        scores = ACTIVATIONS[name](logits)
        if apply_softmax and self.num_labels > 1:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
        if self.num_labels == 1:
            scores = scores[:, 0]
        return scores[0] if single else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        *,
        return_documents: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """The documents by their score for a query, best first: {"corpus_id": index, "score": float}.

        `top_k` keeps so many, `return_documents` adds "text"; `options` are those of `predict`.

        Raises:
            ValueError: a model of several labels, which do not rank; a top_k below 1.
            TypeError: a query or document that is no string.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank needs a model of one label, this has {self.num_labels}; use predict.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k {top_k} is not a positive number of documents.")
        scores = self.predict([(query, document) for document in documents], **options)
        order = np.argsort(-scores, kind="stable")[:top_k]
        ranked: list[dict[str, Any]] = [{"corpus_id": int(i), "score": float(scores[i])} for i in order]
        if return_documents:
            for entry in ranked:
                entry["text"] = documents[entry["corpus_id"]]
        return ranked

    def _logits(
        self, pairs: Sequence[tuple[str, str]], batch_tokens: int | None, show: bool | None
    ) -> npt.NDArray[np.float32]:
        """[N, labels]; one window of pairs is tokenized while the one before is computed."""
        budget = self.engine.budget(batch_tokens)
        logits = np.empty((len(pairs), self.num_labels), dtype=np.float32)

        def begun() -> Iterator[Run]:
            for window in windows(pairs, lambda pair: len(pair[0]) + len(pair[1])):
                ids, types = self.tokenizer(window)
                batches = self.engine.batches(ids, budget, token_types=types if self._typed else None)
                yield self.engine.run(batches, self._head)

        done = 0
        runs = begun_ahead(begun(), self.engine.ahead)
        with progress(show, len(pairs), "pair") as advance, closing(runs):
            for run in runs:
                first = done
                for batch, rows in run:
                    logits[first + batch.texts] = rows
                    done += len(batch.texts)
                    advance(len(batch.texts))
        return logits


def _pair(index: int, pair: Any) -> tuple[str, str]:
    if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
        return (pair[0], pair[1])
    raise TypeError(f"pairs[{index}] is {pair!r:.80}, where a (query, document) pair of strings is needed.")
