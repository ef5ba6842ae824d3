"""LayerNorm on CUDA: `layer_norm.cu`, which `embedding_norm` runs too."""

from collections.abc import Mapping
from functools import cache

import mlx.core as mx

from custom_kernels.arrays import MAX_WIDTH
from custom_kernels.cuda.heuristics import norm_rows
from custom_kernels.cuda.launch import launch, vector


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.cu` on x, or on x + residual."""
    rows = x.reshape(-1, x.shape[-1])
    inputs = [rows] if residual is None else [rows, residual.reshape(rows.shape)]
    return normalise(inputs, None, weight, bias, eps).reshape(x.shape)


def normalise(
    inputs: list[mx.array], ids: list[mx.array] | None, weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """One launch of `layer_norm.cu` on the sum of `inputs`, or of their rows `ids`; without a weight, only the sum."""
    first, width, count = inputs[0], inputs[0].shape[1], len(inputs)
    if width > MAX_WIDTH or count > 3 or any(x.dtype != first.dtype for x in inputs):
        raise NotImplementedError(f"The CUDA kernel adds up to 3 rows of one dtype, up to {MAX_WIDTH} wide.")
    total = first.shape[0] if ids is None else ids[0].shape[0]
    # A kernel has all its parameters in every variant; what a variant does not need, it never reads.
    weight_or_any = first if weight is None else weight
    bias_or_any = first if bias is None else bias
    ids_or_any = [first] * 3 if ids is None else ids + [ids[0]] * (3 - count)
    dtypes = (first.dtype, weight_or_any.dtype, bias_or_any.dtype)
    types, constants = _compiled_in(width, dtypes, count, ids is not None, weight is not None, bias is not None)
    rows, lanes = constants["ROWS"], constants["LANES"]
    return launch(
        "layer_norm",
        [*inputs, *[first] * (3 - count), *ids_or_any, weight_or_any, bias_or_any],
        [total, eps],
        (-(-total // rows), rows * lanes),
        (total, width),
        first.dtype,
        types,
        constants,
    )


@cache
def _compiled_in(
    width: int, dtypes: tuple[mx.Dtype, ...], count: int, lookup: bool, norm: bool, has_bias: bool
) -> tuple[Mapping[str, mx.Dtype], Mapping[str, int]]:
    """The types and constants of a variant. A LayerNorm by itself is over before much of Python is."""
    lanes, rows = norm_rows(width)
    constants = {
        "WIDTH": width,
        "VEC": vector(width, dtypes[0], lanes),
        "LANES": lanes,
        "ROWS": rows,
        "COUNT": count,
        "LOOKUP": lookup,
        "NORM": norm,
        "HAS_BIAS": has_bias,
    }
    return dict(zip("TWB", dtypes, strict=True)), constants
