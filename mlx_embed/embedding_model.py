"""EmbeddingModel: texts to vectors, by a tokenizer, an engine and a head."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.arguments import whole_number
from mlx_embed.batching import Batch
from mlx_embed.checkpoint import DEFAULT_MODEL, Checkpoint, weights
from mlx_embed.checkpoint.modules import Module, Pooling
from mlx_embed.engine import Engine, Head
from mlx_embed.engine.contract import Parameters, Run
from mlx_embed.engine.device import describe
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError
from mlx_embed.loading import open_model
from mlx_embed.options import ENCODE, EncodeOptions, LoadOptions, LongText, complete
from mlx_embed.pooling import mean_of_chunks
from mlx_embed.similarity import SIMILARITY
from mlx_embed.texts import begun_ahead, checked, progress, windows
from mlx_embed.tokenizer import Tokenizer, Tokens, warn_truncated
from mlx_embed.vector_dtypes import checked_ranges, quantize

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Texts: TypeAlias = str | Iterable[str]
LONG_TEXTS: tuple[str, ...] = get_args(LongText)
# Heads that are kept ready: of prompts whose tokens are not pooled, and of vectors that are cut or scaled.
KEPT_HEADS = 16


@dataclass(frozen=True)
class EncodeInfo:
    """What `encode(..., return_info=True)` says of each text.

    Attributes:
        token_counts: int32 [N], tokens before truncation, special tokens and prompt included.
        truncated: bool [N], whether the text was cut to max_seq_length.
        chunks: int32 [N], into how many chunks the text was split; 1 unless long_text is "mean_of_chunks".
    """

    token_counts: Int32
    truncated: npt.NDArray[np.bool_]
    chunks: Int32


@dataclass(frozen=True)
class EmbeddingHead:
    """Hidden states to vectors: pooling, modules, Matryoshka truncation, normalisation; float32 at the end.

    Attributes:
        pooling: the checkpoint's.
        modules: the checkpoint's, which follow it.
        skip: a prompt's tokens, which are not pooled.
        dim: dimensions that are kept.
        unit: whether vectors are then scaled to length 1.
    """

    pooling: Pooling
    modules: tuple[Module, ...]
    skip: int
    dim: int
    unit: bool

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [n, dim]."""
        vectors = self.pooling(hidden, cu_seqlens, max_seqlen, self.skip)
        for module, own in zip(self.modules, parameters, strict=True):
            vectors = module(vectors, own)
        return ops.normalize(vectors[:, : self.dim]) if self.unit else vectors[:, : self.dim]


class EmbeddingModel:
    """A text embedding model: texts in, numpy vectors out.

    Vectors do not depend on what else is in a batch, within 1e-5 in float32. A model may be used from any thread.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
    """

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, engine: Engine, parameters: Parameters, *, name: str = ""
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.name = name or str(checkpoint.folder)
        self._said_cut = False

        @lru_cache(maxsize=KEPT_HEADS)
        def head(skip: int, dim: int, unit: bool) -> Head:
            return engine.head(EmbeddingHead(checkpoint.pooling, checkpoint.modules, skip, dim, unit), parameters)

        self._head = head

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = DEFAULT_MODEL, **options: "Unpack[LoadOptions]"
    ) -> "EmbeddingModel":
        """Load a sentence-transformers, transformers or converted MLX checkpoint.

        Args:
            name_or_path: a local folder, a hub repository id, an `EmbeddingModelType` or its alias.
            **options: dtype, device, engine, max_seq_length, revision, cache_dir, local_files_only: see `LoadOptions`.

        Raises:
            ModelNotFoundError: neither a folder nor to be had from the hub.
            CheckpointError: a file or tensor that is missing, broken or inconsistent.
            UnsupportedModelError: an architecture, module or activation that is not implemented.
            ValueError: an unknown device, dtype or engine, or a max_seq_length that the model cannot have.
            TypeError: an option that there is not.
        """
        opened = open_model("from_pretrained", name_or_path, options)
        checkpoint = opened.checkpoint
        tokenizer = Tokenizer(checkpoint, opened.max_seq_length)
        if tokenizer.max_id() >= checkpoint.encoder_config.vocab_size:
            raise CheckpointError(
                f"{checkpoint.transformer / 'tokenizer.json'} has token ids up to {tokenizer.max_id()}, but "
                f"config.json gives the model {checkpoint.encoder_config.vocab_size} embeddings; they are of different "
                "checkpoints."
            )
        engine = opened.load()
        parameters = worker.run(partial(weights.load_modules, checkpoint), opened.device)
        return cls(checkpoint, tokenizer, engine, parameters, name=opened.name)

    @property
    def dimension(self) -> int:
        """The length of a vector, where `encode` is not told to cut it."""
        return self.checkpoint.truncate_dim or self.checkpoint.dimension

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which texts are cut, special tokens included."""
        return self.tokenizer.max_length

    @property
    def device(self) -> mx.Device:
        """Where the encoder computes."""
        return self.engine.device

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype that the encoder computes in."""
        return self.engine.dtype

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}, dimension={self.dimension}, max_seq_length={self.max_seq_length}, "
            f"dtype={str(self.dtype).removeprefix('mlx.core.')}, device={describe(self.device)!r})"
        )

    @overload
    def encode(
        self, texts: Texts, *, return_info: Literal[False] = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode(
        self, texts: Texts, *, return_info: Literal[True], **options: "Unpack[EncodeOptions]"
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode(
        self, texts: Texts, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, or any iterable of strings; a generator is read a window at a time.
            return_info: also return an `EncodeInfo`.
            **options: prompt_name, prompt, normalize_embeddings, truncate_dim, output_dtype, ranges,
                calibration_embeddings, long_text, chunk_overlap, batch_tokens, batch_size, convert_to_numpy,
                convert_to_tensor, show_progress_bar: see `EncodeOptions`.

        Returns:
            numpy, of output_dtype: [N, D], [D] for a single string, [0, D] for no texts; D is ceil(D / 8) in binary.
            With return_info, an `EncodeInfo` too.

        Raises:
            TypeError: a text that is no string; its index is named. In a list, before anything runs. An option that
                there is not.
            ValueError: an unknown prompt name, an option out of range, int8 or uint8 without calibration, or a text
                that is too long where long_text is "error"; its index is named.
        """
        chosen: EncodeOptions = complete("encode", options, ENCODE)
        if chosen["convert_to_tensor"] or not chosen["convert_to_numpy"]:
            raise ValueError("encode returns numpy arrays: leave convert_to_numpy True and convert_to_tensor False.")
        if chosen["batch_size"] is not None and whole_number("batch_size", chosen["batch_size"]) < 1:
            raise ValueError(f"batch_size {chosen['batch_size']} is not a positive number of texts.")
        single = isinstance(texts, str)
        texts = [texts] if isinstance(texts, str) else checked(texts)
        dim = self._truncate_dim(chosen["truncate_dim"])
        ranges = checked_ranges(chosen["output_dtype"], dim, chosen["ranges"], chosen["calibration_embeddings"])
        vectors, info = self._encode(texts, dim, chosen)
        vectors = quantize(vectors, chosen["output_dtype"], ranges)
        output = vectors[0] if single else vectors
        return (output, info) if return_info else output

    @overload
    def encode_query(
        self, texts: Texts, *, return_info: Literal[False] = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode_query(
        self, texts: Texts, *, return_info: Literal[True], **options: "Unpack[EncodeOptions]"
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode_query(
        self, texts: Texts, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """`encode` with the checkpoint's "query" prompt, where it has one and no other is given."""
        self._prefer_prompt(options, "query")
        return self.encode(texts, return_info=True, **options) if return_info else self.encode(texts, **options)

    @overload
    def encode_document(
        self, texts: Texts, *, return_info: Literal[False] = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode_document(
        self, texts: Texts, *, return_info: Literal[True], **options: "Unpack[EncodeOptions]"
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode_document(
        self, texts: Texts, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """`encode` with the checkpoint's "document", "passage" or "corpus" prompt, where it has one."""
        self._prefer_prompt(options, "document", "passage", "corpus")
        return self.encode(texts, return_info=True, **options) if return_info else self.encode(texts, **options)

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Float32:
        """The checkpoint's similarity (cosine unless it says otherwise) of each row of a [N, D] and b [M, D].

        Returns:
            numpy float32 [N, M]; larger is nearer. A single vector [D] counts as one row.

        Raises:
            ValueError: vectors of different lengths.
        """
        left, right = (np.atleast_2d(np.asarray(x, dtype=np.float32)) for x in (a, b))
        if left.shape[1] != right.shape[1]:
            raise ValueError(f"similarity needs vectors of one length, got {left.shape[1]} and {right.shape[1]}.")
        return SIMILARITY[self.checkpoint.similarity](left, right).astype(np.float32)

    def token_counts(self, texts: Texts) -> Int32:
        """The tokens of each text, special tokens included, before truncation: int32 [N]."""
        texts = [texts] if isinstance(texts, str) else checked(texts)
        counts = [self.tokenizer.counts(self.tokenizer.encode(window)) for window in windows(texts, len)]
        return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int32)

    def head(self, *, skip: int = 0, dim: int | None = None, unit: bool | None = None) -> Head:
        """The head that `encode` runs, ready for the engine: see `EmbeddingHead`. None is what the checkpoint says."""
        dim = self.dimension if dim is None else dim
        return self._head(skip, dim, self.checkpoint.normalize if unit is None else unit)

    def _encode(self, texts: Iterable[str], dim: int, options: EncodeOptions) -> tuple[Float32, EncodeInfo]:
        """The vectors [N, dim] of checked texts, and what is to be said of each."""
        long_text = options["long_text"]
        prefix = self._prompt(options["prompt_name"], options["prompt"])
        overlap = self._overlap(long_text, options["chunk_overlap"], prefix)
        skip = 0 if self.checkpoint.pooling.include_prompt else self.tokenizer.prompt_length(prefix)
        unit = bool(options["normalize_embeddings"]) or self.checkpoint.normalize
        head = self.head(skip=skip, dim=dim, unit=unit)
        budget = self.engine.budget(options["batch_tokens"])
        vectors, counts, chunks = [np.zeros((0, dim), dtype=np.float32)], [_NONE], [_NONE]

        def begun() -> Iterator[_Window]:
            done = 0
            for window in windows(texts, len):
                encodings = self.tokenizer.encode(window, prefix)
                found = self.tokenizer.counts(encodings)
                if long_text == "error":
                    self._check_lengths(found, done)
                done += len(window)
                tokens = partial(self.tokenizer.tokens, encodings, prefix, overlap)
                yield _Window(self.engine, head, tokens, budget, options["batch_size"])

        total = len(texts) if isinstance(texts, (list, tuple)) else None
        with (
            progress(options["show_progress_bar"], total) as advance,
            closing(begun_ahead(begun(), self.engine.ahead)) as works,
        ):
            for work in works:
                rows = work.vectors(dim, advance)
                tokens = work.tokens
                vectors.append(mean_of_chunks(rows, tokens.weights, tokens.chunks, unit))
                counts.append(tokens.counts)
                chunks.append(tokens.chunks)
        all_counts, all_chunks = np.concatenate(counts), np.concatenate(chunks)
        cut = (all_counts > self.max_seq_length) & (all_chunks == 1)
        if long_text == "truncate" and not self._said_cut:
            self._said_cut = warn_truncated(all_counts, self.max_seq_length)
        return np.concatenate(vectors), EncodeInfo(all_counts, cut, all_chunks)

    def _prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"prompt is a {type(prompt).__name__}, where a string is needed.")
            return prompt
        name = self.checkpoint.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.checkpoint.prompts:
            raise ValueError(
                f"prompt_name {name!r} is not among the model's prompts: {sorted(self.checkpoint.prompts) or 'none'}."
            )
        return self.checkpoint.prompts[name]

    def _prefer_prompt(self, options: EncodeOptions, *names: str) -> None:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.checkpoint.prompts), None)

    def _truncate_dim(self, truncate_dim: int | None) -> int:
        if truncate_dim is None:
            return self.dimension
        whole = self.checkpoint.dimension
        truncate_dim = whole_number("truncate_dim", truncate_dim)
        if not 1 <= truncate_dim <= whole:
            raise ValueError(f"truncate_dim {truncate_dim} is not within 1..{whole}, the model's dimension.")
        return truncate_dim

    def _overlap(self, long_text: str, chunk_overlap: int | None, prefix: str) -> int | None:
        """The overlap of chunks in tokens; None where texts are not split."""
        if long_text not in LONG_TEXTS:
            raise ValueError(f"long_text {long_text!r} is not one of {', '.join(LONG_TEXTS)}.")
        if long_text != "mean_of_chunks":
            return None
        room = self.tokenizer.room(prefix)
        overlap = max(room, 0) // 8 if chunk_overlap is None else whole_number("chunk_overlap", chunk_overlap)
        if not 0 <= overlap < room:
            raise ValueError(
                f"chunk_overlap {overlap} is not within 0..{room - 1}: a chunk has room for {room} tokens of a text."
            )
        return overlap

    def _check_lengths(self, counts: npt.NDArray[np.int32], first: int) -> None:
        if (counts > self.max_seq_length).any():
            index = int(np.argmax(counts > self.max_seq_length))
            raise ValueError(
                f"texts[{first + index}] has {counts[index]} tokens, and the model takes {self.max_seq_length}; "
                'cut it, or pass long_text="mean_of_chunks" or "truncate".'
            )


_NONE = np.zeros(0, dtype=np.int32)


class _Window:
    """The texts of one window, being computed.

    Attributes:
        tokens: of the texts; there once the first vector is.
    """

    tokens: Tokens

    def __init__(self, engine: Engine, head: Head, tokens: Any, budget: int, max_texts: int | None) -> None:
        self._tokens = tokens
        self._run: Run = engine.run(self._batches(engine, budget, max_texts), head)

    def _batches(self, engine: Engine, budget: int, max_texts: int | None) -> Iterator[Batch]:
        # Where the engine has a thread of its own, what takes Python's lock is done there: all cores can meanwhile
        # tokenize the next window.
        self.tokens = self._tokens()
        yield from engine.batches(self.tokens.ids, budget, max_texts)

    def vectors(self, dim: int, advance: Any) -> Float32:
        """A row for each list of ids, once all are computed; `advance` is told of the texts that are done."""
        vectors: Float32 | None = None
        split = False
        for batch, rows in self._run:
            if vectors is None:
                vectors = np.empty((len(self.tokens.ids), dim), dtype=np.float32)
                split = len(self.tokens.ids) > len(self.tokens.counts)
            vectors[batch.texts] = rows
            if not split:
                advance(len(batch.texts))
        assert vectors is not None  # a window has texts
        if split:
            advance(len(self.tokens.counts))
        return vectors

    def close(self) -> None:
        """Stop."""
        self._run.close()
