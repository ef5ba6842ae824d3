"""Vectors in fewer bytes, bit for bit as sentence-transformers' `quantize_embeddings` makes them."""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import numbers

OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
OUTPUT_DTYPES: tuple[str, ...] = get_args(OutputDtype)


def ranges_of(embeddings: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The least and the largest value of each dimension of some typical vectors [M, D]: float32 [2, D].

    Raises:
        ValueError: fewer than two vectors, which say nothing of a range.
        TypeError: no floats: codes are not what other codes are made by.
    """
    given = numbers("calibration_embeddings", embeddings)
    if given.dtype.kind != "f":
        raise TypeError(f"calibration_embeddings has dtype {given.dtype}, where vectors of floats are needed.")
    vectors = given.astype(np.float32)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"calibration needs at least two vectors [M, D], got shape {vectors.shape}.")
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)])


def check_output_dtype(output_dtype: str) -> None:
    """Raise ValueError for an unknown one."""
    if output_dtype not in OUTPUT_DTYPES:
        raise ValueError(f"output_dtype {output_dtype!r} is not one of {', '.join(OUTPUT_DTYPES)}.")


def checked_ranges(
    output_dtype: str, dim: int, ranges: npt.ArrayLike | None, calibration_embeddings: npt.ArrayLike | None
) -> npt.NDArray[np.float32] | None:
    """The ranges [2, dim] that an output_dtype needs, from either argument; None where it needs none.

    Raises:
        ValueError: an unknown output_dtype; int8 or uint8 without ranges, or with those of other vectors, or with both
            arguments; another with ranges, which would be of no use.
        TypeError: what is no array of numbers, or calibration_embeddings that are no floats.
    """
    check_output_dtype(output_dtype)
    if output_dtype not in ("int8", "uint8"):
        for name, given in (("ranges", ranges), ("calibration_embeddings", calibration_embeddings)):
            if given is not None:
                raise ValueError(f'{name} are of output_dtype "int8" and "uint8", and it is {output_dtype!r}.')
        return None
    if ranges is not None and calibration_embeddings is not None:
        raise ValueError("ranges and calibration_embeddings say the same, each in its own way: pass one of them.")
    if calibration_embeddings is not None:
        found = ranges_of(calibration_embeddings)
    elif ranges is not None:
        found = numbers("ranges", ranges).astype(np.float32)
    else:
        raise ValueError(
            f"output_dtype {output_dtype!r} needs to know how large values get: pass calibration_embeddings, some "
            "hundred float32 vectors [M, D] of typical texts, or ranges [2, D]; the same for documents and queries."
        )
    if found.shape != (2, dim):
        given = f"ranges [2, {dim}], got {found.shape}"
        if ranges is None:
            given = f"calibration_embeddings [M, {dim}], made with the same truncate_dim, got [M, {found.shape[1]}]"
        raise ValueError(f"{output_dtype} vectors of {dim} dimensions need {given}.")
    if not (np.isfinite(found).all() and (found[0] <= found[1]).all()):
        raise ValueError("ranges need finite values, the least of each dimension in row 0 and the largest in row 1.")
    return found


def quantize(
    vectors: npt.NDArray[np.float32], output_dtype: str, ranges: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[Any]:
    """Vectors [N, D] in another dtype.

    "int8" and "uint8" cut each dimension's range [2, D] into 256 steps; "binary" and "ubinary" keep the signs, eight
    to a byte: [N, ceil(D / 8)], as int8 (offset by 128) and uint8.
    """
    if output_dtype in ("int8", "uint8") and ranges is not None:
        step = (ranges[1] - ranges[0]) / 255
        level = np.floor((vectors - ranges[0]) / np.where(step == 0, np.float32(1), step)).clip(0, 255)
        return level.astype(np.uint8) if output_dtype == "uint8" else (level - 128).astype(np.int8)
    if output_dtype in ("binary", "ubinary"):
        packed = np.packbits(vectors > 0, axis=-1)
        return packed if output_dtype == "ubinary" else (packed ^ 0x80).view(np.int8)
    return vectors.astype(output_dtype, copy=False)
