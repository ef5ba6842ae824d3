"""SparseEncoder: texts to weights of the vocabulary's tokens (SPLADE), few of which are not 0."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import LARGEST_SIZE
from mlx_embed.architectures.ops import Array
from mlx_embed.arguments import positive_number, type_name
from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import optional_json
from mlx_embed.checkpoint.folder import stated_length
from mlx_embed.checkpoint.listed import inside
from mlx_embed.checkpoint.masked_lm import MaskedLMHead, load_masked_lm, load_weights
from mlx_embed.checkpoint.settings import Settings
from mlx_embed.checkpoint.sparse import Sides, read_sides
from mlx_embed.encoding import by_windows
from mlx_embed.engine import Engine
from mlx_embed.engine.contract import Parameters
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.ids import Ids
from mlx_embed.loading import CutsTexts, Source, open_model, pickled, remember
from mlx_embed.migration import FromSentenceTransformers
from mlx_embed.options import (
    MISSING,
    TASK_PROMPTS,
    LoadOptions,
    checked_batch_size,
    chosen_prompt,
    complete,
    prefer_prompt,
)
from mlx_embed.sparse_vectors import SparseVector, SparseVectors, require_sparse, sparsified
from mlx_embed.texts import checked
from mlx_embed.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Float32 = npt.NDArray[np.float32]
# A text is a row as wide as the vocabulary until its zeros are left out.
MOST_TEXTS = 128
# Columns of the vocabulary whose logits are there at once, where they cannot be compared as they are made.
COLUMNS = 2048


class SparseOptions(TypedDict, total=False):
    """How to embed texts.

    Attributes:
        prompt_name: the checkpoint's prompt to put before each text.
        prompt: the text to put before each text, instead of a named one.
        max_active_dims: keep so many of the largest values of each text; None is what the model has.
        batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes vectors.
        batch_size: no more texts than this in a batch either; there is no need to set it.
        show_progress_bar: show a bar of texts done. None shows it where mlx_embed logs at INFO.
    """

    prompt_name: str | None
    prompt: str | None
    max_active_dims: int | None
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None


OPTIONS: SparseOptions = {
    "prompt_name": None,
    "prompt": None,
    "max_active_dims": None,
    "batch_tokens": None,
    "batch_size": None,
    "show_progress_bar": None,
}


@dataclass(frozen=True)
class SparseHead:
    """Hidden states to a weight for each token of the vocabulary: a masked language model's logits, pooled.

    The logits [T, V] are never there all at once.

    Attributes:
        act: the activation within the language model's head.
        pooling: "max" or "sum", over a text's tokens.
        logarithms: how often log1p is taken of what is above 0.
        plain: whether logits are products of the hidden states as they are, with no layers between.
    """

    act: str
    pooling: str
    logarithms: int
    plain: bool = False

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> float32 [n, V]; `parameters` are the head's layers, its decoder in one part or several."""
        layers: Any = parameters
        x, decoder = hidden, layers
        if not self.plain:
            dense, norm, *decoder = layers
            x = ops.layer_norm(ops.linear(hidden, dense, self.act), norm)
        if self.pooling == "max":  # log1p rises, so the largest logit has the largest weight
            return self._weights(ops.linear_max(x, decoder[0], cu_seqlens))
        xp = ops.namespace(x)
        lengths = (cu_seqlens[1:] - cu_seqlens[:-1])[:, None].astype(xp.float32)
        parts = [self._weights(ops.float32(ops.linear(x, part))) for part in decoder]
        return xp.concatenate([ops.mean_pool(part, cu_seqlens, 0) for part in parts], axis=-1) * lengths

    def _weights(self, logits: Array) -> Array:
        xp = ops.namespace(logits)
        found = xp.maximum(logits, 0)
        for _ in range(self.logarithms):
            found = xp.log1p(found)
        return found


class SparseEncoder(CutsTexts, FromSentenceTransformers):
    """A sparse embedding model: texts in, weights of tokens out. It may be used from any thread.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        dimension: the number of tokens in the vocabulary.
        prompts: texts to put in front, by name. This and the next three are the checkpoint's, and may be changed.
        default_prompt_name: the prompt of `encode` where it is given none.
        max_active_dims: the largest values of a text that are kept; None keeps all.
        similarity_fn_name: what `similarity` computes: "dot" or "cosine".
        task_prompts: names of the prompts of queries and of documents, the first that the model has.
    """

    _source: Source | None = None
    task_prompts: ClassVar = TASK_PROMPTS

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        engine: Engine,
        head: MaskedLMHead,
        sides: Sides,
        *,
        max_active_dims: int | None = None,
        similarity: str | None = None,
        name: str = "",
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.sides = sides
        self.name = name or str(checkpoint.folder)
        self.dimension = checkpoint.encoder_config.vocab_size
        self.prompts = dict(checkpoint.prompts)
        self.default_prompt_name = checkpoint.default_prompt_name
        self.max_active_dims = max_active_dims
        self.similarity_fn_name = similarity or "dot"
        decoder = [head.decoder] if sides.pooling == "max" else _parts(head.decoder)
        between = [layer for layer in (head.dense, head.norm) if layer is not None]
        function = SparseHead(head.act, sides.pooling, sides.logarithms, plain=not between)
        layers: list[nn.Module] = [*between, *decoder]
        self._head = engine.head(function, layers)
        self._tables = {place: load_weights(checkpoint, place) for place in set((sides.looked_up or {}).values())}
        self._tokenizers = {place: _plain_tokenizer(checkpoint, place) for place in self._tables}
        for place, table in self._tables.items():
            if (largest := self._tokenizers[place].max_id()) >= len(table):
                raise CheckpointError(
                    f"{checkpoint.folder / place} has weights of {len(table)} tokens, but token ids up to {largest}."
                )

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: "Unpack[LoadOptions]") -> "SparseEncoder":
        """Load a SparseEncoder, or a masked language model; `options` are those of `EmbeddingModel.from_pretrained`.

        Raises:
            CheckpointError: a checkpoint without the head of a language model; and what
                `EmbeddingModel.from_pretrained` raises.
        """
        opened = open_model("from_pretrained", name_or_path, options, "SparseEncoder")
        checkpoint = opened.checkpoint
        saved = checkpoint.sentence.get("model_type") == "SparseEncoder"
        named = checkpoint.config.get("architectures")
        if not saved and not any(str(name).endswith("ForMaskedLM") for name in named or ()):
            raise UnsupportedModelError(
                f"{checkpoint.folder} is no SparseEncoder, and config.json names no ...ForMaskedLM that could be one."
            )
        sides = read_sides(checkpoint.folder) if saved else Sides()
        tokenizer = Tokenizer(checkpoint, opened.max_seq_length)
        engine = opened.load()
        head = worker.run(partial(load_masked_lm, checkpoint), opened.device)
        most = checkpoint.sentence.get("max_active_dims")
        similarity = checkpoint.sentence.get("similarity_fn_name")
        model = cls(
            checkpoint,
            tokenizer,
            engine,
            head,
            sides,
            max_active_dims=None if most is None else positive_number("max_active_dims", most, "values"),
            similarity=similarity,
            name=opened.name,
        )
        remember(model, opened.source)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        settings = ("name", "max_seq_length", "prompts", "default_prompt_name", "max_active_dims", "similarity_fn_name")
        return pickled(self, self._source, *settings)

    def __repr__(self) -> str:
        return f"SparseEncoder({self.name!r}, dimension={self.dimension}, max_seq_length={self.max_seq_length})"

    def encode(
        self, texts: str | Iterable[str] = MISSING, **options: "Unpack[SparseOptions]"
    ) -> SparseVectors | SparseVector:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, or any iterable of strings.
            **options: prompt_name, prompt, max_active_dims, batch_tokens, batch_size, show_progress_bar: see
                `SparseOptions`.

        Returns:
            SparseVectors, a SparseVector for a single string.

        Raises:
            TypeError: a text that is no string; its index is named. An option that there is not.
            ValueError: an unknown prompt name, or an option out of range.
        """
        return self._encode("encode", texts, options, None)

    def encode_query(
        self, texts: str | Iterable[str] = MISSING, **options: "Unpack[SparseOptions]"
    ) -> SparseVectors | SparseVector:
        """`encode` with the "query" prompt, if there is one, and on the side of queries, if the model has two."""
        prefer_prompt(options, self.prompts, *self.task_prompts["query"])
        return self._encode("encode_query", texts, options, "query")

    def encode_document(
        self, texts: str | Iterable[str] = MISSING, **options: "Unpack[SparseOptions]"
    ) -> SparseVectors | SparseVector:
        """`encode` with the "document", "passage" or "corpus" prompt, if any, and on the side of documents."""
        prefer_prompt(options, self.prompts, *self.task_prompts["document"])
        return self._encode("encode_document", texts, options, "document")

    def decode(
        self, vectors: SparseVectors | SparseVector, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The tokens of each vector with their weights, the heaviest first; `top_k` of them, or all.

        Raises:
            ValueError: a top_k below 1.
            TypeError: no sparse vectors.
        """
        require_sparse(vectors)
        top_k = None if top_k is None else positive_number("top_k", top_k, "tokens")
        if isinstance(vectors, SparseVectors):
            return [self._decoded(vector, top_k) for vector in vectors]
        return self._decoded(vectors, top_k)

    def similarity(self, a: SparseVectors | SparseVector, b: SparseVectors | SparseVector) -> Float32:
        """The model's similarity of each of a [N] and b [M]: float32 [N, M]; one vector counts as a row.

        Raises:
            ValueError: vectors of different dimensions, or a similarity_fn_name that is neither "dot" nor "cosine".
            TypeError: no sparse vectors.
        """
        if self.similarity_fn_name not in ("dot", "cosine"):
            raise ValueError(f"similarity_fn_name {self.similarity_fn_name!r} is not one of dot, cosine.")
        rows, columns = self._rows(a), self._rows(b)
        if rows.dimension != columns.dimension:
            raise ValueError(f"Vectors of dimension {rows.dimension} and {columns.dimension} cannot be compared.")
        found = np.stack([columns.times(vector) for vector in rows]) if len(rows) else np.zeros((0, len(columns)))
        if self.similarity_fn_name == "cosine":
            found = found / np.maximum(np.outer(_lengths(rows), _lengths(columns)), 1e-12)
        return found.astype(np.float32)

    def intersection(self, a: SparseVector, b: SparseVectors | SparseVector) -> SparseVectors | SparseVector:
        """The product of a with b, or with each of b, where it is above 0: what `decode` shows they have in common.

        Raises:
            TypeError: no sparse vectors, or several as a.
        """
        require_sparse(b)
        if not isinstance(a, SparseVector):
            raise TypeError(f"The first of an intersection is {type_name(a)}, where one SparseVector is needed.")
        if isinstance(b, SparseVectors):
            return SparseVectors.of([_common(a, vector) for vector in b], b.dimension)
        return _common(a, b)

    def _encode(
        self, method: str, texts: str | Iterable[str], options: SparseOptions, task: str | None
    ) -> SparseVectors | SparseVector:
        chosen: SparseOptions = complete(method, options, OPTIONS)
        most = self.max_active_dims if chosen["max_active_dims"] is None else chosen["max_active_dims"]
        most = None if most is None else positive_number("max_active_dims", most, "values")
        prompt = chosen_prompt(self.prompts, self.default_prompt_name, chosen["prompt_name"], chosen["prompt"])
        listed: Iterable[str] = [texts] if isinstance(texts, str) else checked(texts, method)
        tokenizer = self.tokenizer_for(task)
        size, budget = checked_batch_size(chosen["batch_size"]), self.engine.budget(chosen["batch_tokens"])
        rows, counts, all_read = by_windows(
            listed,
            tokenizer,
            prompt,
            chosen["show_progress_bar"],
            lambda tokens, advance: self.computed(tokens.ids, task, budget, size, most=most, advance=advance),
        )
        self._say_what_was_cut(counts, tokenizer.max_length, all_read)
        return rows[0] if isinstance(texts, str) else SparseVectors.of(rows, self.dimension_for(task))

    def tokenizer_for(self, task: str | None) -> Tokenizer:
        """What makes token ids of the texts of a task, "query" or "document"."""
        place = self.sides.table(task)
        return self.tokenizer.for_task(task) if place is None else self._tokenizers[place]

    def dimension_for(self, task: str | None) -> int:
        """The number of tokens that vectors of a task are over."""
        place = self.sides.table(task)
        return self.dimension if place is None else len(self._tables[place])

    def computed(
        self,
        ids: Ids,
        task: str | None,
        budget: int,
        max_texts: int | None = None,
        *,
        most: int | None = None,
        advance: Callable[[int], Any] = lambda _: None,
    ) -> list[SparseVector]:
        """The vectors of token ids, as `tokenizer_for(task)` makes them; `most` are kept of each."""
        place = self.sides.table(task)
        if place is not None:
            advance(len(ids))
            return list(_looked_up(ids, self._tables[place], most))
        found: list[SparseVector] = [None] * len(ids)  # type: ignore[list-item]
        batches = self.engine.batches(ids, budget, min(max_texts or MOST_TEXTS, MOST_TEXTS))
        with closing(self.engine.run(batches, self._head)) as run:
            for batch, weights in run:
                for text, vector in zip(batch.texts.tolist(), sparsified(weights, most), strict=True):
                    found[text] = vector
                advance(len(batch.texts))
        return found

    def _decoded(self, vector: SparseVector, top_k: int | None) -> list[tuple[str, float]]:
        order = np.argsort(-vector.values, kind="stable")[:top_k]
        library = self.tokenizer.library
        pairs = zip(vector.indices[order].tolist(), vector.values[order].tolist(), strict=True)
        return [(library.id_to_token(token) or "", weight) for token, weight in pairs]

    def _rows(self, vectors: SparseVectors | SparseVector) -> SparseVectors:
        require_sparse(vectors)
        return vectors if isinstance(vectors, SparseVectors) else SparseVectors.of([vectors], self.dimension)


def _parts(decoder: nn.Linear) -> list[nn.Linear]:
    """The decoder's columns in parts."""
    parts = []
    for start in range(0, decoder.weight.shape[0], COLUMNS):
        part = nn.Linear(1, 1, bias="bias" in decoder)
        part.weight = decoder.weight[start : start + COLUMNS]
        if "bias" in decoder:
            part.bias = decoder.bias[start : start + COLUMNS]
        parts.append(part)
    return parts


def _plain_tokenizer(checkpoint: Checkpoint, place: str) -> Tokenizer:
    """The tokenizer beside a table of weights, which puts no special tokens around a text.

    What the encoder's settings say is not of it: it cuts texts where its own tokenizer_config.json says, if anywhere.
    """
    folder = inside(checkpoint.folder, place)
    path = folder / "tokenizer_config.json"
    own = optional_json(path)
    side = replace(
        checkpoint,
        transformer=folder,
        tokenizer_config=own,
        special_tokens=False,
        do_lower_case=False,
        task_lengths={},
    )
    return Tokenizer(side, stated_length(path, Settings(), own) or LARGEST_SIZE)


def _looked_up(ids: Ids, table: Float32, most: int | None) -> Iterable[SparseVector]:
    """The weight of each token that a text has, however often."""
    for row in ids:
        places = np.unique(row)
        whole = np.zeros_like(table)
        whole[places] = table[places]
        yield from sparsified(whole[None], most)


def _common(a: SparseVector, b: SparseVector) -> SparseVector:
    indices, left, right = np.intersect1d(a.indices, b.indices, assume_unique=True, return_indices=True)
    values = a.values[left] * b.values[right]
    return SparseVector(indices[values > 0].astype(np.int32), values[values > 0])


def _lengths(vectors: SparseVectors) -> npt.NDArray[np.float64]:
    return np.array([np.linalg.norm(vector.values.astype(np.float64)) for vector in vectors])
