"""All layers of an encoder in one launch, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import LayerWeights, cuda, short_encoder
from custom_kernels.ops.activate import ACTIVATIONS
from custom_kernels.ops.short_encoder import is_short, reference_short_encoder
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, exact_attention, normed, random, starts


def exact_layers(
    x: mx.array,
    lengths: list[int],
    layers: list[LayerWeights],
    heads: int,
    scale: float,
    eps: float,
    act: str,
    bias: mx.array | None,
) -> np.ndarray:
    def rounded(y: np.ndarray) -> mx.array:
        return mx.array(y.astype(np.float32))

    y = exact(x)
    for w in layers:
        qkv = y @ exact(w.qkv_weight).T + exact(w.qkv_bias)
        attended = exact_attention(rounded(qkv), lengths, heads, scale, bias)
        y = normed(
            y + attended @ exact(w.out_weight).T + exact(w.out_bias),
            w.attention_norm_weight,
            w.attention_norm_bias,
            eps,
        )
        inner = exact(ACTIVATIONS[act](rounded(y @ exact(w.up_weight).T + exact(w.up_bias))))
        y = y + inner @ exact(w.down_weight).T + exact(w.down_bias)
        y = normed(y, w.output_norm_weight, w.output_norm_bias, eps)
    return y


def random_layer(hidden: int, inner: int, dtype: str) -> LayerWeights:
    shapes = [(3 * hidden, hidden), (hidden, hidden), (hidden,), (inner, hidden), (hidden, inner), (hidden,)]
    scales = [0.5 * shape[-1] ** -0.5 if len(shape) > 1 else 1.0 for shape in shapes]
    pairs = [
        (random(*shape, dtype=dtype, scale=s), random(shape[0], dtype=dtype))
        for shape, s in zip(shapes, scales, strict=True)
    ]
    return LayerWeights(*(array for pair in pairs for array in pair))


@pytest.mark.parametrize(
    ("lengths", "hidden", "heads", "inner", "act", "biased", "dtype"),
    [
        ([16], 384, 12, 1536, "gelu", None, "float16"),
        ([1], 384, 12, 1536, "gelu", None, "float16"),
        ([5, 0, 9, 1], 384, 12, 1536, "gelu", None, "bfloat16"),
        ([33], 768, 12, 3072, "gelu", "float16", "float16"),
        ([64, 3], 768, 12, 3072, "gelu_tanh", "float32", "float16"),
        ([128], 384, 12, 1536, "relu", None, "float16"),
        ([127], 1024, 16, 4096, "gelu", None, "float16"),
        ([1] * 128, 32, 4, 64, "silu", None, "float16"),
        ([200, 0, 1, 140], 384, 12, 1536, "gelu", None, "float16"),
        ([150], 256, 4, 1024, "gelu", "float16", "bfloat16"),
        ([500, 12], 256, 4, 1024, "gelu", None, "float16"),
        ([40, 7], 256, 2, 96, "gelu", "bfloat16", "bfloat16"),
    ],
)
def test_short_encoder(
    lengths: list[int], hidden: int, heads: int, inner: int, act: str, biased: str | None, dtype: str
) -> None:
    layers = [random_layer(hidden, inner, dtype) for _ in range(3)]
    x = random(sum(lengths), hidden, dtype=dtype)
    bias = None if biased is None else random(heads, 2 * max(lengths) + 3, dtype=biased)
    arguments = (layers, heads, (hidden // heads) ** -0.5, 1e-5, act, bias)
    expected = exact_layers(x, lengths, *arguments)
    # What is rounded between the steps adds up over the layers.
    bound = 12 * TOLERANCE[dtype]
    assert error(reference_short_encoder(x, starts(lengths), *arguments), expected) <= bound
    if mx.cuda.is_available():
        kernel = short_encoder(len(x), layers, heads, 1e-5, act, bias)
        assert kernel is cuda.short_encoder
        for _ in range(3):
            found = kernel(x, starts(lengths), *arguments)
            assert found.dtype == DTYPES[dtype]
            assert error(found, expected) <= bound


def test_long_batches_and_float32_have_no_short_encoder() -> None:
    half, full = random_layer(32, 64, "float16"), random_layer(32, 64, "float32")
    assert short_encoder(4097, [half], 4, 1e-5, "gelu", None) is None
    assert short_encoder(16, [full], 4, 1e-5, "gelu", None) is None
    assert [is_short(n) for n in (0, 1, 2**17, 2**17 + 1)] == [False, True, True, False]
