"""Which kind of model a folder is of, and how near two folders of one kind are to each other."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.checkpoint.listed import saved_settings
from mlx_embed.checkpoint.multi_vector import read_multi_vector
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.errors import UnsupportedModelError
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.sparse_encoder import SparseEncoder

Float32: TypeAlias = npt.NDArray[np.float32]
SPARSE, MULTI_VECTOR, DENSE = "SparseEncoder", "MultiVectorEncoder", "SentenceTransformer"


def kind_of(folder: Path) -> str:
    """SPARSE or MULTI_VECTOR where the folder says that it is that, and DENSE elsewhere, for rerankers too."""
    if saved_settings(folder).get("model_type") == SPARSE:
        return SPARSE
    try:
        read_multi_vector(folder)
    except UnsupportedModelError:
        return DENSE
    return MULTI_VECTOR


def least_cosine(
    kind: str, source: Path, other: Path, texts: Sequence[str], tasks: tuple[str | None, str | None] = (None, None)
) -> float:
    """The lowest cosine between two folders' vectors of the texts, of each side that the model has, on the CPU.

    NaN where a vector is not finite. `tasks` are those whose LoRAs give the vectors of one and of the other.
    """
    made: Any = {DENSE: EmbeddingModel, SPARSE: SparseEncoder, MULTI_VECTOR: MultiVectorEncoder}[kind]
    found = (
        rows(kind, made.from_pretrained(folder, device="cpu", dtype=dtype, task=chosen), texts)
        for folder, dtype, chosen in ((source, "float32", tasks[0]), (other, None, tasks[1]))
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was saved as a CrossEncoder")  # whose encoder is compared here
        before, after = found
    return float(np.concatenate([cosines(a, b) for a, b in zip(before, after, strict=True)]).min())


def rows(kind: str, model: Any, texts: Sequence[str]) -> list[Float32]:
    """A model's vectors of the texts, of each side that it has: [N, D], or of tokens [T, D].

    All weights, and each token's vector: which are the largest, or near each other, may turn on a rounding.
    """
    if kind == DENSE:
        whole = model.encode(texts, normalize_embeddings=True, long_text="mean_of_chunks", show_progress_bar=False)
        return [whole]
    how = {"max_active_dims": model.dimension} if kind == SPARSE else {"pool_factor": 1}
    sides = [encode(texts, show_progress_bar=False, **how) for encode in (model.encode_query, model.encode_document)]
    return [side.dense() if kind == SPARSE else MultiVectors.of(side).vectors for side in sides]


def cosines(a: Float32, b: Float32) -> Float32:
    """Of each row of a and the same row of b: [N]. Two rows of zeros are alike."""
    found: Float32 = (_unit(a) * _unit(b)).sum(axis=1)
    return found


def _unit(rows: Float32) -> Float32:
    """Rows of length 1; those of zeros are made equal to each other."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    zero = lengths[:, 0] == 0
    unit: Float32 = (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    unit[zero, 0] = 1
    return unit
