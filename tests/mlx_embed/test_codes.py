"""Codes compared as the vectors that they stand for, and never as numbers."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.codes import OF_BITS, dequantize, hamming
from mlx_embed.similarity import PAIRWISE, SIMILARITY
from mlx_embed.vector_dtypes import quantize, ranges_of

TEXTS = ["the wing", "a query of code", "heat", "note", "flow of heat in the boundary layer", "index"]
KINDS = ["int8", "uint8", "binary", "ubinary"]


@pytest.fixture
def model(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> EmbeddingModel:
    monkeypatch.setattr(tiny_bert, "similarity_fn_name", "cosine")  # and put back what a test sets
    return tiny_bert


def vectors(count: int, dim: int) -> np.ndarray:
    return np.random.default_rng().normal(size=(count, dim)).astype(np.float32)


def signs(rows: np.ndarray) -> np.ndarray:
    return np.where(rows > 0, np.float32(1), np.float32(-1))


@pytest.mark.parametrize("name", SIMILARITY)
def test_pairs_are_the_diagonal(name: str) -> None:
    a, b = vectors(7, 9), vectors(7, 9)
    assert np.allclose(PAIRWISE[name](a, b), np.diag(SIMILARITY[name](a, b)), atol=1e-5)


@pytest.mark.parametrize("dim", [1, 8, 12, 384])
@pytest.mark.parametrize("name", SIMILARITY)
def test_bits_are_signs(name: str, dim: int) -> None:
    a, b = vectors(5, dim), vectors(9, dim)
    expected = SIMILARITY[name](signs(a), signs(b))
    for kind in ("binary", "ubinary"):
        left, right = quantize(a, kind), quantize(b, kind)
        assert np.array_equal(dequantize(left, kind, dim), signs(a))
        assert np.allclose(OF_BITS[name](hamming(left, right), dim), expected, atol=1e-3)
        assert hamming(left[:0], right).shape == (0, 9)


def test_bits_are_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (quantize(vectors(count, 100), "ubinary") for count in (5, 9))
    expected = np.unpackbits(a[:, None] ^ b, axis=2).sum(axis=2)
    assert np.array_equal(hamming(a, b), expected)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert np.array_equal(hamming(a, b), expected)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_levels_are_the_middle_of_their_step(kind: str) -> None:
    rows = vectors(200, 16)
    rows[:, 3] = 0.25  # a dimension without a range
    ranges = ranges_of(rows)
    found = dequantize(quantize(rows, kind, ranges), kind, 16, ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert (np.abs(found - rows) <= step / 2 + 1e-6).all()
    assert np.array_equal(found[:, 3], rows[:, 3])
    last = np.full((1, 16), np.iinfo(kind).max, dtype=kind)  # a step without a width
    assert np.allclose(dequantize(last, kind, 16, ranges), ranges[1], rtol=1e-6)


@pytest.mark.parametrize("truncate_dim", [None, 12])
@pytest.mark.parametrize("name", SIMILARITY)
@pytest.mark.parametrize("kind", KINDS)
def test_similarity(model: EmbeddingModel, kind: Any, name: str, truncate_dim: int | None) -> None:
    model.similarity_fn_name = name
    plain = model.encode(TEXTS, truncate_dim=truncate_dim)
    options: dict[str, Any] = {"output_dtype": kind, "truncate_dim": truncate_dim}
    if "int8" in kind:
        options["ranges"] = ranges_of(plain)
    codes = model.encode(TEXTS, **options)
    meant = plain if "int8" in kind else signs(plain)
    near = 0.15 if "int8" in kind else 1e-3
    expected = SIMILARITY[name](meant, meant)
    assert np.abs(model.similarity(codes, codes, **options) - expected).max() <= near
    assert np.abs(model.similarity(codes.tolist(), codes, **options) - expected).max() <= near
    assert np.abs(model.similarity_pairwise(codes, codes[::-1], **options) - np.diag(expected[:, ::-1])).max() <= near
    # Vectors against codes: only the codes are read.
    mixed = model.similarity(plain, codes, **options)
    assert np.abs(mixed - SIMILARITY[name](plain, meant)).max() <= near
    one = model.similarity(codes[0], codes[1], **options)
    assert (one.shape, one.dtype) == ((1, 1), np.float32)
    assert one.item() == pytest.approx(expected[0, 1], abs=near)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_strangers_are_not_alike(model: EmbeddingModel, kind: Any) -> None:
    a, b = signs(vectors(1, 32)), signs(vectors(1, 32))
    calibration = np.stack([np.full(32, -1.0), np.full(32, 1.0)])
    ranges = ranges_of(calibration)
    options: dict[str, Any] = {"output_dtype": kind} | (
        {"calibration_embeddings": calibration} if "int8" in kind else {}
    )
    left, right = (quantize(x, kind, ranges) for x in (a, b))
    assert model.similarity(left, right, **options).item() == pytest.approx((a @ b.T).item() / 32, abs=0.01)


def test_one_pair_of_vectors(model: EmbeddingModel) -> None:
    a, b = model.encode(TEXTS[:2])
    assert float(model.similarity_pairwise(a, b)) == pytest.approx(model.similarity(a, b).item(), abs=1e-6)
    assert model.similarity_pairwise(a[None], b[None]).shape == (1,)


@pytest.mark.parametrize("method", ["similarity", "similarity_pairwise"])
@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (np.ones((2, 32), np.int8), {}, "pass the output_dtype that encode was given"),
        (np.ones((2, 4), np.uint8), {}, "pass the output_dtype"),
        (np.ones((2, 4), np.uint8), {"output_dtype": "float32"}, "pass the output_dtype"),
        (np.ones((2, 32), np.int8), {"output_dtype": "int8"}, "pass calibration_embeddings"),
        (np.ones((2, 4), np.int8), {"output_dtype": "int8", "ranges": [[0] * 32, [1] * 32]}, "are 32 wide, these 4"),
        (np.ones((2, 32), np.uint8), {"output_dtype": "ubinary"}, "are 4 wide, these 32"),
        (np.ones((2, 4), np.uint8), {"output_dtype": "ubinary", "truncate_dim": 8}, "of 8 dimensions are 1 wide"),
        (np.ones((2, 4), np.uint8), {"output_dtype": "binary"}, "binary codes are of dtype int8; these are of uint8"),
        (np.full((2, 4), 300), {"output_dtype": "ubinary"}, "of dtype uint8; these are of int64"),
        (np.ones((2, 4), np.uint8), {"output_dtype": "bits"}, "output_dtype 'bits' is not one of float32, "),
        (np.ones((2, 32), np.float32), {"output_dtype": "int9"}, "output_dtype 'int9' is not one of float32, "),
    ],
)
def test_codes_of_which_too_little_is_known(
    model: EmbeddingModel, method: str, codes: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(codes, codes, **options)


def test_other_mistakes(model: EmbeddingModel) -> None:
    rows = model.encode(TEXTS)
    with pytest.raises(ValueError, match=r"as many vectors of one length: \(6, 32\), \(5, 32\)"):
        model.similarity_pairwise(rows, rows[:5])
    with pytest.raises(TypeError, match="similarity has no option 'precision'"):
        model.similarity(rows, rows, precision="int8")
    model.similarity_fn_name = "angle"
    with pytest.raises(ValueError, match="similarity_fn_name 'angle' is not one of cosine, dot"):
        model.similarity(rows, rows)


@pytest.mark.parametrize("method", ["similarity", "similarity_pairwise"])
def test_what_is_no_array_of_vectors(model: EmbeddingModel, method: str) -> None:
    compare, rows = getattr(model, method), model.encode(TEXTS)
    for given in (1.0, rows[None]):
        with pytest.raises(ValueError, match=rf"^{method} needs vectors \[D\] or rows of them \[N, D\], got shapes "):
            compare(rows, given)
    for given in ("a", TEXTS, None, rows.astype(np.complex64)):
        with pytest.raises(TypeError, match=r"^b has dtype .*, where numbers are needed\.$"):
            compare(rows, given)
    with pytest.raises(ValueError, match=r"^a is no array of numbers: "):
        compare([[1.0], [1.0, 2.0]], rows)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_arrays_of_mlx(model: EmbeddingModel, dtype: mx.Dtype) -> None:
    rows = mx.array(model.encode(TEXTS)).astype(dtype)
    wide = np.array(rows.astype(mx.float32))
    assert np.array_equal(model.similarity(rows, rows), model.similarity(wide, wide))
    assert np.array_equal(model.similarity_pairwise(rows, rows), model.similarity_pairwise(wide, wide))
