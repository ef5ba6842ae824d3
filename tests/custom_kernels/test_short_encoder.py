"""All layers of an encoder in one launch, against float64."""

import importlib
import re

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import LayerWeights, cuda, short_encoder
from custom_kernels.choice import op
from custom_kernels.cuda.ahead import rehearsal
from custom_kernels.ops.activate import ACTIVATIONS
from custom_kernels.ops.short_encoder import is_short, reference_short_encoder
from custom_kernels.parameters import Layers
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
    if not mx.cuda.is_available():  # there is the reference alone, for which the widths are all one
        hidden, inner = hidden // 4, inner // 4
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
        kept = (Layers(layers), *arguments[1:])
        for given in (arguments, kept, kept):
            found = kernel(x, starts(lengths), *given)
            assert found.dtype == DTYPES[dtype]
            assert error(found, expected) <= bound


def test_long_batches_and_float32_have_no_short_encoder() -> None:
    half, full = random_layer(32, 64, "float16"), random_layer(32, 64, "float32")
    assert short_encoder(4097, [half], 4, 1e-5, "gelu", None) is None
    assert short_encoder(16, [full], 4, 1e-5, "gelu", None) is None
    assert [is_short(n) for n in (0, 1, 2**17, 2**17 + 1)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("hidden", "inner", "heads"), [(48, 64, 4), (32, 48, 4), (160, 64, 16), (384, 64, 2), (2080, 64, 20)]
)
def test_a_rehearsal_finds_no_short_encoder_for_widths_without_one(
    hidden: int, inner: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor anything that computes in its place."""
    monkeypatch.setattr(op, "default_backend", lambda: "cuda")
    layers = [random_layer(hidden, inner, "float16")]
    with rehearsal():
        assert short_encoder(16, layers, heads, 1e-5, "gelu", None) is None
        assert short_encoder(16, [random_layer(384, 64, "float16")], 12, 1e-5, "gelu", None) is not None


def test_weights_that_are_laid_end_to_end_are_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("custom_kernels.cuda.short_encoder")
    monkeypatch.setattr(module, "multiprocessors", lambda: 132)
    monkeypatch.setattr(mx, "gpu", mx.cpu)
    layers = Layers(random_layer(64, 96, "float16") for _ in range(2))

    def macros() -> dict[str, str]:
        with rehearsal() as wanted:
            module.short_encoder(random(5, 64, dtype="float16"), starts([5]), layers, 2, 0.2, 1e-5, "gelu")
        ((_, _, _, found),) = wanted
        return dict(found)

    found = macros()
    places = re.findall(r"table\[(\d+)\] = w \+ (\d+);", found["FILL"])
    arrays = [array for weights in layers for array in weights]
    assert found["WEIGHTS"] == "const T* w"
    assert [int(i) for i, _ in places] == list(range(len(arrays)))
    for array, (_, place) in zip(arrays, places, strict=True):
        there = layers.end_to_end[int(place) : int(place) + array.size]
        assert mx.array_equal(there.reshape(array.shape), array).item()
    assert layers.size == layers.end_to_end.size
    monkeypatch.setattr(module, "MOST_KEPT_TWICE", layers.size - 1)
    assert macros()["FILL"].startswith("table[0] = w0; table[1] = w1; ")
