"""Quantized output, bit for bit against sentence-transformers: golden bytes, live, and as a property."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.vector_dtypes import OUTPUT_DTYPES, checked_ranges, quantize, ranges_of
from tests import oracles
from tests.conftest import DATA

INTEGERS = ["int8", "uint8", "binary", "ubinary"]
TEXTS = ["the wing", "a query of code", "heat", "note", "flow of heat in the boundary layer", "index"]


def vectors(count: int, dim: int, seed: int | None = None) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    found[:, 1] = 0.25  # a dimension without a range
    found[0, 2] = 0.0
    return found


def quantized(rows: np.ndarray, output_dtype: str, calibration: np.ndarray) -> np.ndarray:
    ranges = checked_ranges(output_dtype, rows.shape[1], None, calibration if "int8" in output_dtype else None)
    return quantize(rows, output_dtype, ranges)


@pytest.mark.parametrize("output_dtype", INTEGERS)
def test_golden_bytes(output_dtype: str) -> None:
    with np.load(DATA / "quantization.npz") as file:
        found = quantized(file["vectors"], output_dtype, file["calibration"])
        assert found.dtype == file[output_dtype].dtype
        assert np.array_equal(found, file[output_dtype])


@pytest.mark.parametrize("dim", [3, 8, 384])
@pytest.mark.parametrize("output_dtype", INTEGERS)
def test_live_against_sentence_transformers(output_dtype: Any, dim: int) -> None:
    oracles.sentence_transformers()
    from sentence_transformers import quantize_embeddings

    rows, calibration = 3 * vectors(200, dim), vectors(150, dim)
    expected = quantize_embeddings(rows, output_dtype, calibration_embeddings=calibration)
    found = quantized(rows, output_dtype, calibration)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    ranges = ranges_of(calibration)
    by_ranges = quantize_embeddings(rows, output_dtype, ranges=ranges)
    assert np.array_equal(quantize(rows, output_dtype, ranges), by_ranges)


@pytest.mark.parametrize("output_dtype", OUTPUT_DTYPES)
def test_encode(tiny_bert: EmbeddingModel, output_dtype: Any) -> None:
    plain = tiny_bert.encode(TEXTS)
    ranged = output_dtype in ("int8", "uint8")
    options = {"output_dtype": output_dtype} | ({"calibration_embeddings": plain} if ranged else {})
    found = tiny_bert.encode(TEXTS, **options)
    assert found.dtype == {"binary": "int8", "ubinary": "uint8"}.get(output_dtype, output_dtype)
    assert np.array_equal(found, quantize(plain, output_dtype, ranges_of(plain)))
    width = 4 if "binary" in output_dtype else 32
    assert found.shape == (len(TEXTS), width)
    assert tiny_bert.encode([], **options).shape == (0, width)
    assert tiny_bert.encode(TEXTS[0], **options).shape == (width,)
    if ranged:
        by_ranges = tiny_bert.encode(TEXTS, output_dtype=output_dtype, ranges=ranges_of(plain))
        assert np.array_equal(by_ranges, found)


def test_int8_keeps_the_order_of_neighbours() -> None:
    rows = vectors(64, 256)
    levels = quantized(rows, "int8", rows).astype(np.float32) + 128
    low, high = ranges_of(rows)
    assert np.abs(levels * (high - low) / 255 + low - rows).max() <= ((high - low) / 255).max() * 1.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_dtype": "int4"}, "output_dtype 'int4' is not one of float32, float16, int8"),
        ({"output_dtype": "int8"}, "pass calibration_embeddings"),
        ({"output_dtype": "uint8", "truncate_dim": 8}, "pass calibration_embeddings"),
        ({"output_dtype": "int8", "calibration_embeddings": np.ones((1, 32))}, "at least two vectors"),
        ({"output_dtype": "int8", "calibration_embeddings": np.ones(32)}, "at least two vectors"),
        ({"output_dtype": "int8", "ranges": np.ones((2, 31))}, r"need ranges \[2, 32\], got \(2, 31\)"),
        (
            {"output_dtype": "int8", "calibration_embeddings": np.ones((4, 31))},
            r"need calibration_embeddings \[M, 32\], made with the same truncate_dim, got \[M, 31\]",
        ),
        ({"output_dtype": "int8", "ranges": np.ones((3, 32))}, r"got \(3, 32\)"),
        ({"output_dtype": "int8", "ranges": [[1.0] * 32, [0.0] * 32]}, "the least of each dimension in row 0"),
        ({"output_dtype": "int8", "ranges": np.full((2, 32), np.nan)}, "finite"),
        ({"ranges": np.ones((2, 32))}, 'ranges are of output_dtype "int8" and "uint8", and it is \'float32\''),
        ({"output_dtype": "binary", "calibration_embeddings": np.ones((4, 32))}, "calibration_embeddings are of"),
    ],
)
def test_bad_options(tiny_bert: EmbeddingModel, options: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing may run.
    monkeypatch.setattr(tiny_bert, "engine", SimpleNamespace(near=lambda work: work()))
    with pytest.raises(ValueError, match=message):
        tiny_bert.encode(TEXTS, **options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"calibration_embeddings": np.ones((3, 32), np.int8)}, TypeError, "dtype int8, where vectors of floats"),
        ({"calibration_embeddings": [[1.0, 2.0], [3.0]]}, ValueError, "calibration_embeddings is no array of numbers"),
        ({"calibration_embeddings": "wing"}, TypeError, "calibration_embeddings has dtype"),
        ({"ranges": [["a"], ["b"]]}, TypeError, "ranges has dtype"),
        ({"ranges": np.ones((2, 32)), "calibration_embeddings": np.ones((2, 32))}, ValueError, "pass one of them"),
    ],
)
def test_what_ranges_cannot_be_taken_from(
    tiny_bert: EmbeddingModel, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tiny_bert.encode(TEXTS, output_dtype="int8", **options)
