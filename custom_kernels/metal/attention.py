"""Packed attention on Metal."""

import math
from functools import partial

import mlx.core as mx

from custom_kernels.metal.launch import MATRICES, RUNS, kernel, round_up
from custom_kernels.metal.rope import rope
from custom_kernels.parameters import Rotation

MAX_HEAD_DIM = 256
# Numbers of 4 bytes that a thread may keep in matrices: of 128 registers, as public tables of Apple's GPUs have it,
# some are for all else, and what finds no room goes to memory.
MATRIX_REGISTERS = 104
SIMDGROUP = 32  # threads
THREADGROUP_MEMORY = 32768  # bytes, the least that a device with simdgroup matrices has


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    rotation: Rotation | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
    causal: bool = False,
    kv_heads: int | None = None,
    rotates: bool = False,
) -> mx.array:
    """One launch of `attention.metal`: a threadgroup for each head and up to 64 queries.

    A rotation is a launch of `rope.metal` before it, or if it `rotates` a part of it: then each threadgroup rotates all
    keys that it loads.

    Raises:
        NotImplementedError: heads wider than 256, which threadgroup memory and registers cannot hold; where it rotates,
            no rotation, or norms of heads that the threads of a simdgroup do not share out evenly.
    """
    kv_heads = num_heads if kv_heads is None else kv_heads
    total, head_dim = qkv.shape[0], qkv.shape[1] // (num_heads + 2 * kv_heads)
    if head_dim > MAX_HEAD_DIM:
        raise NotImplementedError(f"The Metal attention kernel takes heads up to {MAX_HEAD_DIM} wide, got {head_dim}.")
    run = math.gcd(head_dim // 2 if rotates else head_dim, 16 // qkv.dtype.size)
    if rotates:
        _check_rotates(rotation, head_dim, run)
    elif rotation is not None:
        qkv, rotation = rope(qkv, *rotation[:3], num_heads, kv_heads, rotation.norms), None
    norms = None if rotation is None else rotation.norms
    rows = 2 if _registers(head_dim, qkv.dtype, 2) <= MATRIX_REGISTERS else 1
    simdgroups = 4 if max_seqlen > 32 else min(4, (2 if max_seqlen <= 16 else 4) // rows)
    row = round_up(head_dim, 8) * qkv.dtype.size + 16
    most = 16 if max_seqlen <= 16 else 32
    keys = next(keys for keys in (32, 16, 8) if keys <= most and 2 * keys * row <= THREADGROUP_MEMORY)
    blocks = total // (8 * rows * simdgroups) + cu_seqlens.size - 1
    # What there is not the kernel still has as a parameter, and never reads.
    inputs = {
        "qkv": qkv,
        "cu_seqlens": cu_seqlens,
        "bias": qkv if bias is None else bias,
        "scale": mx.array([scale], dtype=mx.float32),
        "cosines": qkv if rotation is None else rotation.cos,
        "sines": qkv if rotation is None else rotation.sin,
        "query_norm": qkv if norms is None else norms.query,
        "key_norm": qkv if norms is None else norms.key,
        "numbers": mx.array([0.0, 0.0] if norms is None else [norms.eps, norms.offset], dtype=mx.float32),
    }
    (out,) = kernel("attention", *inputs, header=MATRICES + RUNS)(
        inputs=list(inputs.values()),
        template=[
            ("T", qkv.dtype),
            ("DIM", head_dim),
            ("HEADS", num_heads),
            ("GROUP", num_heads // kv_heads),
            ("ROWS", rows),
            ("SIMDGROUPS", simdgroups),
            ("KEYS", keys),
            ("RUN", run),
            ("HAS_BIAS", bias is not None),
            ("WINDOW", 0 if window is None else window + 1),
            ("CAUSAL", causal),
            ("ROTATE", rotates),
            ("NORM", norms is not None),
        ],
        grid=(32 * simdgroups, num_heads, blocks),
        threadgroup=(32 * simdgroups, 1, 1),
        output_shapes=[(total, num_heads * head_dim)],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out


def _registers(head_dim: int, dtype: mx.Dtype, rows: int) -> float:
    """What a thread's two elements of each matrix take: queries, sums, and scores and weights of 32 keys."""
    return 2 * rows * (round_up(head_dim, 8) + 32) / 8 * (1 + dtype.size / 4)


def _check_rotates(rotation: Rotation | None, head_dim: int, run: int) -> None:
    if rotation is None:
        raise NotImplementedError("There is nothing to rotate by.")
    threads = head_dim // run
    # Eight keys at a time, so that at fewer than four threads a key some of a simdgroup had nothing to share.
    even = threads in (4, 8, 16, SIMDGROUP) and not head_dim % 8
    if rotation.norms is not None and not even:
        raise NotImplementedError(f"The Metal attention kernel does not normalise heads of {head_dim}.")


rotating_attention = partial(attention, rotates=True)
