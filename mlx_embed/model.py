"""EmbeddingModel: the one place where tokenizer, batches, encoder and pooling meet."""

import itertools
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from custom_kernels import cpu
from custom_kernels.choice.switch import kernels_wanted, use_kernels
from custom_kernels.transfer import to_device, to_host
from mlx_embed import hub, weights
from mlx_embed.architectures import DECODERS, architecture
from mlx_embed.architectures.norm import LAYER_NORMS, LayerNormKind
from mlx_embed.architectures.ops import lay_out
from mlx_embed.architectures.ops import pack as pack_weights
from mlx_embed.batching import Batch, pack, pack_blocks
from mlx_embed.config import Checkpoint, read_checkpoint
from mlx_embed.device import describe, is_cpu, prepare_accelerator, resolve_device, resolve_dtype, worker
from mlx_embed.errors import CheckpointError
from mlx_embed.pooling import mean_of_chunks, normalize
from mlx_embed.quantization import OutputDtype, checked_ranges, quantize
from mlx_embed.similarity import SIMILARITY
from mlx_embed.tokenizer import Tokenizer, Tokens, warn_truncated

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Result = TypeVar("Result")
LongText = Literal["truncate", "mean_of_chunks", "error"]
LONG_TEXTS: tuple[str, ...] = get_args(LongText)
Forward = Callable[[Any, Any, int, int, int, bool], Any]

logger = logging.getLogger("mlx_embed")

# Tokens a batch: enough to fill the device, few enough for padded attention's scores to fit.
CPU_BATCH_TOKENS = 4096
GPU_BATCH_TOKENS = 65536
GPU_DECODER_BATCH_TOKENS = 16384

# Texts are read, tokenized and sorted by length so many at a time; the first window is small, so that the device
# starts early. While one window runs, the next is tokenized.
FIRST_WINDOW = 512
WINDOW = 2048
WINDOW_CHARACTERS = 2**23


@dataclass(frozen=True)
class EncodeInfo:
    """What `encode(..., return_info=True)` says of each text.

    Attributes:
        token_counts: int32 [N], tokens before truncation, special tokens and prompt included.
        truncated: bool [N], whether the text was cut to max_seq_length.
        chunks: int32 [N], into how many chunks the text was split; 1 unless long_text is "mean_of_chunks".
    """

    token_counts: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    chunks: npt.NDArray[np.int32]


@dataclass
class _Result:
    """The vectors and counts of the windows so far, in the texts' order."""

    vectors: list[Float32] = field(default_factory=list)
    counts: list[npt.NDArray[np.int32]] = field(default_factory=list)
    chunks: list[npt.NDArray[np.int32]] = field(default_factory=list)

    def add(self, window: "tuple[Float32, Int32]") -> None:
        """Take the vectors and numbers of chunks of the next window."""
        self.vectors.append(window[0])
        self.chunks.append(window[1])


class EmbeddingModel:
    """A text embedding model: texts in, numpy vectors out.

    Vectors do not depend on what else is in a batch, within 1e-5 in float32. A model may be used from any thread.

    Attributes:
        decodes: whether it is a decoder, of MLX's ops alone, on padded blocks.
        native: whether the native CPU kernels run it, at once and in the caller's thread; otherwise MLX does.
        compiled: whether MLX runs it as compiled graphs.
        kernels: False where it uses MLX's own ops alone; None follows the environment.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: nn.Module,
        parameters: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        device: mx.Device,
        compiled: bool,
        native: bool = False,
        kernels: bool | None = None,
        name: str = "",
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.encoder = encoder
        self.parameters = parameters
        self.tokenizer = tokenizer
        self.device = device
        self.decodes = checkpoint.config["model_type"] in DECODERS
        self.compiled = compiled
        self.native = native
        self.kernels = kernels
        self.name = name or str(checkpoint.folder)
        self._forward: Forward = mx.compile(self._embed) if compiled else self._embed

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = hub.DEFAULT_MODEL,
        *,
        dtype: str | mx.Dtype | None = None,
        device: str | mx.Device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        max_seq_length: int | None = None,
        kernels: bool | None = None,
        layer_norm: LayerNormKind | None = None,
        compile: bool | None = None,
    ) -> "EmbeddingModel":
        """Load a sentence-transformers, transformers or converted MLX checkpoint.

        Args:
            name_or_path: a local folder, a hub repository id, an `EmbeddingModelType` or its alias.
            dtype: "float32", "float16" or "bfloat16". None is float32 on the CPU and the checkpoint's own elsewhere.
            device: "cpu", "gpu", "metal" or "cuda". None is MLX's default device.
            revision: a branch, tag or commit of the hub repository.
            cache_dir: the hub's cache folder, if not the usual one.
            local_files_only: never download.
            max_seq_length: tokens at which texts are cut, instead of the checkpoint's number.
            kernels: False runs MLX's own ops alone. None uses this package's kernels, unless the environment has
                MLX_EMBED_KERNELS=reference.
            layer_norm: of MLX's graphs: "fast" (MLX's built-in), "custom" (this package's kernel where it is the
                faster one) or "reference" (composed ops). None is "custom" on an accelerator and "fast" on the CPU.
            compile: run the encoder through `mx.compile`. None does so on an accelerator. On the CPU, a value given
                here or for layer_norm takes MLX's ops instead of the native kernels.

        Raises:
            ModelNotFoundError: neither a folder nor to be had from the hub.
            CheckpointError: a file or tensor that is missing, broken or inconsistent.
            UnsupportedModelError: an architecture, module or activation that is not implemented.
            ValueError: an unknown device or dtype, or a max_seq_length that the model cannot have.
        """
        if layer_norm is not None and layer_norm not in LAYER_NORMS:
            raise ValueError(f"layer_norm {layer_norm!r} is not one of {', '.join(LAYER_NORMS)}.")
        chosen = resolve_device(device)
        computed = resolve_dtype(dtype, chosen)
        wanted = kernels_wanted() if kernels is None else kernels
        if not is_cpu(chosen):
            prepare_accelerator()
        folder = hub.resolve(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        checkpoint = read_checkpoint(folder, hub.repository_id(name_or_path))
        config = architecture(checkpoint.config).Config.from_dict(checkpoint.config)
        native = (
            is_cpu(chosen)
            and wanted
            and computed == mx.float32
            and compile is None
            and layer_norm is None
            and checkpoint.config["model_type"] not in DECODERS
            and _native_kernels()
        )
        tokenizer = Tokenizer(checkpoint, _max_seq_length(max_seq_length, checkpoint, config.max_tokens))
        if tokenizer.max_id() >= config.vocab_size:
            raise CheckpointError(
                f"{checkpoint.transformer / 'tokenizer.json'} has token ids up to {tokenizer.max_id()}, but "
                f"config.json gives the model {config.vocab_size} embeddings; they are of different checkpoints."
            )

        def load() -> tuple[nn.Module, list[dict[str, Any]]]:
            with mx.stream(chosen):
                fastest: LayerNormKind = "custom" if wanted and not is_cpu(chosen) else "fast"
                encoder = weights.load_encoder(checkpoint, computed, layer_norm or fastest)
                parameters = weights.load_modules(checkpoint)
                if wanted and not is_cpu(chosen) and checkpoint.config["model_type"] not in DECODERS:
                    lay_out(encoder)
                if not native:
                    return encoder, parameters
                pack_weights(encoder)
                return encoder, [{name: np.array(x) for name, x in module.items()} for module in parameters]

        encoder, parameters = worker.run(load)
        return cls(
            checkpoint,
            encoder,
            parameters,
            tokenizer,
            device=chosen,
            compiled=not is_cpu(chosen) if compile is None else compile,
            native=native,
            kernels=kernels,
            name=hub.repository_id(name_or_path),
        )

    @property
    def dimension(self) -> int:
        """The length of a vector, where `encode` is not told to cut it."""
        return self.checkpoint.truncate_dim or self.checkpoint.dimension

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which texts are cut, special tokens included."""
        return self.tokenizer.max_length

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype that the encoder computes in."""
        if self.native:
            return mx.float32
        dtypes = [array.dtype for array in dict(tree_flatten(self.encoder.parameters())).values()]
        return next(dtype for dtype in dtypes if mx.issubdtype(dtype, mx.floating))

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}, dimension={self.dimension}, max_seq_length={self.max_seq_length}, "
            f"dtype={str(self.dtype).removeprefix('mlx.core.')}, device={describe(self.device)!r})"
        )

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        output_dtype: OutputDtype = "float32",
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
        long_text: LongText = "truncate",
        chunk_overlap: int | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        show_progress_bar: bool | None = None,
        return_info: Literal[False] = False,
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        output_dtype: OutputDtype = "float32",
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
        long_text: LongText = "truncate",
        chunk_overlap: int | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        show_progress_bar: bool | None = None,
        return_info: Literal[True],
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        output_dtype: OutputDtype = "float32",
        ranges: npt.ArrayLike | None = None,
        calibration_embeddings: npt.ArrayLike | None = None,
        long_text: LongText = "truncate",
        chunk_overlap: int | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        show_progress_bar: bool | None = None,
        return_info: bool = False,
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, or any iterable of strings; a generator is read a window at a time.
            prompt_name: the checkpoint's prompt to put before each text.
            prompt: the text to put before each text, instead of a named one.
            normalize_embeddings: True scales vectors to length 1; None and False leave that to the checkpoint.
            truncate_dim: keep the first so many dimensions (Matryoshka), before any normalisation.
            output_dtype: "float32", "float16"; "int8" or "uint8", each dimension's range cut into 256 steps; "binary"
                or "ubinary", the signs, eight to a byte. The bytes of sentence-transformers' `quantize_embeddings`.
            ranges: [2, D], for "int8" and "uint8": the least and the largest value of each dimension.
            calibration_embeddings: [M, D] float32 vectors of typical texts, to take the ranges from instead.
            long_text: what becomes of a text beyond max_seq_length: "truncate" embeds its beginning; "mean_of_chunks"
                all of it, by the mean of its chunks' vectors, weighted by their tokens, and scaled to length 1 where
                vectors are; "error" raises ValueError.
            chunk_overlap: the tokens that a chunk shares with the one before. None is an eighth of what fits into one.
            batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes vectors.
            batch_size: no more texts than this in a batch either; there is no need to set it.
            convert_to_numpy: True; there is nothing else, and the argument is there for code written for
                sentence-transformers.
            convert_to_tensor: False, likewise.
            show_progress_bar: show a bar of texts done. None shows it where mlx_embed logs at INFO.
            return_info: also return an `EncodeInfo`.

        Returns:
            numpy, of output_dtype: [N, D], [D] for a single string, [0, D] for no texts; D is ceil(D / 8) in binary.

        Raises:
            TypeError: a text that is no string; its index is named. In a list, before anything runs.
            ValueError: an unknown prompt name, an option out of range, int8 or uint8 without calibration, or a text
                that is too long where long_text is "error"; its index is named.
        """
        if convert_to_tensor or not convert_to_numpy:
            raise ValueError("encode returns numpy arrays: leave convert_to_numpy True and convert_to_tensor False.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is not a positive number of texts.")
        single = isinstance(texts, str)
        texts = [texts] if isinstance(texts, str) else _checked(texts)
        prefix = self._prompt(prompt_name, prompt)
        dim = self._truncate_dim(truncate_dim)
        found_ranges = checked_ranges(output_dtype, dim, ranges, calibration_embeddings)
        overlap = self._overlap(long_text, chunk_overlap, prefix)
        budget = self.budget(batch_tokens)
        skip = 0 if self.checkpoint.pooling.include_prompt else self.tokenizer.prompt_length(prefix)
        unit = bool(normalize_embeddings) or self.checkpoint.normalize
        total = len(texts) if isinstance(texts, (list, tuple)) else None
        result = _Result()
        with progress(show_progress_bar, total) as advance:
            pending: list[Callable[[], tuple[Float32, Int32]]] = []
            stop = threading.Event()
            try:
                for window in _windows(texts):
                    encodings = self.tokenizer.encode(window, prefix)
                    counts = self.tokenizer.counts(encodings)
                    if long_text == "error":
                        self._check_lengths(counts, sum(map(len, result.counts)))
                    elif long_text == "truncate":
                        warn_truncated(counts, self.max_seq_length)
                    # What takes Python's lock is the worker's, so that all cores can tokenize the next window.
                    tokens = partial(self.tokenizer.tokens, encodings, prefix, overlap)
                    work = partial(self._run, tokens, budget, batch_size, skip, dim, unit, stop, advance)
                    pending.append(self.start(work))
                    result.counts.append(counts)
                    if len(pending) > 1:
                        result.add(pending.pop(0)())
                for finish in pending:
                    result.add(finish())
            except BaseException:
                stop.set()
                raise
        vectors = np.concatenate(result.vectors) if result.vectors else np.zeros((0, dim), dtype=np.float32)
        vectors = quantize(vectors, output_dtype, found_ranges)
        output = vectors[0] if single else vectors
        if not return_info:
            return output
        none = np.zeros(0, dtype=np.int32)
        counts, chunks = (np.concatenate(x) if x else none for x in (result.counts, result.chunks))
        return output, EncodeInfo(counts, (counts > self.max_seq_length) & (chunks == 1), chunks)

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the checkpoint's "query" prompt, where it has one and no other is given."""
        return self.encode(texts, **self._with_prompt(options, ("query",)))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the checkpoint's "document", "passage" or "corpus" prompt, where it has one."""
        return self.encode(texts, **self._with_prompt(options, ("document", "passage", "corpus")))

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Float32:
        """The checkpoint's similarity (cosine unless it says otherwise) of each row of a [N, D] and b [M, D].

        Returns:
            numpy float32 [N, M]; larger is nearer. A single vector [D] counts as one row.
        """
        left, right = (np.atleast_2d(np.asarray(x, dtype=np.float32)) for x in (a, b))
        if left.shape[1] != right.shape[1]:
            raise ValueError(f"similarity needs vectors of one length, got {left.shape[1]} and {right.shape[1]}.")
        return SIMILARITY[self.checkpoint.similarity](left, right).astype(np.float32)

    def token_counts(self, texts: str | Iterable[str]) -> npt.NDArray[np.int32]:
        """The tokens of each text, special tokens included, before truncation: int32 [N]."""
        texts = [texts] if isinstance(texts, str) else _checked(texts)
        counts = [self.tokenizer.counts(self.tokenizer.encode(window)) for window in _windows(texts)]
        return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int32)

    def start(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin `work`; what comes back waits for its result. Native kernels need no thread of their own."""
        if not self.native:
            return worker.submit(work).result
        result = work()
        return lambda: result

    def batches(self, ids: Sequence[Sequence[int]], batch_tokens: int, max_texts: int | None = None) -> Iterator[Batch]:
        """Token ids as the batches that this model runs on, of at most so many tokens and texts."""
        if self.decodes:
            return pack_blocks(ids, batch_tokens, bucketed=self.compiled, max_texts=max_texts)
        blocks = self.checkpoint.pooling.padded
        padded = not self.native or blocks
        # There attention is packed, unless its kernel turns out not to work.
        wanted = kernels_wanted() if self.kernels is None else self.kernels
        ragged = wanted and not blocks and not is_cpu(self.device) and mx.cuda.is_available()
        return pack(ids, batch_tokens, bucketed=self.compiled, padded=padded, ragged=ragged, max_texts=max_texts)

    def _run(
        self,
        tokens_of: Callable[[], Tokens],
        budget: int,
        batch_size: int | None,
        skip: int,
        dim: int,
        unit: bool,
        stop: threading.Event,
        advance: Callable[[int], Any],
    ) -> tuple[Float32, Int32]:
        """The vectors of one window's texts, and into how many chunks each was split."""
        tokens = tokens_of()
        batches = self.batches(tokens.ids, budget, batch_size)
        vectors = np.empty((len(tokens.ids), dim), dtype=np.float32)
        split = len(tokens.ids) > len(tokens.counts)

        def read(batch: Batch, out: Any) -> None:
            vectors[batch.texts] = out[:: batch.stride][: len(batch.texts)]
            if not split:
                advance(len(batch.texts))

        self.run(batches, lambda batch: self.forward(batch, skip, dim, unit), read, stop)
        if split:
            advance(len(tokens.counts))
        return mean_of_chunks(vectors, tokens.weights, tokens.chunks, unit), tokens.chunks

    def run(
        self,
        batches: Iterable[Batch],
        forward: Callable[[Batch], Any],
        read: Callable[[Batch, Float32], None],
        stop: threading.Event,
    ) -> None:
        """Compute each batch and read it. On the worker, one is read back while the next one runs."""
        if self.native:
            for batch in batches:
                read(batch, forward(batch))
            return
        running: tuple[Batch, Callable[[], Float32]] | None = None
        with mx.stream(self.device):
            for batch in batches:
                if stop.is_set():
                    break
                with use_kernels(kernels_wanted() if self.kernels is None else self.kernels):
                    wait = to_host(forward(batch))
                if running is not None:
                    read(running[0], running[1]())
                running = (batch, wait)
            if running is not None:
                read(running[0], running[1]())

    def forward(self, batch: Batch, skip: int = 0, dim: int | None = None, unit: bool = True) -> Any:
        """The vectors [n, dim] of one batch, fillers included.

        A numpy array where the model is native, else a lazy MLX array, for use on the worker thread only.
        """
        arrays: Sequence[Any] = (batch.input_ids, batch.cu_seqlens)
        with use_kernels(kernels_wanted() if self.kernels is None else self.kernels):
            if not self.native:
                arrays = to_device(*arrays)
            return self._forward(arrays[0], arrays[1], batch.max_seqlen, skip, dim or self.dimension, unit)

    def _embed(self, input_ids: Any, cu_seqlens: Any, max_seqlen: int, skip: int, dim: int, unit: bool) -> Any:
        """Ids to vectors: encoder, pooling, modules, Matryoshka truncation, normalisation; float32 at the end."""
        hidden = self.encoder(input_ids, cu_seqlens, max_seqlen)
        vectors = self.checkpoint.pooling(hidden, cu_seqlens, max_seqlen, skip)
        for module, parameters in zip(self.checkpoint.modules, self.parameters, strict=True):
            vectors = module(vectors, parameters)
        return normalize(vectors[:, :dim]) if unit else vectors[:, :dim]

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

    def _with_prompt(self, options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.checkpoint.prompts), None)
        return options

    def _truncate_dim(self, truncate_dim: int | None) -> int:
        if truncate_dim is None:
            return self.dimension
        whole = self.checkpoint.dimension
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
        overlap = max(room, 0) // 8 if chunk_overlap is None else chunk_overlap
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

    def budget(self, batch_tokens: int | None) -> int:
        """The tokens of a batch: those asked for, or what suits the device."""
        if batch_tokens is None:
            if is_cpu(self.device):
                return CPU_BATCH_TOKENS
            return GPU_DECODER_BATCH_TOKENS if self.decodes else GPU_BATCH_TOKENS
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens {batch_tokens} is not a positive number of tokens.")
        return batch_tokens


@cache
def _native_kernels() -> bool:
    """Whether the native CPU kernels are here; where they are not, says so once."""
    reason = cpu.why_unavailable()
    if reason:
        warnings.warn(f"{reason} Until then models run on MLX's own CPU ops, tens of times slower.", stacklevel=4)
    return not reason


def _max_seq_length(wanted: int | None, checkpoint: Checkpoint, limit: int) -> int:
    if wanted is None:
        return min(checkpoint.max_seq_length or limit, limit)
    if not 1 <= wanted <= limit:
        raise ValueError(f"max_seq_length {wanted} is not within 1..{limit}, what the model's positions allow.")
    return wanted


def _checked(texts: Iterable[str]) -> Iterable[str]:
    """The texts, a list or tuple checked at once, another iterable as it is read."""
    if isinstance(texts, (bytes, bytearray)) or not hasattr(texts, "__iter__"):
        raise TypeError(f"encode takes a string or an iterable of strings, got a {type(texts).__name__}.")
    if isinstance(texts, (list, tuple)):
        for index, text in enumerate(texts):
            _check_text(index, text)
        return texts
    return _checking(texts)


def _checking(texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        _check_text(index, text)
        yield text


def _check_text(index: int, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"texts[{index}] is a {type(text).__name__}, where a string is needed.")


def _windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut an iterable into lists of at most WINDOW texts, or WINDOW_CHARACTERS characters."""
    stream = iter(texts)
    size = FIRST_WINDOW
    while window := list(itertools.islice(stream, 1)):
        characters = len(window[0])
        while len(window) < size and characters < WINDOW_CHARACTERS:
            text = next(stream, None)
            if text is None:
                break
            window.append(text)
            characters += len(text)
        yield window
        size = WINDOW


@contextmanager
def progress(show: bool | None, total: int | None) -> Iterator[Callable[[int], Any]]:
    """A tqdm bar over texts, or nothing; gives the function that advances it."""
    if not (logger.isEnabledFor(logging.INFO) if show is None else show):
        yield lambda done: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="text", desc="Encoding") as bar:
        yield bar.update
