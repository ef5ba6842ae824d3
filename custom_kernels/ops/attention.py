"""Packed (varlen) self-attention: every sequence attends to itself, and nothing else.

Heads of key and value may be fewer than the query's (grouped-query attention), each shared by as many neighbours. A
token may see only what is before it, and only so far. Rotary positions are a part of the op, since kernels may rotate
what they load.
"""

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
from custom_kernels.metal.attention import rotating_attention
from custom_kernels.ops.rope import Normed, check_rotation, rope
from custom_kernels.packed import counting, pad, unpad
from custom_kernels.parameters import Rotation

# Finite, so that a row with no valid key stays finite, and representable in float16.
MASKED = -3e4
# Kernels may come in a size for texts up to each of these lengths, and one for longer texts.
SIZES = (16, 32, 64)
# Lengths that are timed; longer texts are taken to be like the last.
LENGTHS = (*SIZES, 128, 512)
# Wider windows see everything as well, and kernels add a place in a text to one, in 32 bits.
WIDEST_WINDOW = 2**30
# The smallest heads that MLX's fused attention on Metal takes.
FUSED_HEAD_DIM = 64


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    rotation: Rotation | None = None,
    *,
    max_seqlen: int | None = None,
    window: int | None = None,
    causal: bool = False,
    kv_heads: int | None = None,
    backend: str | None = None,
) -> mx.array:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, (num_heads + 2 kv_heads) * head_dim]: query, key and value side by side, each split into its heads.
        cu_seqlens: int32 [n + 1], from 0 to T, the start of each sequence.
        num_heads: heads of the query.
        scale: usually 1 / sqrt(head_dim); above 0.
        bias: [num_heads, 2 L - 1], added to the score of query i and key j by their distance, at j - i + L - 1
            (MPNet's relative bias); L >= the longest sequence.
        rotation: the positions by which query and key are rotated first, and the norms before that; None for neither.
        max_seqlen: an upper bound of the sequences' length. None reads `cu_seqlens` on the host, which a
            compiled graph cannot do.
        window: attend only where |i - j| <= window. None attends everywhere.
        causal: attend only where j <= i.
        kv_heads: heads of key and value each, which divides num_heads; None for as many.
        backend: "metal" or "cuda" for the custom kernel, "reference" for MLX's padded attention, None for what
            measured fastest of what the machine has.

    Returns:
        [T, num_heads * head_dim] of qkv's dtype.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown back end.
        TypeError: a dtype that is not float32, float16 or bfloat16, or norms of two of these.
        RuntimeError: a named back end that this machine does not have.
    """
    if max_seqlen is None:
        max_seqlen = int(np.diff(np.array(cu_seqlens)).max(initial=0))
    kv_heads = num_heads if kv_heads is None else kv_heads
    _check(qkv, cu_seqlens, num_heads, kv_heads, scale, bias, max_seqlen, window)
    total, head_dim = qkv.shape[0], qkv.shape[1] // (num_heads + 2 * kv_heads)
    if rotation is not None:
        check_rotation("attention", rotation, total, head_dim)
    window = None if window is None else min(window, WIDEST_WINDOW)
    equal = (cu_seqlens.shape[0] - 1) * max_seqlen == total
    on_cuda, rotated = backend is None and default_backend() == "cuda", rotation is not None
    full = on_cuda and equal and bias is None and window is None and (rotated or not causal)
    builtin = full and heuristics.builtin_attention_is_faster(qkv.dtype, head_dim, max_seqlen, rotated)
    kernel: Kernel = reference_attention
    if qkv.size and max_seqlen > 0 and not builtin:
        size = next((s for s in SIZES if max_seqlen <= s), None)
        seen = heuristics.keys_seen(max_seqlen, window, causal)
        if rotated:
            long = not heuristics.rotates_inside(qkv.dtype, head_dim, seen)
        else:
            long = bias is None and heuristics.is_for_hopper(qkv.dtype, head_dim, seen)
        variant = Variant(
            qkv.dtype,
            head_dim,
            scale,
            None if bias is None else bias.dtype,
            size,
            window,
            causal,
            num_heads // kv_heads,
            None if rotation is None else Rotated(Normed.of(rotation.norms)),
            kv_heads,
            on_cuda and long,
        )
        longest = next((length for length in LENGTHS if max_seqlen <= length), LENGTHS[-1])
        kernel = ATTENTION.pick(backend, variant, Load.of(total, longest, equal))
    masks = {"window": window, "causal": causal, "kv_heads": kv_heads}
    return kernel(qkv, cu_seqlens, num_heads, scale, bias, rotation, max_seqlen=max_seqlen, **masks)


class Rotated(NamedTuple):
    """What a kernel is compiled for of the rotation."""

    normed: Normed | None


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for.

    On CUDA `long` says that texts are so long that another kernel takes them, or that heads are rotated in a launch
    before, as those of long texts are, and of float32 always.
    """

    dtype: mx.Dtype
    head_dim: int
    scale: float
    bias: mx.Dtype | None
    size: int | None
    window: int | None
    causal: bool = False
    group: int = 1
    rotated: Rotated | None = None
    kv_heads: int = 2
    long: bool = False

    def __str__(self) -> str:
        mask = ("" if self.bias is None else ", bias") + ("" if self.window is None else f", window {self.window}")
        mask += ", causal" if self.causal else ""
        shared = "" if self.group == 1 else f", {self.group} to a key's"
        if self.rotated is not None:
            mask += ", rotated" if self.rotated.normed is None else ", normalised and rotated"
        return f"{spelled(self.dtype)}, heads of {self.head_dim}{shared}{mask}"


def reference_attention(
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
    least_head_dim: int = 0,
) -> mx.array:
    """The same by padding to a block and MLX's own attention; zeros widen heads below `least_head_dim`."""
    total, width = qkv.shape
    kv_heads = num_heads if kv_heads is None else kv_heads
    head_dim = width // (num_heads + 2 * kv_heads)
    if total == 0 or max_seqlen == 0:
        return qkv[:, : num_heads * head_dim]
    if rotation is not None:
        qkv = rope(qkv, *rotation[:3], num_heads, kv_heads, rotation.norms)
    block, valid = pad(qkv, cu_seqlens, max_seqlen)
    n = block.shape[0]
    block = block.reshape(n, max_seqlen, num_heads + 2 * kv_heads, head_dim)
    if head_dim < least_head_dim:
        block = mx.pad(block, [(0, 0)] * 3 + [(0, least_head_dim - head_dim)])
    q, k, v = mx.split(block.transpose(0, 2, 1, 3), [num_heads, num_heads + kv_heads], axis=1)
    mask: mx.array | str | None = _mask(qkv.dtype, max_seqlen, bias, window, causal, valid)
    if causal and mask is None:
        mask = "causal"
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)[..., :head_dim]
    return unpad(out.transpose(0, 2, 1, 3).reshape(n, max_seqlen, num_heads * head_dim), cu_seqlens, total)


def _mask(
    dtype: mx.Dtype, length: int, bias: mx.array | None, window: int | None, causal: bool, valid: mx.array | None
) -> mx.array | None:
    """What is added to the scores, [1 or n, 1 or heads, 1 or L, L]; None where nothing is, or "causal" says all."""
    mask = None if bias is None else by_pair(bias, length)[None].astype(dtype)
    if window is not None or (causal and (mask is not None or valid is not None)):
        ahead = counting(length) - counting(length)[:, None]
        near = ahead <= (0 if causal else length)
        if window is not None:
            near = near & (mx.abs(ahead) <= window)
        distant = mx.where(near, 0.0, MASKED).astype(dtype)[None, None]
        mask = distant if mask is None else mask + distant
    if valid is not None:
        padding = mx.where(valid, 0.0, MASKED).astype(dtype)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask


def by_pair(bias: mx.array, length: int) -> mx.array:
    """A bias by distance, [heads, 2 L - 1], for each query and key up to `length`: [heads, length, length]."""
    place = counting(length)
    return bias[:, place - place[:, None] + bias.shape[1] // 2]


def _check(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    kv_heads: int,
    scale: float,
    bias: mx.array | None,
    max_seqlen: int,
    window: int | None,
) -> None:
    heads = num_heads + 2 * kv_heads
    if qkv.ndim != 2 or num_heads < 1 or kv_heads < 1 or num_heads % kv_heads or qkv.shape[1] % heads:
        shared = "" if num_heads == kv_heads else f" and {kv_heads} kv_heads"
        raise ValueError(
            f"attention needs qkv [T, (heads + 2 kv_heads) * head_dim], got {tuple(qkv.shape)} for {num_heads} "
            f"heads{shared}."
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
    dtype, head_dim, scale, bias_dtype, size, window, causal, group, rotated, kv_heads, long = variant
    heads = kv_heads * group
    longest = (size or (700 if long else 150)) if load is None or load.longest is None else load.longest
    if load is None:
        texts = [1, longest, 0, longest // 2, 2, 1, longest, 0, 3]
    else:
        texts = [longest, longest if load.equal else longest // 2] * max(load.tokens // (2 * longest), 1)
    qkv = random(sum(texts), (heads + 2 * kv_heads) * head_dim, dtype=dtype)
    bias = None if bias_dtype is None else random(heads, 2 * longest - 1, dtype=bias_dtype, seed=1)
    rotation = None
    if rotated is not None:
        positions = mx.array(np.concatenate([np.arange(n, dtype=np.int32) for n in texts]))
        angles = random(longest, head_dim // 2, dtype=mx.float32, seed=2)
        norms = None if rotated.normed is None else rotated.normed.sample(head_dim)
        rotation = Rotation(positions, mx.cos(angles), mx.sin(angles), norms)
    masks = {"window": window, "causal": causal, "kv_heads": kv_heads}
    return (qkv, starts(*texts), heads, scale, bias, rotation), {"max_seqlen": longest, **masks}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for _, head_dim, dtype, load in typical_encoders():
        for longest in (length for length in LENGTHS if length <= load.most):
            size = longest if longest in SIZES else None
            plain = Variant(dtype, head_dim, head_dim**-0.5, None, size, None, kv_heads=12)
            yield plain, load._replace(longest=longest)
            if load.many:  # few tokens make no full block, since batches are filled up to a size
                yield plain, load._replace(longest=longest, equal=True)
            if head_dim == 64:
                yield plain._replace(bias=dtype), load._replace(longest=longest)
    for _, _, dtype, load in typical_encoders():
        for longest in (length for length in (SIZES[1], LENGTHS[-1]) if length <= load.most):
            size = longest if longest in SIZES else None
            rotated = Rotated(Normed(dtype, 1e-6, 0.0))
            yield Variant(dtype, 128, 128**-0.5, None, size, None, True, 2, rotated, 8), load._replace(longest=longest)


ATTENTION = Op(
    "attention",
    {"metal": metal.attention, "cuda": cuda.attention},
    reference_attention,
    _builtins,
    _sample,
    _typical,
    others={"metal": {"rotating kernel": rotating_attention}},
)
