"""Packed attention on Metal."""

import math
from functools import partial

import mlx.core as mx

from custom_kernels.metal.launch import ELEMENTS, MATRICES, kernel, round_up
from custom_kernels.metal.rope import rope
from custom_kernels.parameters import Rotation

MAX_HEAD_DIM = 256
# Up to here a simdgroup's registers hold two rows of matrices.
WIDE_HEAD_DIM = 128
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
    """One launch of `attention.metal`: a threadgroup for each head and 64 queries, or fewer if all sequences are short.

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
    rows = 2 if head_dim <= WIDE_HEAD_DIM else 1
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
        "numbers": cu_seqlens if norms is None else mx.array([norms.eps, norms.offset], dtype=mx.float32),
    }
    (out,) = kernel("attention", *inputs, header=MATRICES + ELEMENTS)(
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
            ("WINDOW", 0 if window is None else min(window, 2**30) + 1),
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


def _check_rotates(rotation: Rotation | None, head_dim: int, run: int) -> None:
    if rotation is None:
        raise NotImplementedError("There is nothing to rotate by.")
    threads = head_dim // run
    if rotation.norms is not None and (threads > SIMDGROUP or threads & (threads - 1) or head_dim % 8):
        raise NotImplementedError(f"The Metal attention kernel does not normalise heads of {head_dim}.")


rotating_attention = partial(attention, rotates=True)
