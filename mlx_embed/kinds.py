"""Which kind of model a folder is of, and how near two folders of one kind are to each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.checkpoint.multi_vector import read_multi_vector
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.errors import UnsupportedModelError
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.sparse_encoder import SparseEncoder

SPARSE, MULTI_VECTOR, DENSE = "SparseEncoder", "MultiVectorEncoder", "SentenceTransformer"


def kind_of(folder: Path) -> str:
    """SPARSE or MULTI_VECTOR where the folder says that it is that, and DENSE elsewhere, for rerankers too."""
    path = folder / "config_sentence_transformers.json"
    if present(path) and present(folder / "modules.json") and read_json(path).get("model_type") == SPARSE:
        return SPARSE
    try:
        read_multi_vector(folder)
    except UnsupportedModelError:
        return DENSE
    return MULTI_VECTOR


def least_cosine(kind: str, source: Path, other: Path, texts: Sequence[str]) -> float:
    """The lowest cosine between two folders' vectors of the texts, of each side that the model has, on the CPU.

    NaN where a vector is not finite.
    """
    found = (_vectors(kind, folder, texts) for folder in (source, other))
    cosines = [(_unit(before) * _unit(after)).sum(axis=1) for before, after in zip(*found, strict=True) if len(before)]
    return float(np.concatenate(cosines).min())


def _vectors(kind: str, folder: Path, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Rows to compare, of each side."""
    if kind == DENSE:
        model = EmbeddingModel.from_pretrained(folder, device="cpu")
        whole = model.encode(texts, normalize_embeddings=True, long_text="mean_of_chunks", show_progress_bar=False)
        return [whole]
    loaded: Any = (SparseEncoder if kind == SPARSE else MultiVectorEncoder).from_pretrained(folder, device="cpu")
    sides = [encode(texts, show_progress_bar=False) for encode in (loaded.encode_query, loaded.encode_document)]
    return [side.dense() if kind == SPARSE else MultiVectors.of(side).vectors for side in sides]


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of length 1; those of zeros are made equal to each other."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    zero = lengths[:, 0] == 0
    unit: npt.NDArray[np.float32] = (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    unit[zero, 0] = 1
    return unit
