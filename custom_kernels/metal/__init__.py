"""Launches of the Metal kernels, one function an op, with the op's own signature."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import mlx.core as mx

from custom_kernels.backends import kernel_source

MAX_HEAD_DIM = 256
THREADGROUP_MEMORY = 32768  # bytes, the least that a device with simdgroup matrices has


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.metal`: a threadgroup a row, at most 512 threads."""
    width = x.shape[-1]
    reads, threads = _row_threads(width)
    rows = x.reshape(-1, width)
    (out,) = _kernel("layer_norm", "x", "residual", "weight", "bias", "eps")(
        # Without a residual the kernel still has the parameter, and never reads it.
        inputs=[
            rows,
            rows if residual is None else residual.reshape(rows.shape),
            weight,
            mx.zeros_like(weight) if bias is None else bias,
            mx.array([eps], dtype=mx.float32),
        ],
        template=[
            ("T", x.dtype),
            ("WIDTH", width),
            ("READS", reads),
            ("HAS_RESIDUAL", residual is not None),
        ],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)


def embedding_norm(
    lookups: Sequence[tuple[mx.array, mx.array]], weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """One launch of `embedding_norm.metal`: a threadgroup a token, at most 512 threads."""
    table, ids = lookups[0]
    width = table.shape[1]
    reads, threads = _row_threads(width)
    # What is absent is passed as something else of the same kind, and never read.
    padded = [*lookups, lookups[0], lookups[0]][:3]
    weight_or_row = mx.zeros((width,), dtype=table.dtype) if weight is None else weight
    pairs = ("table0", "ids0", "table1", "ids1", "table2", "ids2")
    (out,) = _kernel("embedding_norm", *pairs, "weight", "bias", "eps")(
        inputs=[
            *(array for pair in padded for array in pair),
            weight_or_row,
            mx.zeros_like(weight_or_row) if bias is None else bias,
            mx.array([eps], dtype=mx.float32),
        ],
        template=[
            ("T", table.dtype),
            ("WIDTH", width),
            ("READS", reads),
            ("LOOKUPS", len(lookups)),
            ("HAS_NORM", weight is not None),
        ],
        grid=(ids.size * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(ids.size, width)],
        output_dtypes=[table.dtype],
        stream=mx.gpu,
    )
    return out


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
) -> mx.array:
    """One launch of `attention.metal`: a threadgroup for each head and 32 queries (16, if all sequences are short).

    Raises:
        NotImplementedError: heads wider than 256, which threadgroup memory and registers cannot hold.
    """
    total, hidden = qkv.shape[0], qkv.shape[1] // 3
    head_dim = hidden // num_heads
    if head_dim > MAX_HEAD_DIM:
        raise NotImplementedError(f"The Metal attention kernel takes heads up to {MAX_HEAD_DIM} wide, got {head_dim}.")
    simdgroups = 2 if max_seqlen <= 16 else 4
    row = _round_up(head_dim, 8) * qkv.dtype.size + 16
    keys = next(keys for keys in (32, 16, 8) if 2 * keys * row <= THREADGROUP_MEMORY)
    blocks = total // (8 * simdgroups) + cu_seqlens.size - 1
    (out,) = _kernel("attention", "qkv", "cu_seqlens", "bias", "scale", header="#include <metal_simdgroup_matrix>\n")(
        inputs=[
            qkv,
            cu_seqlens,
            mx.zeros((1, 1, 1), dtype=qkv.dtype) if bias is None else bias,
            mx.array([scale], dtype=mx.float32),
        ],
        template=[
            ("T", qkv.dtype),
            ("DIM", head_dim),
            ("SIMDGROUPS", simdgroups),
            ("KEYS", keys),
            ("HAS_BIAS", bias is not None),
            ("WINDOW", -1 if window is None else min(window, 2**30)),
        ],
        grid=(32 * simdgroups, num_heads, blocks),
        threadgroup=(32 * simdgroups, 1, 1),
        output_shapes=[(total, hidden)],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out


def position_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """One launch of `position_ids.metal`: a thread a token."""
    (out,) = _kernel("position_ids", "cu_seqlens", "n")(
        inputs=[cu_seqlens, mx.array([cu_seqlens.size - 1], dtype=mx.int32)],
        grid=(total, 1, 1),
        threadgroup=(min(total, 256), 1, 1),
        output_shapes=[(total,)],
        output_dtypes=[mx.int32],
        stream=mx.gpu,
    )
    return out


def rope(qkv: mx.array, positions: mx.array, cos: mx.array, sin: mx.array, num_heads: int) -> mx.array:
    """One launch of `rope.metal`: a thread for each pair of elements."""
    half = cos.shape[1]
    pairs = 3 * num_heads * half
    (out,) = _kernel("rope", "qkv", "positions", "cosines", "sines")(
        inputs=[qkv, positions, cos, sin],
        template=[("T", qkv.dtype), ("HEADS", num_heads), ("HALF", half)],
        grid=(pairs, qkv.shape[0], 1),
        threadgroup=(min(pairs, 256), 1, 1),
        output_shapes=[qkv.shape],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """One launch of `mean_pool.metal`: a threadgroup of 512 threads a sequence."""
    n, width = cu_seqlens.size - 1, hidden.shape[1]
    across, down = 128, 4
    (out,) = _kernel("mean_pool", "hidden", "cu_seqlens", "skip")(
        inputs=[hidden, cu_seqlens, mx.array([skip], dtype=mx.int32)],
        template=[("WIDTH", width), ("ACROSS", across), ("DOWN", down), ("NORMALIZE", normalize)],
        grid=(n * across * down, 1, 1),
        threadgroup=(across * down, 1, 1),
        output_shapes=[(n, width)],
        output_dtypes=[mx.float32],
        stream=mx.gpu,
    )
    return out


@cache
def _kernel(name: str, *input_names: str, header: str = "") -> Any:
    return mx.fast.metal_kernel(
        name=name,
        input_names=list(input_names),
        output_names=["out"],
        source=kernel_source("metal", name),
        header=header,
    )


def _row_threads(width: int) -> tuple[int, int]:
    """Elements a thread keeps and threads a row, for rows up to 8192 wide."""
    reads = 4 if width <= 2048 else 16
    return reads, _round_up(-(-width // reads), 32)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
