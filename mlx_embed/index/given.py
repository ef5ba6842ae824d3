"""What a caller gives to an index, as the index takes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import numbers
from mlx_embed.index.segments import lengths_of
from mlx_embed.index.statement import Statement


def require_list(name: str, given: Any) -> None:
    """Raise TypeError for what would be taken apart into letters or keys."""
    if isinstance(given, (str, bytes, Mapping)):
        raise TypeError(f"{name} is a {type(given).__name__}, where a list of strings is needed.")


def vectors_of(given: Any, count: int, statement: Statement) -> npt.NDArray[np.float32]:
    """Vectors [count, D] as they are stored and asked for: of length 1, where the index compares by cosine.

    Raises:
        ValueError: another shape, or a value that is not finite.
        TypeError: no numbers.
    """
    vectors = np.array(numbers("vectors", given), dtype=np.float32, order="C")
    if vectors.shape != (count, statement.dimension):
        raise ValueError(f"vectors has the shape {vectors.shape}, where [{count}, {statement.dimension}] is needed.")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(f"vectors[{int(np.argmax(bad))}] has a value that is not finite.")
    if statement.similarity == "cosine":
        lengths = lengths_of(vectors)[:, None]
        # What has length 1 to the last bits is left as it is.
        scaled = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        vectors = np.where(np.abs(lengths - 1) < 1e-6, vectors, scaled)
    return np.ascontiguousarray(vectors)
