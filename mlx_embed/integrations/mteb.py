"""mteb's protocols, by each kind of model: `mteb.evaluate(MLXEncoder(model), tasks)`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.integrations.sentence_transformers import SentenceTransformerView
from mlx_embed.sparse_encoder import SparseEncoder
from mlx_embed.sparse_vectors import SparseVectors

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise ImportError('This needs mteb: pip install ".[mteb]" in a clone of mlx-embed') from error


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
    """A sparse model, as vectors of its whole vocabulary: 120 kB a text of a BERT's, so for tasks of few texts.

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
    ) -> npt.NDArray[np.float32]:
        """Vectors [N, vocabulary] of the texts in a data loader's batches; `options` are batch_size and the like."""
        named = get_prompt_name(self.model_prompts, task_metadata, prompt_type)
        prompt = None if named is None else self.model_prompts[named]
        encode = {PromptType.query: self.model.encode_query, PromptType.document: self.model.encode_document}.get(
            prompt_type, self.model.encode
        )
        found = encode(_texts(inputs), prompt=prompt, **options)
        assert isinstance(found, SparseVectors)  # of a list of texts
        return found.dense()


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
