"""Similarity of rows of two matrices, each to each or in pairs; larger is nearer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[Any]


def cosine(a: Vectors, b: Vectors) -> Vectors:
    """The cosine of the angle between them."""
    return dot(_unit(a), _unit(b))


def dot(a: Vectors, b: Vectors) -> Vectors:
    """The inner product."""
    return a @ b.T


def euclidean(a: Vectors, b: Vectors) -> Vectors:
    """The distance, negated; float64, in which the squares of near vectors do not cancel each other."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :] - 2 * dot(a, b)
    return -np.sqrt(np.maximum(squared, 0))


def manhattan(a: Vectors, b: Vectors) -> Vectors:
    """The sum of absolute differences, negated."""
    return -np.stack([np.abs(row - b).sum(1) for row in a]) if len(a) else np.zeros((0, len(b)), a.dtype)


SIMILARITY: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}


# Of row i of one to row i of the other: [N].
PAIRWISE: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(axis=-1),
    "dot": lambda a, b: (a * b).sum(axis=-1),
    "euclidean": lambda a, b: -np.linalg.norm(a - b, axis=-1),
    "manhattan": lambda a, b: -np.abs(a - b).sum(axis=-1),
}


def _unit(x: Vectors) -> Vectors:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
