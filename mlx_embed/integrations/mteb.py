"""mteb's protocols, by each kind of model: `mteb.evaluate(MLXEncoder(model), tasks)`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.integrations.sentence_transformers import SentenceTransformerView
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.sparse_encoder import SparseEncoder
from mlx_embed.sparse_vectors import SparseVectors

try:
    from mteb._create_dataloaders import create_dataloader
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise ImportError('This needs mteb: pip install ".[mteb]" in a clone of mlx-embed') from error


# Documents whose vectors of tokens are there at once.
DOCUMENTS = 4096


class MLXEncoder(AbsEncoder):
    """An embedding model: queries and documents with its prompts, as mteb chooses them of a SentenceTransformer's.

    Attributes:
        model: a view of the model, which computes what sentence-transformers would.
        mteb_model_meta: under which mteb keeps the results.
    """

    def __init__(
        self, model: EmbeddingModel | str | Path, *, name: str | None = None, revision: str | None = None
    ) -> None:
        """Take a model, or the name of one to load.

        Args:
            model: either.
            name: "organisation/model", under which mteb keeps the results; the model's own where it is such a name.
            revision: likewise.

        Raises:
            MLXEmbedError: a model that cannot be loaded.
            ValueError: a name of another form.
        """
        loaded = model if isinstance(model, EmbeddingModel) else EmbeddingModel.from_pretrained(model)
        self.model = SentenceTransformerView(loaded)
        self.model_prompts = loaded.prompts
        self.mteb_model_meta = _meta(
            name or loaded.name,
            revision,
            similarity_fn_name=ScoringFunction(loaded.similarity_fn_name),
            embed_dim=loaded.dimension,
            max_tokens=loaded.max_seq_length,
        )

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> npt.NDArray[Any]:
        """Vectors [N, D] of the texts in a data loader's batches; `options` are batch_size and the like."""
        named = get_prompt_name(self.model_prompts, task_metadata, prompt_type)
        prompt = None if named is None else self.model_prompts[named]
        encode = {PromptType.query: self.model.encode_query, PromptType.document: self.model.encode_document}.get(
            prompt_type, self.model.encode
        )
        vectors: npt.NDArray[Any] = encode(_texts(inputs), prompt=prompt, **options)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's similarity: a torch tensor [N, M]."""
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's similarity in pairs: a torch tensor [N]."""
        return self.model.similarity_pairwise(embeddings1, embeddings2)


class MLXSparseEncoder(AbsEncoder):
    """A sparse model.

    A search of a corpus keeps its vectors sparse. All other tasks want numbers of the whole vocabulary, 120 kB a text
    of a BERT's.

    Attributes:
        model: the sparse model.
        mteb_model_meta: under which mteb keeps the results, and by which it computes similarities.
    """

    def __init__(
        self, model: SparseEncoder | str | Path, *, name: str | None = None, revision: str | None = None
    ) -> None:
        """Take a sparse model, or the name of one to load; `name` and `revision` as `MLXEncoder` has them."""
        self.model = model if isinstance(model, SparseEncoder) else SparseEncoder.from_pretrained(model)
        self.model_prompts = self.model.prompts
        self.mteb_model_meta = _meta(
            name or self.model.name,
            revision,
            model_type=["sparse"],
            similarity_fn_name=ScoringFunction(self.model.similarity_fn_name),
            embed_dim=self.model.dimension,
            max_tokens=self.model.max_seq_length,
        )

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> npt.NDArray[np.float32] | SparseVectors:
        """Vectors of the texts in a data loader's batches; `options` are batch_size and the like.

        They are [N, vocabulary], but SparseVectors where a corpus is searched, of which mteb asks nothing but their
        similarities.
        """
        named = get_prompt_name(self.model_prompts, task_metadata, prompt_type)
        prompt = None if named is None else self.model_prompts[named]
        encode = {PromptType.query: self.model.encode_query, PromptType.document: self.model.encode_document}.get(
            prompt_type, self.model.encode
        )
        found = encode(_texts(inputs), prompt=prompt, **options)
        assert isinstance(found, SparseVectors)  # of a list of texts
        searched = prompt_type is not None and task_metadata.type == "Retrieval"
        return found if searched else found.dense()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's similarity [N, M], of sparse vectors or of whole ones."""
        if isinstance(embeddings1, SparseVectors):
            return self.model.similarity(embeddings1, embeddings2)
        return super().similarity(embeddings1, embeddings2)


class MLXMultiVectorEncoder:
    """A model of a vector a token: searches, and ranks what another search has found, by its own similarity.

    mteb asks such a model to search, and never for vectors: its other tasks have no use for several a text.

    Attributes:
        model: the model.
        model_prompts: its prompts, of which mteb chooses by the task.
        mteb_model_meta: under which mteb keeps the results.
    """

    def __init__(
        self, model: MultiVectorEncoder | str | Path, *, name: str | None = None, revision: str | None = None
    ) -> None:
        """Take a model, or the name of one to load; `name` and `revision` as `MLXEncoder` has them."""
        self.model = model if isinstance(model, MultiVectorEncoder) else MultiVectorEncoder.from_pretrained(model)
        self.model_prompts = self.model.prompts
        self.mteb_model_meta = _meta(
            name or self.model.name,
            revision,
            model_type=["late-interaction"],
            similarity_fn_name=ScoringFunction.MAX_SIM,
            embed_dim=self.model.dimension,
            max_tokens=self.model.max_seq_length,
        )
        self._corpus: Any = None

    def index(self, corpus: Any, **_: Any) -> None:
        """Keep the documents, a datasets.Dataset, for the next search."""
        self._corpus = corpus

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The best documents of each query with their scores, of all, or of those that `top_ranked` has for it."""
        asked = self._encoded(queries, task_metadata, PromptType.query, encode_kwargs)
        names, documents = list(map(str, queries["id"])), list(map(str, self._corpus["id"]))
        found: dict[str, dict[str, float]] = {name: {} for name in names}
        if top_ranked is not None:
            wanted = {document for name in names for document in top_ranked.get(name, ())}
            places = [place for place, document in enumerate(documents) if document in wanted]
        else:
            places = list(range(len(documents)))
        for start in range(0, len(places), DOCUMENTS):
            some = places[start : start + DOCUMENTS]
            vectors = self._encoded(self._corpus.select(some), task_metadata, PromptType.document, encode_kwargs)
            for name, row in zip(names, self.model.similarity(asked, vectors), strict=True):
                scored = dict(zip((documents[place] for place in some), row.tolist(), strict=True))
                if top_ranked is not None:
                    scored = {document: scored[document] for document in top_ranked.get(name, ()) if document in scored}
                best = sorted({**found[name], **scored}.items(), key=lambda pair: -pair[1])
                found[name] = dict(best[:top_k])
        self._corpus = None
        return found

    def _encoded(
        self, rows: Any, task_metadata: Any, prompt_type: PromptType, options: Mapping[str, Any]
    ) -> MultiVectors:
        batches = create_dataloader(rows, task_metadata=task_metadata, prompt_type=prompt_type)
        named = get_prompt_name(self.model_prompts, task_metadata, prompt_type)
        prompt = None if named is None else self.model_prompts[named]
        encode = self.model.encode_query if prompt_type == PromptType.query else self.model.encode_document
        return MultiVectors.of(encode(_texts(batches), prompt=prompt, **options))


class MLXCrossEncoder:
    """A reranker.

    Attributes:
        model: the reranker.
        mteb_model_meta: under which mteb keeps the results.
    """

    def __init__(
        self, model: CrossEncoder | str | Path, *, name: str | None = None, revision: str | None = None
    ) -> None:
        """Take a reranker, or the name of one to load; `name` and `revision` as `MLXEncoder` has them."""
        self.model = model if isinstance(model, CrossEncoder) else CrossEncoder.from_pretrained(model)
        self.mteb_model_meta = _meta(
            name or self.model.name, revision, model_type=["cross-encoder"], max_tokens=self.model.max_seq_length
        )

    def predict(
        self,
        inputs1: Iterable[dict[str, Any]],
        inputs2: Iterable[dict[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> npt.NDArray[np.float32]:
        """Scores [N] of the queries in one data loader's batches with the documents in the other's."""
        return self.model.predict(list(zip(_texts(inputs1), _texts(inputs2), strict=True)), **options)


def _texts(batches: Iterable[dict[str, Any]]) -> list[str]:
    return [text for batch in batches for text in batch["text"]]


def _meta(name: str, revision: str | None, **fields: Any) -> ModelMeta:
    """A model's metadata; what has no organisation, as a folder, is of this package."""
    if Path(name).is_dir() or "/" not in name:
        name = f"mlx-embed/{Path(name).name}"
    return ModelMeta.create_empty(overwrites={"name": name, "revision": revision, **fields})
