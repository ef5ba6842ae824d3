"""CrossEncoder: a query and a document read together, to a score of their relevance."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels.choice.switch import kernels_wanted, use_kernels
from custom_kernels.transfer import to_device
from mlx_embed import weights
from mlx_embed.architectures import architecture
from mlx_embed.batching import Batch, pack
from mlx_embed.config import Checkpoint, read_json
from mlx_embed.device import worker
from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.model import EmbeddingModel, progress
from mlx_embed.modules import ACTIVATIONS, Module
from mlx_embed.pooling import POOLING
from mlx_embed.tokenizer import PairTokenizer


class CrossEncoder:
    """A reranker: pairs of texts in, scores out. It may be used from any thread.

    Attributes:
        model: the encoder, loaded as an embedding model is.
        num_labels: scores a pair.
        activation: what logits go through, by torch's name; "Identity" leaves them as they are.
    """

    def __init__(
        self, model: EmbeddingModel, head: Sequence[tuple[Module, Mapping[str, Any]]], num_labels: int
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        config = model.checkpoint.config
        encoder = architecture(config).Config.from_dict(config)
        self.model = model
        self.num_labels = num_labels
        self.activation = _activation(model.checkpoint, num_labels)
        self._head = head
        self._pool = POOLING[_pooling(config)]
        self._typed = model.checkpoint.token_types and getattr(encoder, "type_vocab_size", 0) > 1
        self._tokenizer = PairTokenizer(model.checkpoint, model.max_seq_length)
        self._forward = mx.compile(self._logits) if model.compiled else self._logits

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Any) -> "CrossEncoder":
        """Load a sequence-classification checkpoint; `options` are those of `EmbeddingModel.from_pretrained`.

        Raises:
            CheckpointError: a checkpoint without a classifier; and what `EmbeddingModel.from_pretrained` raises.
        """
        model = EmbeddingModel.from_pretrained(name_or_path, **options)

        def load() -> list[tuple[Module, dict[str, Any]]]:
            with mx.stream(model.device):
                head = weights.load_head(model.checkpoint)
                if not model.native:
                    return head
                return [(layer, {name: np.array(x) for name, x in arrays.items()}) for layer, arrays in head]

        head = worker.run(load)
        num_labels = head[-1][0].out_features  # type: ignore[union-attr]
        names = model.checkpoint.config.get("id2label")
        if isinstance(names, dict) and len(names) != num_labels:
            raise CheckpointError(f"config.json names {len(names)} labels, but the classifier has {num_labels}.")
        return cls(model, head, num_labels)

    def __repr__(self) -> str:
        return f"CrossEncoder({self.model.name!r}, num_labels={self.num_labels}, activation={self.activation!r})"

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
        budget = self.model.budget(batch_tokens)
        listed: list[Any] = list(pairs)
        single = len(listed) == 2 and all(isinstance(text, str) for text in listed)
        checked = [_pair(index, pair) for index, pair in enumerate([listed] if single else listed)]
        logits = np.zeros((len(checked), self.num_labels), dtype=np.float32)
        if checked:
            with progress(show_progress_bar, len(checked)) as advance:
                self._run(checked, budget, logits, advance)
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

    def _run(self, pairs: list[tuple[str, str]], budget: int, logits: npt.NDArray[np.float32], advance: Any) -> None:
        ids, types = self._tokenizer(pairs)
        stop = threading.Event()

        def forward(batch: Batch) -> Any:
            token_types = np.zeros_like(batch.input_ids)
            if self._typed:
                given = np.concatenate([np.asarray(types[i], dtype=np.int32) for i in batch.texts])
                token_types[: len(given)] = given
            arrays: Sequence[Any] = (batch.input_ids, batch.cu_seqlens, token_types)
            with use_kernels(kernels_wanted() if self.model.kernels is None else self.model.kernels):
                if not self.model.native:
                    arrays = to_device(*arrays)
                return self._forward(arrays[0], arrays[1], arrays[2], batch.max_seqlen)

        def read(batch: Batch, out: Any) -> None:
            logits[batch.texts] = out[: len(batch.texts)]
            advance(len(batch.texts))

        batches = pack(ids, budget, bucketed=self.model.compiled, padded=not self.model.native)
        try:
            self.model.start(partial(self.model.run, batches, forward, read, stop))()
        except BaseException:
            stop.set()
            raise

    def _logits(self, input_ids: Any, cu_seqlens: Any, token_types: Any, max_seqlen: int) -> Any:
        """Ids to logits [n, labels]: encoder, pooling, head."""
        types = (token_types,) if self._typed else ()
        hidden = self.model.encoder(input_ids, cu_seqlens, max_seqlen, *types)
        if not self.model.native:
            hidden = hidden.astype(mx.float32)
        x = self._pool(hidden, cu_seqlens, max_seqlen, 0)
        for layer, parameters in self._head:
            x = layer(x, parameters)
        return x


def _pair(index: int, pair: Any) -> tuple[str, str]:
    if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
        return (pair[0], pair[1])
    raise TypeError(f"pairs[{index}] is {pair!r:.80}, where a (query, document) pair of strings is needed.")


def _pooling(config: Mapping[str, Any]) -> str:
    """What the head reads: the first token, unless a ModernBERT says that it is the mean."""
    mode = config.get("classifier_pooling", "cls") if config.get("model_type") == "modernbert" else "cls"
    if mode not in ("cls", "mean"):
        raise UnsupportedModelError(f'config.json has "classifier_pooling": {mode!r}; mlx_embed has "cls" and "mean".')
    return str(mode)


def _activation(checkpoint: Checkpoint, num_labels: int) -> str:
    """sentence-transformers' note of it, where its versions from 6, from 4 and before keep it; else by the labels."""
    path = checkpoint.folder / "config_sentence_transformers.json"
    note = checkpoint.config.get("sentence_transformers")
    named = (
        (read_json(path).get("activation_fn") if path.is_file() else None)
        or (note.get("activation_fn") if isinstance(note, dict) else None)
        or checkpoint.config.get("sbert_ce_default_activation_function")
    )
    if named is None:
        return "Sigmoid" if num_labels == 1 else "Identity"
    package, _, name = str(named).rpartition(".")
    if package.split(".")[0] != "torch" or name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"The checkpoint has the activation {named!r}; mlx_embed has torch's {', '.join(ACTIVATIONS)}."
        )
    return name
