"""Packed (varlen) self-attention: every sequence attends to itself, and nothing else."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled, starts
from custom_kernels.backends import default_backend
from custom_kernels.choice.op import Arguments, Kernel, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics
from custom_kernels.packed import counting, pad, unpad

# Finite, so that a row with no valid key stays finite, and representable in float16.
MASKED = -3e4
# Kernels may come in a size for texts up to each of these lengths, and one for longer texts.
SIZES = (16, 32, 64)
# Lengths that are timed; longer texts are taken to be like the last.
LENGTHS = (*SIZES, 128, 512)
# The smallest heads that MLX's fused attention on Metal takes.
FUSED_HEAD_DIM = 64


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int | None = None,
    window: int | None = None,
    backend: str | None = None,
) -> mx.array:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, 3 * hidden]: query, key and value side by side, each split into `num_heads` heads.
        cu_seqlens: int32 [n + 1], from 0 to T, the start of each sequence.
        num_heads: heads; must divide hidden.
        scale: usually 1 / sqrt(head_dim); above 0.
        bias: [num_heads, 2 L - 1], added to the score of query i and key j by their distance, at j - i + L - 1
            (MPNet's relative bias); L >= the longest sequence.
        max_seqlen: an upper bound of the sequences' length. None reads `cu_seqlens` on the host, which a
            compiled graph cannot do.
        window: attend only where |i - j| <= window. None attends everywhere.
        backend: "metal" or "cuda" for the custom kernel, "reference" for MLX's padded attention, None for what
            measured fastest of what the machine has.

    Returns:
        [T, hidden] of qkv's dtype.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown back end.
        TypeError: a dtype that is not float32, float16 or bfloat16.
        RuntimeError: a named back end that this machine does not have.
    """
    if max_seqlen is None:
        max_seqlen = int(np.diff(np.array(cu_seqlens)).max(initial=0))
    _check(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen, window)
    total, head_dim = qkv.shape[0], qkv.shape[1] // 3 // num_heads
    equal = (cu_seqlens.shape[0] - 1) * max_seqlen == total
    full_on_cuda = backend is None and equal and bias is None and window is None and default_backend() == "cuda"
    builtin = full_on_cuda and heuristics.builtin_attention_is_faster(head_dim, max_seqlen)
    kernel: Kernel = reference_attention
    if qkv.size and max_seqlen > 0 and not builtin:
        size = next((s for s in SIZES if max_seqlen <= s), None)
        variant = Variant(qkv.dtype, head_dim, scale, None if bias is None else bias.dtype, size, window)
        longest = next((length for length in LENGTHS if max_seqlen <= length), LENGTHS[-1])
        kernel = ATTENTION.pick(backend, variant, Load.of(total, longest, equal))
    return kernel(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen=max_seqlen, window=window)


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    dtype: mx.Dtype
    head_dim: int
    scale: float
    bias: mx.Dtype | None
    size: int | None
    window: int | None

    def __str__(self) -> str:
        mask = ("" if self.bias is None else ", bias") + ("" if self.window is None else f", window {self.window}")
        return f"{spelled(self.dtype)}, heads of {self.head_dim}{mask}"


def reference_attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
    least_head_dim: int = 0,
) -> mx.array:
    """The same by padding to a block and MLX's own attention; zeros widen heads below `least_head_dim`."""
    total, width = qkv.shape
    if total == 0 or max_seqlen == 0:
        return qkv[:, : width // 3]
    head_dim = width // 3 // num_heads
    block, valid = pad(qkv, cu_seqlens, max_seqlen)
    n = block.shape[0]
    block = block.reshape(n, max_seqlen, 3, num_heads, head_dim)
    if head_dim < least_head_dim:
        block = mx.pad(block, [(0, 0)] * 4 + [(0, least_head_dim - head_dim)])
    q, k, v = block.transpose(2, 0, 3, 1, 4)
    mask = None if bias is None else by_pair(bias, max_seqlen)[None].astype(qkv.dtype)
    if window is not None:
        place = counting(max_seqlen)
        near = mx.abs(place[:, None] - place) <= window
        distant = mx.where(near, 0.0, MASKED).astype(qkv.dtype)[None, None]
        mask = distant if mask is None else mask + distant
    if valid is not None:
        padding = mx.where(valid, 0.0, MASKED).astype(qkv.dtype)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)[..., :head_dim]
    return unpad(out.transpose(0, 2, 1, 3).reshape(n, max_seqlen, width // 3), cu_seqlens, total)


def by_pair(bias: mx.array, length: int) -> mx.array:
    """A bias by distance, [heads, 2 L - 1], for each query and key up to `length`: [heads, length, length]."""
    place = counting(length)
    return bias[:, place - place[:, None] + bias.shape[1] // 2]


def _check(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None,
    max_seqlen: int,
    window: int | None,
) -> None:
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] % (3 * num_heads):
        raise ValueError(
            f"attention needs qkv [T, 3 * heads * head_dim], got {tuple(qkv.shape)} for {num_heads} heads."
        )
    if qkv.dtype not in FLOATS:
        raise TypeError(f"attention takes float32, float16 or bfloat16, but qkv is {qkv.dtype}.")
    if cu_seqlens.ndim != 1 or cu_seqlens.size == 0 or cu_seqlens.dtype != mx.int32:
        raise ValueError(f"attention needs cu_seqlens int32 [n + 1], got {cu_seqlens.dtype} {cu_seqlens.shape}.")
    if not scale > 0 or (window is not None and window < 0):
        raise ValueError(f"attention needs a scale above 0 and a window of at least 0, got {scale} and {window}.")
    if bias is not None and (
        bias.ndim != 2 or bias.shape[0] != num_heads or bias.shape[1] % 2 == 0 or bias.shape[1] < 2 * max_seqlen - 1
    ):
        raise ValueError(
            f"attention needs a bias [{num_heads}, 2 L - 1] with L >= {max_seqlen}, got {tuple(bias.shape)}."
        )
    if bias is not None and bias.dtype not in FLOATS:
        raise TypeError(f"attention takes a float32, float16 or bfloat16 bias, got {bias.dtype}.")


def _builtins(variant: Variant) -> Mapping[str, Kernel]:
    ways: dict[str, Kernel] = {"built-in": reference_attention}
    if variant.head_dim < FUSED_HEAD_DIM:
        ways[f"built-in, heads padded to {FUSED_HEAD_DIM}"] = partial(
            reference_attention, least_head_dim=FUSED_HEAD_DIM
        )
    return ways


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, head_dim, scale, bias_dtype, size, window = variant
    heads, longest = (2, size or 150) if load is None or load.longest is None else (12, load.longest)
    if load is None:
        texts = [1, longest, 0, longest // 2, 2, 1, longest, 0, 3]
    else:
        texts = [longest, longest if load.equal else longest // 2] * max(load.tokens // (2 * longest), 1)
    qkv = random(sum(texts), 3 * heads * head_dim, dtype=dtype)
    bias = None if bias_dtype is None else random(heads, 2 * longest - 1, dtype=bias_dtype, seed=1)
    return (qkv, starts(*texts), heads, scale, bias), {"max_seqlen": longest, "window": window}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for _, head_dim, dtype, load in typical_encoders():
        for longest in (length for length in LENGTHS if length <= load.most):
            size = longest if longest in SIZES else None
            plain = Variant(dtype, head_dim, head_dim**-0.5, None, size, None)
            yield plain, load._replace(longest=longest)
            if load.many:  # few tokens make no full block, since batches are filled up to a size
                yield plain, load._replace(longest=longest, equal=True)
            if head_dim == 64:
                yield plain._replace(bias=dtype), load._replace(longest=longest)


ATTENTION = Op(
    "attention",
    {"metal": metal.attention, "cuda": cuda.attention},
    reference_attention,
    _builtins,
    _sample,
    _typical,
)
