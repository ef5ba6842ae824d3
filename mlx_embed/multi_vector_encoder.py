"""MultiVectorEncoder: texts to a vector for each token, compared by late interaction (ColBERT)."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.arguments import positive_number, require_string
from mlx_embed.checkpoint import Checkpoint, weights
from mlx_embed.checkpoint.modules import Module
from mlx_embed.checkpoint.multi_vector import SIMILARITIES, Clustering, MultiVector
from mlx_embed.encoding import by_windows
from mlx_embed.engine import Engine
from mlx_embed.engine.contract import Parameters
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError, UnsupportedModelError, warn
from mlx_embed.ids import Ids, ends
from mlx_embed.late_interaction import max_sim
from mlx_embed.loading import CutsTexts, Source, open_model, pickled, remember
from mlx_embed.migration import FromSentenceTransformers
from mlx_embed.multi_vectors import MultiVectors, clustered
from mlx_embed.options import MISSING, LoadOptions, checked_batch_size, chosen_prompt, complete, prefer_prompt
from mlx_embed.texts import check_iterable, checked
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.tokenizer.surrogates import well_formed

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Float32: TypeAlias = npt.NDArray[np.float32]
Task = Literal["query", "document"]


class MultiVectorOptions(TypedDict, total=False):
    """How to embed texts.

    Attributes:
        prompt_name: the checkpoint's prompt to put before each text.
        prompt: the text to put before each text, instead of a named one.
        pool_factor: of documents, keep one of so many vectors, each the average of some that are near each other;
            None is what the model does.
        batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes vectors.
        batch_size: no more texts than this in a batch either; there is no need to set it.
        show_progress_bar: show a bar of texts done. None shows it where mlx_embed logs at INFO.
    """

    prompt_name: str | None
    prompt: str | None
    pool_factor: float | None
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None


OPTIONS: MultiVectorOptions = {
    "prompt_name": None,
    "prompt": None,
    "pool_factor": None,
    "batch_tokens": None,
    "batch_size": None,
    "show_progress_bar": None,
}


# Of `rank`, whose texts have the prompts of queries and of documents.
RANK = {name: default for name, default in OPTIONS.items() if not name.startswith("prompt")}


@dataclass(frozen=True)
class TokenHead:
    """Hidden states to a vector a token: the checkpoint's modules on each, and its length; float32.

    Attributes:
        modules: the checkpoint's.
        unit: whether vectors are then scaled to length 1.
    """

    modules: tuple[Module, ...]
    unit: bool

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [T, D]."""
        vectors = ops.float32(hidden)
        for module, own in zip(self.modules, parameters, strict=True):
            vectors = module(vectors, own)
        return ops.normalize(vectors) if self.unit else vectors


class MultiVectorEncoder(CutsTexts, FromSentenceTransformers):
    """A model of late interaction: texts in, a vector for each token out. It may be used from any thread.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
        engine: which computes it, and has its weights.
        name: as the hub or the caller knows it.
        dimension: the length of a vector.
        prompts: texts to put in front, by name. This and the next two are the checkpoint's, and may be changed.
        default_prompt_name: the prompt of `encode` where it is given none.
        max_seq_length: tokens at which texts are cut for which the checkpoint has no number of their own.
        similarity_fn_name: what `similarity` computes: "maxsim", or "meanmaxsim", its share of a query's vector.
        task_prompts: names of the prompts of queries and of documents, the first that the model has.
    """

    _source: Source | None = None
    # sentence-transformers' models of this kind always have both, if empty ones: it never comes to other names.
    task_prompts: ClassVar = {"query": ("query",), "document": ("document",)}

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, engine: Engine, parameters: Parameters, *, name: str = ""
    ) -> None:
        """Take ready parts; use `from_pretrained` to make them from a checkpoint."""
        if checkpoint.multi_vector is None:
            raise UnsupportedModelError(f"{checkpoint.folder} was not opened as a model of a vector a token.")
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.engine = engine
        self.name = name or str(checkpoint.folder)
        self.dimension = checkpoint.dimension
        self.prompts = dict(checkpoint.prompts)
        self.default_prompt_name = checkpoint.default_prompt_name
        self.similarity_fn_name = checkpoint.multi_vector.similarity
        self._how: MultiVector = checkpoint.multi_vector
        self._head = engine.head(TokenHead(checkpoint.modules, checkpoint.normalize), parameters)
        self._added = _added_token(checkpoint, tokenizer)
        self._in_front = checkpoint.tokenizer_config.get("padding_side") == "left"
        self._skipped = _skipped_tokens(self._how, tokenizer)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: "Unpack[LoadOptions]") -> "MultiVectorEncoder":
        """Load a model that sentence-transformers' MultiVectorEncoder, PyLate or Stanford's ColBERT has saved.

        Args:
            name_or_path: a local folder or a hub repository id.
            **options: those of `EmbeddingModel.from_pretrained`.

        Raises:
            UnsupportedModelError: a model of another kind; and what `EmbeddingModel.from_pretrained` raises.
        """
        opened = open_model("from_pretrained", name_or_path, options, "MultiVectorEncoder")
        checkpoint = opened.checkpoint
        tokenizer = Tokenizer(checkpoint, opened.max_seq_length)
        engine = opened.load()
        parameters = worker.run(partial(weights.load_modules, checkpoint), opened.device)
        model = cls(checkpoint, tokenizer, engine, parameters, name=opened.name)
        remember(model, opened.source)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        settings = ("name", "max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name")
        return pickled(self, self._source, *settings)

    @property
    def query_length(self) -> int:
        """Tokens at which queries are cut."""
        return self.tokenizer.for_task("query").max_length

    @property
    def document_length(self) -> int:
        """Tokens at which documents are cut."""
        return self.tokenizer.for_task("document").max_length

    def __repr__(self) -> str:
        return (
            f"MultiVectorEncoder({self.name!r}, dimension={self.dimension}, query_length={self.query_length}, "
            f"document_length={self.document_length})"
        )

    def encode(
        self,
        texts: str | Iterable[str] = MISSING,
        task: Task | None = None,
        **options: "Unpack[MultiVectorOptions]",
    ) -> MultiVectors | Float32:
        """Embed texts, batched by length under a token budget, in the order given.

        Args:
            texts: one string, or any iterable of strings.
            task: "query" or "document"; None cuts at neither's length, and counts as "document" otherwise.
            **options: prompt_name, prompt, pool_factor, batch_tokens, batch_size, show_progress_bar: see
                `MultiVectorOptions`.

        Returns:
            MultiVectors, an array [L, D] a text; that array alone for a single string. Queries that all have the same
            number of vectors are an array [N, L, D].

        Raises:
            TypeError: a text that is no string; its index is named. An option that there is not.
            ValueError: another task, an unknown prompt name, or an option out of range.
        """
        if task not in (None, "query", "document"):
            raise ValueError(f'task {task!r} is neither "query" nor "document".')
        return self._encode("encode", texts, options, task)

    def encode_query(
        self, texts: str | Iterable[str] = MISSING, **options: "Unpack[MultiVectorOptions]"
    ) -> MultiVectors | Float32:
        """`encode` of queries: with the "query" prompt, and the tokens that the model adds to queries.

        Returns:
            float32 [N, L, D] where the model brings every query to one length L, MultiVectors elsewhere; [L, D] for a
            single string.
        """
        prefer_prompt(options, self.prompts, *self.task_prompts["query"])
        return self._encode("encode_query", texts, options, "query")

    def encode_document(
        self, texts: str | Iterable[str] = MISSING, **options: "Unpack[MultiVectorOptions]"
    ) -> MultiVectors | Float32:
        """`encode` of documents: with the "document" prompt, without the vectors of tokens that the model leaves out.

        Returns:
            MultiVectors; [L, D] for a single string.
        """
        prefer_prompt(options, self.prompts, *self.task_prompts["document"])
        return self._encode("encode_document", texts, options, "document")

    def similarity(self, queries: Any, documents: Any) -> Float32:
        """MaxSim of each query and document: the sum, over the query's vectors, of the largest inner product with one
        of the document's. "meanmaxsim" divides it by the number of the query's vectors.

        Args:
            queries: MultiVectors, arrays [L, D], a block [N, L, D], or the vectors [L, D] of one query.
            documents: likewise.

        Returns:
            float32 [N, M]; -inf for a document without vectors.

        Raises:
            ValueError: vectors of different lengths, or another similarity_fn_name.
        """
        if self.similarity_fn_name not in SIMILARITIES:
            raise ValueError(f"similarity_fn_name {self.similarity_fn_name!r} is not one of {', '.join(SIMILARITIES)}.")
        a, b = MultiVectors.of(queries), MultiVectors.of(documents)
        found = max_sim(self.engine, a, b)
        if self.similarity_fn_name == "meanmaxsim":
            found = (found / np.maximum(np.diff(a.offsets), 1)[:, None]).astype(np.float32)
        return found

    def rank(
        self,
        query: str,
        documents: Iterable[str] | MultiVectors,
        top_k: int | None = None,
        *,
        return_documents: bool = False,
        **options: "Unpack[MultiVectorOptions]",
    ) -> list[dict[str, Any]]:
        """The documents by their similarity to a query, best first: {"corpus_id": place, "score": float}.

        Args:
            query: a string.
            documents: any iterable of strings, or what `encode_document` has made of them.
            top_k: keep so many.
            return_documents: add "text", the document, where it is given.
            **options: those of `encode` but for the prompts, where documents are strings.

        Raises:
            TypeError: a query or document that is no string; documents that are a mapping, a table or a single string.
                An option that there is not.
            ValueError: a top_k below 1; return_documents or another option of vectors.
        """
        complete("rank", options, RANK)
        if top_k is not None:
            top_k = positive_number("top_k", top_k, "documents")
        require_string("query", query)
        listed: list[str] | None = None
        if not isinstance(documents, MultiVectors):
            check_iterable("rank", "an iterable of documents", documents)
            if isinstance(documents, str):
                raise TypeError("rank takes an iterable of documents, got a str: pass [document].")
            listed = list(documents)
        elif return_documents:
            raise ValueError("return_documents needs documents that are strings, and not vectors.")
        elif options:
            raise ValueError(f"{', '.join(options)}: only of documents that are strings, and not vectors.")
        vectors = documents if listed is None else self.encode_document(listed, **options)
        scores = self.similarity(self.encode_query(query), vectors)[0]
        ranked: list[dict[str, Any]] = [
            {"corpus_id": int(i), "score": float(scores[i])} for i in np.argsort(-scores, kind="stable")[:top_k]
        ]
        if return_documents and listed is not None:
            for entry in ranked:
                entry["text"] = listed[entry["corpus_id"]]
        return ranked

    def _encode(
        self, method: str, texts: str | Iterable[str], options: MultiVectorOptions, task: Task | None
    ) -> MultiVectors | Float32:
        chosen: MultiVectorOptions = complete(method, options, OPTIONS)
        prompt = chosen_prompt(self.prompts, self.default_prompt_name, chosen["prompt_name"], chosen["prompt"])
        clustering = _clustering(self._how.clustering, chosen["pool_factor"], task or "document")
        listed: Iterable[str] = [texts] if isinstance(texts, str) else checked(texts, method)
        tokenizer = self.tokenizer.for_task(task)
        size, budget = checked_batch_size(chosen["batch_size"]), self.engine.budget(chosen["batch_tokens"])
        found, counts, all_read = by_windows(
            listed,
            tokenizer,
            prompt,
            chosen["show_progress_bar"],
            lambda tokens, advance: self.computed(
                tokens.ids, task, budget, size, clustering=clustering, advance=advance
            ),
        )
        self._say_what_was_cut(counts, tokenizer.max_length, all_read)
        if isinstance(texts, str):
            return np.ascontiguousarray(found[0])
        whole = MultiVectors.of(found, self.dimension)
        expansion = self._how.expansion if task == "query" else None
        if expansion is not None and expansion.fixed and "query" not in self._how.skipped_of and not clustering:
            return whole.vectors.reshape(len(whole), expansion.length, self.dimension)
        return whole

    def computed(
        self,
        ids: Ids,
        task: Task | None,
        budget: int,
        max_texts: int | None = None,
        *,
        clustering: Sequence[Clustering] | None = None,
        advance: Callable[[int], Any] = lambda _: None,
    ) -> list[Float32]:
        """The vectors [L, D] of token ids, as the tokenizer for the task makes them.

        `clustering` None is what the checkpoint has.
        """
        expansion, unseen = self._how.expansion if task == "query" else None, None
        if clustering is None:
            clustering = _clustering(self._how.clustering, None, task or "document")
        if expansion is not None:
            ids, added = _lengthened(ids, expansion.length, self._added, self._in_front)
            unseen = None if expansion.attended else added
        found: list[Float32] = [None] * len(ids)  # type: ignore[list-item]
        batches = self.engine.batches(ids, budget, max_texts, unseen=unseen)
        with closing(self.engine.run(batches, self._head, of_tokens=True)) as run:
            for batch, rows in run:
                parts = np.split(rows, np.cumsum(ids.lengths[batch.texts])[:-1])
                for text, own in zip(batch.texts.tolist(), parts, strict=True):
                    own = own[self._counted(ids[text], task)]
                    for how in clustering:
                        own = clustered(own, how)
                    found[text] = own
                advance(len(batch.texts))
        return found

    def _counted(self, ids: npt.NDArray[np.int32], task: Task | None) -> npt.NDArray[np.bool_]:
        """Which of a text's tokens have a vector that counts."""
        kept = np.ones(len(ids), dtype=bool)
        if (task or "document") in self._how.skipped_of and len(self._skipped):
            kept &= ~np.isin(ids, self._skipped)
        if task != "query" and self._how.kept:
            kept &= np.isin(ids, self._how.kept)
        return kept


def _lengthened(ids: Ids, length: int, token: int, in_front: bool) -> tuple[Ids, Ids]:
    """Rows of at least `length` ids, `token` behind the shorter ones or `in_front`; and a 1 for each that was added."""
    lengths = np.maximum(ids.lengths, length)
    offsets = ends(lengths)
    flat = np.full(offsets[-1], token, dtype=np.int32)
    added = np.ones(offsets[-1], dtype=np.int32)
    first = offsets[:-1] + (lengths - ids.lengths if in_front else 0)
    own = np.arange(len(ids.flat)) + np.repeat(first - ids.offsets[:-1], ids.lengths)
    flat[own], added[own] = ids.flat, 0
    return Ids(flat, offsets), Ids(added, offsets)


def _added_token(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int:
    """The id of the token that queries are filled up with; -1 where they are not."""
    how, settings = checkpoint.multi_vector, checkpoint.tokenizer_config
    if how is None or how.expansion is None:
        return -1
    if settings.get("padding_side") == "left" and not (how.expansion.attended and how.expansion.fixed):
        raise UnsupportedModelError(
            f"{checkpoint.folder} adds tokens in front of queries, for its padding is on the left. mlx_embed does that "
            "only where the others attend to them and all queries are of one length."
        )
    if checkpoint.config["model_type"] == "deberta-v2" and not how.expansion.attended:
        raise UnsupportedModelError(
            f"{checkpoint.folder} adds tokens to queries to which the others do not attend; in DeBERTa these attend to "
            "padding, and have other vectors in every batch."
        )
    if how.expansion.length > checkpoint.encoder_config.max_tokens:
        raise CheckpointError(
            f"{checkpoint.folder} brings queries to {how.expansion.length} tokens, but the encoder takes "
            f"{checkpoint.encoder_config.max_tokens}."
        )
    names = [_text(settings.get("mask_token")), "[MASK]", "<mask>", _text(settings.get("eos_token"))]
    names = [how.expansion.token] if how.expansion.token else names
    found = next((i for name in names if name and (i := tokenizer.library.token_to_id(name)) is not None), None)
    if found is None:
        raise CheckpointError(
            f"{checkpoint.folder} adds tokens to queries, but its tokenizer has no mask token, and none at the end."
        )
    return found


def _text(token: Any) -> str:
    return str(token.get("content") if isinstance(token, dict) else token or "")


def _skipped_tokens(how: MultiVector, tokenizer: Tokenizer) -> npt.NDArray[np.int32]:
    """The ids of the tokens whose vectors do not count."""
    found = {word: tokenizer.library.token_to_id(well_formed(word)) for word in how.skipped}
    if lacking := [word for word, token in found.items() if token is None]:
        warn(f"The tokenizer has no tokens {' '.join(lacking)}, whose vectors were to be left out.")
    return np.array([token for token in found.values() if token is not None], dtype=np.int32)


def _clustering(own: Sequence[Clustering], factor: float | None, task: Task) -> list[Clustering]:
    """The checkpoint's, or by `factor` instead, for texts of a task."""
    if factor is None:
        return [how for how in own if task in how.tasks and (how.factor > 1 or how.unit)]
    if not isinstance(factor, (int, float)) or not factor >= 1:
        raise ValueError(f"pool_factor {factor!r} is no number of at least 1.")
    return [replace(Clustering(unit=True), factor=float(factor))] if task == "document" else []
