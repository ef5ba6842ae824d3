"""CrossEncoder: a query and a document read together, to a score of their relevance."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.arguments import positive_number, require_string, type_name
from mlx_embed.checkpoint import Checkpoint, heads
from mlx_embed.checkpoint.modules import Module
from mlx_embed.engine import Engine, Head
from mlx_embed.engine.contract import Gathering, Parameters
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError
from mlx_embed.ids import Ids
from mlx_embed.loading import Source, checked_length, open_model, pickled, remember
from mlx_embed.migration import FromSentenceTransformers
from mlx_embed.options import (
    MISSING,
    PREDICT,
    LoadOptions,
    PredictOptions,
    checked_batch_size,
    chosen_prompt,
    complete,
    numpy_only,
)
from mlx_embed.pooling import POOLING, ROWS
from mlx_embed.scores import SCORES, activation_name, softmax
from mlx_embed.texts import begun_ahead, check_iterable, progress, windows
from mlx_embed.tokenizer.generative import GenerativeTokenizer, answers, has_form
from mlx_embed.tokenizer.pairs import PairTokenizer

if TYPE_CHECKING:
    from mlx_embed.options import Unpack


@dataclass(frozen=True)
class ClassifierHead:
    """Hidden states to logits: one vector a pair, and the classifier's layers.

    Attributes:
        pooling: a key of POOLING, what the layers read; or "late", each token, and the logits are averaged; or POOLED,
            where hidden states are a row a pair already.
        layers: the last of which gives the labels.
    """

    pooling: str
    layers: tuple[Module, ...]

    @property
    def of_one_token(self) -> "tuple[Callable[..., Array], ClassifierHead] | None":
        """See `HeadFunction`."""
        return (ROWS[self.pooling], replace(self, pooling=heads.POOLED)) if self.pooling in ROWS else None

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [n, labels]."""
        late, x = self.pooling == heads.LATE, ops.float32(hidden)
        if self.pooling not in (heads.LATE, heads.POOLED):
            x = POOLING[self.pooling](x, cu_seqlens, max_seqlen, 0)
        for layer, own in zip(self.layers, parameters, strict=True):
            x = layer(x, own)
        return POOLING["mean"](x, cu_seqlens, max_seqlen, 0) if late else x


class CrossEncoder(FromSentenceTransformers):
    """A reranker: pairs of texts in, scores out. It may be used from any thread.

    It can be pickled and copied: it is then loaded again, from the same folder.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of pairs.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        num_labels: scores a pair.
        activation: what logits go through, by torch's name; "Identity" leaves them as they are. This and the next two
            are the checkpoint's, and may be changed.
        prompts: texts to put before a query, by name.
        default_prompt_name: the prompt where none is given; None for none.
    """

    # What loads it again, where it was loaded.
    _source: Source | None = None

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: PairTokenizer | GenerativeTokenizer,
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
        self.prompts, self.default_prompt_name = heads.prompts(checkpoint)
        function = ClassifierHead(heads.pooling(checkpoint), tuple(layer for layer, _ in head))
        self._head = engine.head(function, [parameters for _, parameters in head])
        self._padding = heads.padding(checkpoint)
        self._typed = tokenizer.token_types and checkpoint.encoder_config.type_vocab_size > 1

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
        """Load a sequence classifier, or a causal model that answers with a token.

        `options` are those of `EmbeddingModel.from_pretrained`.

        Raises:
            CheckpointError: a checkpoint without a classifier; and what `EmbeddingModel.from_pretrained` raises.
        """
        opened = open_model("from_pretrained", name_or_path, options, "CrossEncoder")
        checkpoint = heads.as_read(opened.checkpoint)
        opened = replace(opened, checkpoint=checkpoint)
        tokenizer = _tokenizer(checkpoint, opened.max_seq_length)
        engine = opened.load()
        if checkpoint.generates:
            score = answers(checkpoint, tokenizer.library)
            head = worker.run(partial(heads.load_score, checkpoint, score), opened.device)
        else:
            head = worker.run(partial(heads.load_head, checkpoint), opened.device)
        model = cls(checkpoint, tokenizer, engine, head, name=opened.name)
        names = checkpoint.config.get("id2label")
        if not checkpoint.generates and isinstance(names, dict) and len(names) != model.num_labels:
            raise CheckpointError(f"config.json names {len(names)} labels, but the classifier has {model.num_labels}.")
        remember(model, opened.source)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        settings = ("name", "max_seq_length", "activation", "prompts", "default_prompt_name")
        return pickled(self, self._source, *settings)

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which pairs are cut, special tokens included. It can be set; None is the model's own.

        Raises:
            TypeError: something that is no whole number.
            ValueError: more tokens than the model has positions, or none.
            CheckpointError: so few that special tokens leave no room for text.
        """
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int | None) -> None:
        self.tokenizer = _tokenizer(self.checkpoint, checked_length(tokens, self.checkpoint))

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, num_labels={self.num_labels}, activation={self.activation!r})"

    def predict(
        self, pairs: Iterable[Sequence[str]] | Sequence[str] = MISSING, **options: "Unpack[PredictOptions]"
    ) -> npt.NDArray[np.float32]:
        """Score pairs of a query and a document, batched by length, in the order given.

        Args:
            pairs: (query, document) pairs, or a single one; a numpy array [N, 2] of strings.
            **options: prompt_name, prompt, activation, activation_fn, apply_softmax, batch_tokens, batch_size,
                convert_to_numpy, convert_to_tensor, show_progress_bar: see `PredictOptions`.

        Returns:
            numpy float32: [N], [N, labels] of a model with several labels; without the N for a single pair. The scores
            of logits are exact to one unit in the last place, also those close to 0 and 1.

        Raises:
            TypeError: something that is no pair of strings; its index is named. A mapping or a table. An option that
                there is not.
            ValueError: an unknown activation or prompt name, an option out of range, or a pair without any token, not
                even a special one; its index is named.
        """
        chosen: PredictOptions = complete("predict", options, PREDICT)
        check_iterable("predict", "(query, document) pairs", pairs, "frame[['query', 'document']].values")
        if isinstance(pairs, str):
            raise TypeError("predict takes (query, document) pairs, got a str: pass [(query, document)].")
        listed: list[Any] = pairs.tolist() if isinstance(pairs, np.ndarray) else list(pairs)
        single = len(listed) == 2 and all(isinstance(text, str) for text in listed)
        scores, _ = self._scores(
            [_pair(index, pair) for index, pair in enumerate([listed] if single else listed)], chosen
        )
        return scores[0] if single else scores

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        *,
        return_documents: bool = False,
        **options: "Unpack[PredictOptions]",
    ) -> list[dict[str, Any]]:
        """The documents by their score for a query, best first: {"corpus_id": place, "score": float}.

        Documents of one score, such as those whose probability rounds to 1, are in the order of their logits.

        Args:
            query: a string.
            documents: any iterable of strings; "corpus_id" is a document's place in it, from 0.
            top_k: keep so many.
            return_documents: add "text", the document.
            **options: those of `predict`.

        Raises:
            ValueError: a model of several labels, which do not rank; a top_k below 1.
            TypeError: a query or document that is no string; documents that are a mapping, a table or a single string.
        """
        chosen: PredictOptions = complete("rank", options, PREDICT)
        self.require_one_label()
        if top_k is not None:
            top_k = positive_number("top_k", top_k, "documents")
        require_string("query", query)
        check_iterable("rank", "an iterable of documents", documents)
        if isinstance(documents, str):
            raise TypeError("rank takes an iterable of documents, got a str: pass [document].")
        listed = list(documents)
        for index, document in enumerate(listed):
            if not isinstance(document, str):
                raise TypeError(f"documents[{index}] is {type_name(document)}, where a string is needed.")
        scores, logits = self._scores([(query, document) for document in listed], chosen)
        order = np.lexsort((-logits[:, 0], -scores))[:top_k]
        ranked: list[dict[str, Any]] = [{"corpus_id": int(i), "score": float(scores[i])} for i in order]
        if return_documents:
            for entry in ranked:
                entry["text"] = listed[entry["corpus_id"]]
        return ranked

    def require_one_label(self) -> None:
        """Raise ValueError for a model of several labels, which do not rank."""
        if self.num_labels != 1:
            raise ValueError(f"{self.name} has {self.num_labels} labels, and cannot rank; use predict.")

    def seen(self, ids: Ids) -> Ids:
        """Of pairs' token ids those that the model is given: without padding at the end, see `heads.padding`."""
        return ids if self._padding is None else ids.without_end(self._padding)

    def _scores(
        self, pairs: Sequence[tuple[str, str]], options: PredictOptions
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The scores [N], or [N, labels] of several, and the logits [N, labels]."""
        numpy_only("predict", options)
        given = [options[name] for name in ("activation", "activation_fn") if options[name] is not None]
        if len(given) > 1:
            raise ValueError("activation and activation_fn are the same: pass one of them.")
        activation = activation_name(given[0] if given else self.activation, self.num_labels)
        prompt = chosen_prompt(self.prompts, self.default_prompt_name, options["prompt_name"], options["prompt"])
        logits = self._logits(pairs, prompt, options)
        scores = SCORES[activation](logits.astype(np.float64))
        if options["apply_softmax"] and self.num_labels > 1:
            scores = softmax(scores)
        return (scores[:, 0] if self.num_labels == 1 else scores).astype(np.float32), logits

    def _logits(
        self, pairs: Sequence[tuple[str, str]], prompt: str, options: PredictOptions
    ) -> npt.NDArray[np.float32]:
        """[N, labels]; one window of pairs is tokenized while the one before is computed."""
        budget = self.engine.budget(options["batch_tokens"])
        most = checked_batch_size(options["batch_size"], "pairs")
        logits = [np.zeros((0, self.num_labels), dtype=np.float32)]

        def begin() -> Iterator[Gathering]:
            done = 0
            for window in windows(pairs, lambda pair: len(pair[0]) + len(pair[1])):
                ids, types = self.tokenizer(window, prompt)
                if not ids.lengths.all():
                    index = done + int(np.argmin(ids.lengths))
                    raise ValueError(f"pairs[{index}] has no token in either text, so that there is nothing to score.")
                done += len(window)
                batches = self.engine.batches(self.seen(ids), budget, most, token_types=types if self._typed else None)
                yield self.engine.gather(batches, self._head, advance)

        with (
            progress(options["show_progress_bar"], len(pairs), "pair") as advance,
            closing(begun_ahead(begin(), self.engine.ahead)) as gatherings,
        ):
            logits += [gathering.result() for gathering in gatherings]
        return np.concatenate(logits)


def _tokenizer(checkpoint: Checkpoint, max_length: int) -> PairTokenizer | GenerativeTokenizer:
    return (GenerativeTokenizer if has_form(checkpoint) else PairTokenizer)(checkpoint, max_length)


def _pair(index: int, pair: Any) -> tuple[str, str]:
    if isinstance(pair, (list, tuple, np.ndarray)) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
        return (str(pair[0]), str(pair[1]))
    raise TypeError(f"pairs[{index}] is {pair!r:.80}, where a (query, document) pair of strings is needed.")
