"""BGEM3: of each text a vector, a weight for each of its tokens, and a vector for each, in one forward pass."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.arguments import type_name
from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.bge_m3 import M3Layers, load_m3
from mlx_embed.checkpoint.modules import Pooling
from mlx_embed.embedding_head import EmbeddingHead
from mlx_embed.encoding import by_windows
from mlx_embed.engine import Engine
from mlx_embed.engine.contract import Parameters
from mlx_embed.engine.worker import worker
from mlx_embed.ids import Ids
from mlx_embed.late_interaction import max_sim
from mlx_embed.loading import CutsTexts, Source, open_model, pickled, remember
from mlx_embed.migration import FromSentenceTransformers
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.options import MISSING, TASK_PROMPTS, LoadOptions, checked_batch_size, chosen_prompt, complete
from mlx_embed.sparse_vectors import SparseVector, SparseVectors
from mlx_embed.texts import checked
from mlx_embed.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Float32: TypeAlias = npt.NDArray[np.float32]
# Tokens that carry no weight, by their roles; XLM-RoBERTa's where the folder does not name them.
_UNUSED = {"cls": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}


class M3Options(TypedDict, total=False):
    """How to embed texts.

    Attributes:
        prompt_name: the checkpoint's prompt to put before each text.
        prompt: the text to put before each text, instead of a named one.
        return_sparse: give the weights of tokens.
        return_multi_vector: give a vector a token, which take most of the room.
        batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes vectors.
        batch_size: no more texts than this in a batch either; there is no need to set it.
        show_progress_bar: show a bar of texts done. None shows it where mlx_embed logs at INFO.
    """

    prompt_name: str | None
    prompt: str | None
    return_sparse: bool
    return_multi_vector: bool
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None


OPTIONS: M3Options = {
    "prompt_name": None,
    "prompt": None,
    "return_sparse": True,
    "return_multi_vector": True,
    "batch_tokens": None,
    "batch_size": None,
    "show_progress_bar": None,
}


class M3Vectors(NamedTuple):
    """What BGE-M3 makes of texts.

    Attributes:
        dense: float32 [N, H], of length 1.
        sparse: a weight for each token of the vocabulary that a text has; None where not asked for.
        multi_vector: a vector of length 1 for each of a text's tokens but the first; None where not asked for.
    """

    dense: Float32
    sparse: SparseVectors | None
    multi_vector: MultiVectors | None


class M3Text(NamedTuple):
    """What BGE-M3 makes of one text; None for what was not asked for.

    Attributes:
        dense: float32 [H], of length 1.
        sparse: a weight for each token of the vocabulary that the text has.
        multi_vector: float32 [L, C], a vector of length 1 for each of its tokens but the first.
    """

    dense: Float32
    sparse: SparseVector | None = None
    multi_vector: Float32 | None = None


@dataclass(frozen=True)
class M3Head:
    """Hidden states to a row a token: its weight, then its vector, in whose place a text's first has the text's own."""

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [T, 1 + max(H, C)]."""
        xp = ops.namespace(hidden)
        hidden, (sparse, colbert) = ops.float32(hidden), parameters
        weight = xp.maximum(ops.product(hidden, sparse["weight"]) + sparse["bias"], 0)
        texts, tokens = ops.normalize(hidden), ops.normalize(ops.product(hidden, colbert["weight"]) + colbert["bias"])
        width = max(texts.shape[1], tokens.shape[1])
        first = (ops.position_ids(cu_seqlens, hidden.shape[0]) == 0)[:, None]
        return xp.concatenate([weight, xp.where(first, _widened(texts, width), _widened(tokens, width))], axis=1)


class BGEM3(CutsTexts, FromSentenceTransformers):
    """BAAI's BGE-M3 with all that it computes. It may be used from any thread.

    It is a class of its own, for its results are of three kinds, and most options of `EmbeddingModel.encode` mean
    nothing to two of them. `EmbeddingModel` loads the same folder for its vectors of texts alone.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        dimension: the length of a text's vector.
        token_dimension: the length of a token's vector.
        vocabulary: the number of tokens that weights are over.
        prompts: texts to put in front, by name. This and the next are the checkpoint's, and may be changed.
        default_prompt_name: the prompt where none is given.
        task_prompts: names of the prompts of queries and of documents, the first that the model has.
    """

    _source: Source | None = None
    task_prompts: ClassVar = TASK_PROMPTS

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, engine: Engine, layers: M3Layers, *, name: str = ""
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.name = name or str(checkpoint.folder)
        self.dimension = checkpoint.encoder_config.hidden_size
        self.prompts = dict(checkpoint.prompts)
        self.default_prompt_name = checkpoint.default_prompt_name
        self.vocabulary = checkpoint.encoder_config.vocab_size
        self.token_dimension: int = layers.colbert["weight"].shape[0]
        self._head = engine.head(M3Head(), layers)
        self._text_head = engine.head(
            EmbeddingHead(Pooling(("cls",)), (), 0, self.dimension, True, tokenizer.blank_behind(0)), ()
        )
        self._unused = _unused_tokens(checkpoint, tokenizer)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: "Unpack[LoadOptions]") -> "BGEM3":
        """Load a folder of BGE-M3 with its layers as sparse_linear.safetensors and colbert_linear.safetensors.

        `options` are those of `EmbeddingModel.from_pretrained`.

        Raises:
            CheckpointError: one of these files is missing, or a pickle; and what `EmbeddingModel.from_pretrained`
                raises.
        """
        opened = open_model("from_pretrained", name_or_path, options)
        checkpoint = opened.checkpoint
        layers = worker.run(partial(load_m3, checkpoint), opened.device)
        model = cls(checkpoint, Tokenizer(checkpoint, opened.max_seq_length), opened.load(), layers, name=opened.name)
        remember(model, opened.source)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled(self, self._source, "name", "max_seq_length", "prompts", "default_prompt_name")

    def __repr__(self) -> str:
        return f"BGEM3({self.name!r}, dimension={self.dimension}, max_seq_length={self.max_seq_length})"

    def encode(self, texts: str | Iterable[str] = MISSING, **options: "Unpack[M3Options]") -> M3Vectors:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, which counts as a list of one, or any iterable of strings.
            **options: prompt_name, prompt, return_sparse, return_multi_vector, batch_tokens, batch_size,
                show_progress_bar: see `M3Options`.

        Raises:
            TypeError: a text that is no string; its index is named. An option that there is not.
            ValueError: an unknown prompt name, or an option out of range.
        """
        chosen: M3Options = complete("encode", options, OPTIONS)
        prompt = chosen_prompt(self.prompts, self.default_prompt_name, chosen["prompt_name"], chosen["prompt"])
        listed: Iterable[str] = [texts] if isinstance(texts, str) else checked(texts)
        size, budget = checked_batch_size(chosen["batch_size"]), self.engine.budget(chosen["batch_tokens"])
        with_sparse, with_multi = bool(chosen["return_sparse"]), bool(chosen["return_multi_vector"])
        found, counts, all_read = by_windows(
            listed,
            self.tokenizer,
            prompt,
            chosen["show_progress_bar"],
            lambda tokens, advance: self.computed(
                tokens.ids, budget, size, sparse=with_sparse, multi_vector=with_multi, advance=advance
            ),
        )
        self._say_what_was_cut(counts, self.tokenizer.max_length, all_read)
        dense = np.stack([text.dense for text in found]) if found else np.zeros((0, self.dimension), np.float32)
        sparse = [text.sparse for text in found if text.sparse is not None]
        multi = [text.multi_vector for text in found if text.multi_vector is not None]
        return M3Vectors(
            dense,
            SparseVectors.of(sparse, self.vocabulary) if with_sparse else None,
            MultiVectors.of(multi, self.token_dimension) if with_multi else None,
        )

    def computed(
        self,
        ids: Ids,
        budget: int,
        max_texts: int | None = None,
        *,
        sparse: bool = True,
        multi_vector: bool = True,
        advance: Callable[[int], Any] = lambda _: None,
    ) -> list[M3Text]:
        """What is wanted of token ids, as the tokenizer makes them, in one forward pass."""
        batches = self.engine.batches(ids, budget, max_texts)
        made: list[M3Text] = [None] * len(ids)  # type: ignore[list-item]
        of_tokens = sparse or multi_vector
        head = self._head if of_tokens else self._text_head
        with closing(self.engine.run(batches, head, of_tokens=of_tokens)) as run:
            for batch, rows in run:
                places = batch.texts.tolist()
                parts = np.split(rows, np.cumsum(ids.lengths[batch.texts])[:-1]) if of_tokens else rows
                for place, own in zip(places, parts, strict=True):
                    made[place] = self._text(ids[place], own, sparse, multi_vector) if of_tokens else M3Text(own)
                advance(len(places))
        return made

    def _text(self, ids: npt.NDArray[np.int32], own: Float32, sparse: bool, multi_vector: bool) -> M3Text:
        """What is wanted of a text, of the head's rows [L, 1 + max(H, C)] of its tokens, which need not be kept."""
        return M3Text(
            own[:1, 1 : 1 + self.dimension].sum(axis=0),  # zeros of a text without tokens
            self._weights(ids, own[:, 0]) if sparse else None,
            own[1:, 1 : 1 + self.token_dimension].copy() if multi_vector else None,
        )

    def similarity(
        self, queries: M3Vectors, documents: M3Vectors, weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> Float32:
        """The weighted mean of three similarities of each query and document: [N, M].

        They are the cosine of the texts' vectors, the product of the tokens' weights, and MaxSim divided by the number
        of the query's vectors. `weights` are in this order; what has none is not computed.

        Raises:
            ValueError: weights below 0, or none above; results without what has a weight.
            TypeError: something else than what `encode` gives.
        """
        for given in (queries, documents):
            if not isinstance(given, M3Vectors):
                raise TypeError(f"similarity takes M3Vectors, as encode gives them, got {type_name(given)}.")
        if len(weights) != 3 or not min(weights) >= 0 or not sum(weights) > 0:
            raise ValueError(f"weights {weights!r} are no three numbers from 0 up, one of them above.")
        total = np.zeros((len(queries.dense), len(documents.dense)))
        if weights[0]:
            total += weights[0] * (queries.dense @ documents.dense.T)
        if weights[1]:
            if queries.sparse is None or documents.sparse is None:
                raise ValueError("There are no weights of tokens: encode(..., return_sparse=True) gives them.")
            for row, vector in enumerate(queries.sparse):
                total[row] += weights[1] * documents.sparse.times(vector)
        if weights[2]:
            if queries.multi_vector is None or documents.multi_vector is None:
                raise ValueError("There are no vectors of tokens: encode(..., return_multi_vector=True) gives them.")
            lengths = np.maximum(np.diff(queries.multi_vector.offsets), 1)[:, None]
            total += weights[2] * max_sim(self.engine, queries.multi_vector, documents.multi_vector) / lengths
        return (total / sum(weights)).astype(np.float32)

    def decode(self, vector: SparseVector, top_k: int | None = None) -> list[tuple[str, float]]:
        """The tokens of a sparse vector with their weights, the heaviest first; `top_k` of them, or all.

        Raises:
            TypeError: something else than one sparse vector.
        """
        if not isinstance(vector, SparseVector):
            raise TypeError(f"decode takes one SparseVector, as sparse[0] is of a result, got {type_name(vector)}.")
        order = np.argsort(-vector.values, kind="stable")[:top_k]
        library = self.tokenizer.library
        pairs = zip(vector.indices[order].tolist(), vector.values[order].tolist(), strict=True)
        return [(library.id_to_token(token) or "", weight) for token, weight in pairs]

    def _weights(self, ids: npt.NDArray[np.int32], weights: Float32) -> SparseVector:
        """The largest weight of each token that a text has, without special tokens and without zeros."""
        counted = ~np.isin(ids, self._unused) & (weights > 0)
        places, which = np.unique(ids[counted], return_inverse=True)
        values = np.zeros(len(places), dtype=np.float32)
        np.maximum.at(values, which, weights[counted])
        return SparseVector(places.astype(np.int32), values)


def _widened(rows: Array, width: int) -> Array:
    xp = ops.namespace(rows)
    missing = width - rows.shape[1]
    return rows if not missing else xp.concatenate([rows, xp.zeros((rows.shape[0], missing), dtype=rows.dtype)], axis=1)


def _unused_tokens(checkpoint: Checkpoint, tokenizer: Tokenizer) -> npt.NDArray[np.int32]:
    named = [checkpoint.tokenizer_config.get(f"{role}_token") or default for role, default in _UNUSED.items()]
    contents = [str(token.get("content") if isinstance(token, dict) else token) for token in named]
    found = (tokenizer.library.token_to_id(content) for content in contents)
    return np.array([token for token in found if token is not None], dtype=np.int32)
