"""The dtype of a model on the CPU, and quantized weights in MLX's graphs."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel, convert
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import encode, golden, least_cosine, make

# How far rounding the weights moves a vector's components, at least and at most.
MOVED = {"float16": (1e-5, 1e-3), "bfloat16": (1.2e-3, 3e-2)}


@pytest.mark.parametrize("dtype", [None, "float32", mx.float32])
def test_a_half_precision_checkpoint_on_the_cpu_is_float32(dtype: Any, tmp_path: Path) -> None:
    """Unless told otherwise: its own dtype would be slower there, and another engine."""
    _, expected = golden("distilbert")
    make("distilbert", tmp_path)
    assert {x.dtype for x in mx.load(str(tmp_path / "model.safetensors")).values()} == {mx.float16}
    for options in ({}, {"engine": "reference"}):
        model = EmbeddingModel.from_pretrained(tmp_path, device="cpu", dtype=dtype, **options)
        assert model.dtype == mx.float32
        assert "dtype=float32" in repr(model)
    assert np.abs(encode(tmp_path, golden("distilbert")[0], dtype=dtype) - expected).max() <= 1e-5


@pytest.mark.parametrize("engine", ["graph", "reference"])
@pytest.mark.parametrize("dtype", MOVED)
def test_the_dtype_that_is_asked_for(dtype: str, engine: str) -> None:
    """The vectors move by what rounding the weights does: not at all would be another dtype's, more a mistake."""
    texts, expected = golden("bert")
    found = encode(DATA / "tiny-bert", texts, dtype=dtype, engine=engine)
    least, most = MOVED[dtype]
    assert least < np.abs(found - expected).max() < most


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "nomic_bert"])
def test_quantized_weights(name: str, engine: str, tmp_path: Path) -> None:
    """Of 8 bits, in rows of 32 alone: what is between the layers is as ever."""
    texts, expected = golden(name)
    convert(make(name, tmp_path / "a"), tmp_path / "b", quantize=8, group_size=32)
    assert least_cosine(encode(tmp_path / "b", texts, engine=engine), expected) >= 0.999
