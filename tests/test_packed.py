"""Packed batches: index arithmetic and attention against plain numpy, one sequence at a time."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention
from custom_kernels.packed import pad, position_ids, sequence_ids, unpad

LENGTHS = [[1], [5], [4, 4, 4], [1, 7, 2], [0, 3, 0, 0, 5, 0], [512, 1], [31, 32, 33], [64] * 3 + [1] * 9]


def cumulative(lengths: list[int]) -> mx.array:
    return mx.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def softmax_attention(qkv: np.ndarray, lengths: list[int], heads: int, scale: float, bias: np.ndarray | None):
    """[T, 3 * hidden] float64, sequence by sequence and head by head."""
    total, width = qkv.shape
    dim = width // 3 // heads
    out = np.empty((total, width // 3))
    start = 0
    for length in lengths:
        q, k, v = (qkv[start : start + length].reshape(length, 3, heads, dim)[:, i] for i in range(3))
        for h in range(heads):
            scores = q[:, h] @ k[:, h].T * scale
            if bias is not None:
                scores = scores + bias[h, :length, :length]
            weights = np.exp(scores - scores.max(axis=1, keepdims=True)) if length else scores
            weights = weights / weights.sum(axis=1, keepdims=True)
            out[start : start + length, h * dim : (h + 1) * dim] = weights @ v[:, h]
        start += length
    return out


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sequence_and_position_ids(lengths: list[int]) -> None:
    cu_seqlens = cumulative(lengths)
    total = sum(lengths)
    assert sequence_ids(cu_seqlens, total).tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert position_ids(cu_seqlens, total).tolist() == [p for n in lengths for p in range(n)]


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pad_and_unpad_are_inverse(lengths: list[int], extra: int) -> None:
    cu_seqlens, total = cumulative(lengths), sum(lengths)
    x = mx.arange(2 * total).reshape(total, 2)
    block, valid = pad(x, cu_seqlens, max(lengths) + extra)
    assert block.shape == (len(lengths), max(lengths) + extra, 2)
    if valid is not None:
        assert valid.sum(axis=1).tolist() == lengths
    assert unpad(block, cu_seqlens, total).tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("head_dim", [8, 32, 64])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention(lengths: list[int], head_dim: int, with_bias: bool, dtype: mx.Dtype) -> None:
    heads, total, longest = 3, sum(lengths), max(lengths)
    rng = np.random.default_rng()
    qkv = mx.array(rng.normal(size=(total, 3 * heads * head_dim)).astype(np.float32)).astype(dtype)
    bias = mx.array(rng.normal(size=(heads, longest + 2, longest + 2)).astype(np.float32)) if with_bias else None
    scale = head_dim**-0.5
    expected = softmax_attention(
        np.array(qkv.astype(mx.float32)).astype(np.float64),
        lengths,
        heads,
        scale,
        bias if bias is None else np.array(bias),
    )
    for max_seqlen in (None, longest, longest + 2):
        found = attention(qkv, cumulative(lengths), heads, scale, bias, max_seqlen=max_seqlen)
        assert found.dtype == dtype
        difference = np.abs(np.array(found.astype(mx.float32)) - expected).max()
        assert difference <= {mx.float32: 2e-6, mx.float16: 8e-3, mx.bfloat16: 6e-2}[dtype]


def test_attention_survives_large_scores() -> None:
    qkv = mx.array(np.random.default_rng().normal(0, 40, size=(9, 24)).astype(np.float32)).astype(mx.float16)
    found = attention(qkv, cumulative([2, 7]), 1, 1.0)
    assert np.isfinite(np.array(found)).all()


@pytest.mark.parametrize(
    ("heads", "bias", "message"),
    [(5, None, "heads"), (2, (2, 3, 3), "L >= 4"), (2, (1, 4, 4), "needs a bias"), (2, (2, 4, 5), "needs a bias")],
)
def test_attention_refuses_shapes_that_do_not_fit(heads: int, bias: tuple | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(mx.zeros((4, 24)), cumulative([4]), heads, 1.0, None if bias is None else mx.zeros(bias))
