"""Vectors compared, and codes of them (`vector_dtypes.quantize`) as what they stand for.

Read as numbers, codes of strangers look alike: 0.8 where the vectors have a cosine of -0.2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.options import SimilarityOptions
from mlx_embed.similarity import PAIRWISE, SIMILARITY, Vectors
from mlx_embed.vector_dtypes import checked_ranges

Float32 = npt.NDArray[np.float32]

# How codes are stored.
_STORED: dict[str, type[np.integer[Any]]] = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
# Of vectors of 1 and -1, by how many of their dimensions differ, and how many they have.
OF_BITS: dict[str, Callable[[Vectors, int], Vectors]] = {
    "cosine": lambda differ, dim: 1 - 2 * differ / dim,
    "dot": lambda differ, dim: dim - 2 * differ,
    "euclidean": lambda differ, dim: -2 * np.sqrt(differ),
    "manhattan": lambda differ, dim: -2 * differ,
}


def similarity(name: str, a: npt.ArrayLike, b: npt.ArrayLike, dim: int, options: SimilarityOptions) -> Float32:
    """The similarity `name` of each row of a and each of b: float32 [N, M].

    Args:
        name: a key of SIMILARITY.
        a: [N, D], vectors or codes; [D] counts as one row.
        b: [M, D], likewise.
        dim: the dimensions of the vectors that codes are of.
        options: how codes were made.

    Raises:
        ValueError: vectors of different lengths, or codes without what tells how they were made.
    """
    left, right = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
    kind = options["output_dtype"]
    if kind in ("binary", "ubinary") and _is_code(left, kind) and _is_code(right, kind):
        differ = hamming(_checked(left, kind, dim), _checked(right, kind, dim))
        return OF_BITS[name](differ, dim).astype(np.float32)
    left, right = _vectors(left, dim, options), _vectors(right, dim, options)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"similarity needs vectors of one length, got {left.shape[1]} and {right.shape[1]}.")
    return SIMILARITY[name](left, right).astype(np.float32)


def similarity_pairwise(name: str, a: npt.ArrayLike, b: npt.ArrayLike, dim: int, options: SimilarityOptions) -> Float32:
    """The similarity `name` of row i of a and row i of b, both [N, D]: float32 [N]; of single vectors one number, [].

    Raises:
        ValueError: arrays of different shapes, or codes without what tells how they were made.
    """
    left, right = (_vectors(np.asarray(given), dim, options) for given in (a, b))
    if left.shape != right.shape:
        raise ValueError(f"similarity_pairwise needs as many vectors of one length: {left.shape}, {right.shape}.")
    return np.asarray(PAIRWISE[name](left, right), dtype=np.float32)


def _vectors(given: npt.NDArray[Any], dim: int, options: SimilarityOptions) -> Float32:
    """The vectors that an array holds, or that its codes stand for."""
    kind = options["output_dtype"]
    if not _is_code(given, kind):
        return given.astype(np.float32, copy=False)
    assert kind is not None  # codes have one
    ranges = checked_ranges(kind, dim, options["ranges"], options["calibration_embeddings"])
    return dequantize(_checked(given, kind, dim), kind, dim, ranges)


def _is_code(vectors: npt.NDArray[Any], output_dtype: str | None) -> bool:
    """Whether an array holds codes, as `quantize` makes them, rather than vectors of numbers.

    Raises:
        ValueError: bytes of which nobody says what they are.
    """
    if output_dtype in _STORED:
        return bool(np.issubdtype(vectors.dtype, np.integer))
    if vectors.dtype in (np.int8, np.uint8):
        raise ValueError(
            f"Vectors of dtype {vectors.dtype} are codes, which are no vectors until it is known how they were made: "
            'pass the output_dtype that encode was given ("int8", "uint8", "binary" or "ubinary"), with the same '
            "ranges or calibration_embeddings for the first two, and the same truncate_dim."
        )
    return False


def _checked(codes: npt.NDArray[Any], output_dtype: str, dim: int) -> npt.NDArray[Any]:
    """Codes of vectors of `dim` dimensions, as bytes of the dtype that `quantize` gives them.

    Raises:
        ValueError: of another width, or not of this dtype.
    """
    bits = output_dtype in ("binary", "ubinary")
    width = -(-dim // 8) if bits else dim
    if codes.shape[-1] != width:
        raise ValueError(
            f"{output_dtype} codes of {dim} dimensions are {width} wide, these {codes.shape[-1]}: pass the "
            "truncate_dim and the output_dtype that encode was given."
        )
    stored = codes.astype(_STORED[output_dtype])
    if (codes.dtype in (np.int8, np.uint8) and codes.dtype != stored.dtype) or (codes != stored).any():
        raise ValueError(f"{output_dtype} codes are of dtype {stored.dtype}; these are of {codes.dtype}.")
    return stored


def dequantize(
    codes: npt.NDArray[Any], output_dtype: str, dim: int, ranges: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """The vectors [N, dim] that checked codes stand for.

    A level of "int8" and "uint8" is the middle of its step of the range [2, D]; a bit of "binary" and "ubinary" is 1
    or -1.
    """
    if output_dtype in ("int8", "uint8") and ranges is not None:
        level = codes.astype(np.float32) + (128 if output_dtype == "int8" else 0)
        # Step 255 has no width: the largest value alone is in it.
        return ranges[0] + np.minimum(level + np.float32(0.5), 255) * ((ranges[1] - ranges[0]) / 255)
    bits = np.unpackbits(_unsigned(codes), axis=-1, count=dim)
    return bits.astype(np.float32) * 2 - 1


def hamming(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """In how many bits each row of packed bits [N, W] differs from each of [M, W]: [N, M]."""
    left, right = _unsigned(a), _unsigned(b)
    counts = [_ones(row ^ right).sum(axis=1, dtype=np.int64) for row in left]
    return np.stack(counts) if counts else np.zeros((0, len(right)), np.int64)


def _unsigned(packed: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return packed.view(np.uint8) ^ np.uint8(0x80 if packed.dtype == np.int8 else 0)


def _ones(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(packed)
    return _ONES[packed]


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
