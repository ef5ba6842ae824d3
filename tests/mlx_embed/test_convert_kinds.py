"""`convert` of static, sparse and late-interaction models, and of BGE-M3, in all dtypes."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import BGEM3, EmbeddingModel, MultiVectorEncoder, SparseEncoder, convert
from mlx_embed.convert import SAMPLE
from mlx_embed.kinds import DENSE, MULTI_VECTOR, SPARSE, kind_of
from tests import bge_m3, multi_vector, sparse, static
from tests.checkpoints import damage, encoder, read

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
# How far values may be from those before, as a share of the largest.
DTYPES = {None: 1e-6, "float32": 1e-6, "float16": 3e-3, "bfloat16": 3e-2}
TEXTS = ["the wing flow of heat", "", "a query of code", "heat the heat"]


def close(found: np.ndarray, expected: np.ndarray, dtype: str | None) -> bool:
    return bool(np.abs(found - expected).max() <= DTYPES[dtype] * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("sentence-transformers, dense", None),
        ("sentence-transformers, dense", "float16"),
        ("model2vec, mapped", "bfloat16"),
        ("model2vec, float64", None),
        ("model2vec, int8", None),
        ("model2vec, int8", "float32"),
    ],
)
def test_static(name: str, dtype: str | None, tmp_path: Path) -> None:
    before = EmbeddingModel.from_pretrained(static.make(tmp_path / "from", name), device="cpu")
    report = convert(tmp_path / "from", tmp_path / "to", dtype=dtype)
    after = EmbeddingModel.from_pretrained(tmp_path / "to", device="cpu")
    assert close(after.encode(static.TEXTS), before.encode(static.TEXTS), dtype)
    assert report.min_cosine > 0.999
    if dtype is not None:
        table = mx.load(str(after.checkpoint.transformer / "model.safetensors"))[
            "embeddings" if "model2vec" in name else "embedding.weight"
        ]
        assert table.dtype == getattr(mx, dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("bert", None), ("a decoder of its own", "bfloat16"), ("queries looked up", "float16"), ("sum", "float32")],
)
def test_sparse(name: str, dtype: str | None, tmp_path: Path) -> None:
    before = SparseEncoder.from_pretrained(sparse.make(tmp_path / "from", name), device="cpu")
    convert(tmp_path / "from", tmp_path / "to", dtype=dtype)
    after = SparseEncoder.from_pretrained(tmp_path / "to", device="cpu")
    for method in sparse.METHODS:
        found, expected = (getattr(model, method)(TEXTS).dense() for model in (after, before))
        assert close(found, expected, dtype), method


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("sentence-transformers", "bfloat16"),
        ("two dense", None),
        ("pylate", None),
        ("pylate", "float16"),
        ("stanford", "float32"),
        ("stanford", "float16"),
    ],
)
def test_multi_vector(name: str, dtype: str | None, tmp_path: Path) -> None:
    before = MultiVectorEncoder.from_pretrained(multi_vector.make(tmp_path / "from", name), device="cpu")
    convert(tmp_path / "from", tmp_path / "to", dtype=dtype)
    after = MultiVectorEncoder.from_pretrained(tmp_path / "to", device="cpu")
    assert after.prompts == before.prompts
    for method in multi_vector.METHODS:
        found, expected = ([*getattr(model, method)(TEXTS)] for model in (after, before))
        assert close(np.concatenate(found), np.concatenate(expected), dtype), method


def test_a_multi_vector_model_of_8_bits(tmp_path: Path) -> None:
    before = MultiVectorEncoder.from_pretrained(multi_vector.make(tmp_path / "from", "pylate"), device="cpu")
    report = convert(tmp_path / "from", tmp_path / "to", quantize=8, group_size=32)
    after = MultiVectorEncoder.from_pretrained(tmp_path / "to", device="cpu")
    assert report.destination_bytes < report.source_bytes
    assert report.min_cosine > 0.95
    assert after.similarity(after.encode_query(TEXTS), after.encode_document(TEXTS)) == pytest.approx(
        before.similarity(before.encode_query(TEXTS), before.encode_document(TEXTS)), abs=0.5
    )


def test_bge_m3_keeps_its_layers(tmp_path: Path) -> None:
    before = BGEM3.from_pretrained(bge_m3.make(tmp_path / "from"), device="cpu").encode(TEXTS)
    convert(tmp_path / "from", tmp_path / "to")
    after = BGEM3.from_pretrained(tmp_path / "to", device="cpu").encode(TEXTS)
    assert after.dense == pytest.approx(before.dense, abs=1e-6)
    assert after.sparse.dense() == pytest.approx(before.sparse.dense(), abs=1e-6)


def test_kinds(tmp_path: Path) -> None:
    assert kind_of(sparse.make(tmp_path / "a", "bert")) == SPARSE
    assert kind_of(multi_vector.make(tmp_path / "b", "pylate, of before")) == MULTI_VECTOR
    assert kind_of(multi_vector.make(tmp_path / "c", "stanford")) == MULTI_VECTOR
    assert kind_of(encoder("bert", tmp_path / "d")) == DENSE
    assert kind_of(static.make(tmp_path / "e", "model2vec")) == DENSE


@pytest.mark.parametrize(
    ("make", "name", "options", "message"),
    [
        (sparse.make, "bert", {"quantize": 8}, "is a sparse model"),
        (static.make, "model2vec", {"quantize": 8}, "is a static model"),
    ],
)
def test_what_is_not_quantized(make: Any, name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        convert(make(tmp_path / "from", name), tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


def test_the_projection_is_kept_in_its_file(tmp_path: Path) -> None:
    folder = multi_vector.make(tmp_path / "from", "stanford")
    convert(folder, tmp_path / "to", dtype="float16")
    assert read(tmp_path / "to")["linear.weight"].dtype == mx.float32
    assert np.array_equal(np.array(read(tmp_path / "to")["linear.weight"]), np.array(read(folder)["linear.weight"]))


def test_tokens_that_are_averaged_otherwise_do_not_count(tmp_path: Path) -> None:
    """Which tokens are near each other turns on a rounding, without a fault of the conversion."""
    multi_vector.make(tmp_path / "from", "clustered")
    assert convert(tmp_path / "from", tmp_path / "to", dtype="bfloat16").min_cosine > 0.999
    before, after = (MultiVectorEncoder.from_pretrained(tmp_path / name, device="cpu") for name in ("from", "to"))
    assert [len(text) for text in after.encode_document(TEXTS)] == [len(text) for text in before.encode_document(TEXTS)]


def test_weights_that_are_about_equal_do_not_count(tmp_path: Path) -> None:
    """Which one of them is the largest, and kept alone, does so too."""
    folder = sparse.make(tmp_path / "from", "bert")
    damage(folder, "config_sentence_transformers.json", {"max_active_dims": 1})
    (largest,) = SparseEncoder.from_pretrained(folder, device="cpu").encode(SAMPLE[0]).indices.tolist()
    tensors, unused = read(folder), 6
    names = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    rows, bias = (np.array(tensors[name]) for name in names)
    rows[unused], bias[unused] = rows[largest], bias[largest]
    rows[min(largest, unused)] *= 1.000002
    changed = {name: mx.array(values) for name, values in zip(names, (rows, bias), strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | changed)
    assert convert(folder, tmp_path / "to", dtype="bfloat16").min_cosine > 0.99
    before, after = (SparseEncoder.from_pretrained(tmp_path / name, device="cpu") for name in ("from", "to"))
    assert {*before.encode(SAMPLE[0]).indices, *after.encode(SAMPLE[0]).indices} == {largest, unused}
