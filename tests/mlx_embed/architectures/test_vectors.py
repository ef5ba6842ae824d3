"""Every architecture against transformers and sentence-transformers: golden vectors, in every way, and live."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel, convert
from mlx_embed.engine.device import accelerator
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import (
    BASES,
    CASES,
    DECODERS,
    TOLERANCE,
    WAYS,
    difference,
    encode,
    golden,
    least_cosine,
    make,
    oracle,
    random_texts,
)

needs_accelerator = pytest.mark.skipif(accelerator() is None, reason="MLX finds no Metal or CUDA device here")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_golden_vectors(name: str, way: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    assert difference(encode(make(name, tmp_path), texts, dtype="float32", **WAYS[way]), expected) <= TOLERANCE


@needs_accelerator
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_golden_vectors_on_the_accelerator(name: str, way: str, dtype: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    found = encode(make(name, tmp_path), texts, device="gpu", dtype=dtype, **WAYS[way])
    if dtype == "float32":
        assert difference(found, expected) <= TOLERANCE
    assert least_cosine(found, expected) >= 0.9999


@pytest.mark.parametrize("base", BASES)
def test_what_config_json_says_shows_in_the_vectors(base: str) -> None:
    """Else a case would prove nothing that another does not."""
    distinct = {case.golden: golden(name)[1] for name, case in CASES.items() if case.base == base}
    vectors = list(distinct.values())
    for i, one in enumerate(vectors):
        assert all(difference(one, other) > 10 * TOLERANCE for other in vectors[i + 1 :])


@pytest.mark.parametrize(("dtype", "least"), [("float16", 0.9999), ("bfloat16", 0.995)])
@pytest.mark.parametrize("name", BASES)
def test_half_precision(name: str, dtype: str, least: float, tmp_path: Path) -> None:
    texts, expected = golden(name)
    model = EmbeddingModel.from_pretrained(make(name, tmp_path), device="cpu", dtype=dtype, engine="reference")
    assert f"dtype={dtype}" in repr(model)
    found = model.encode(texts, normalize_embeddings=True)
    assert found.dtype == np.float32
    assert least_cosine(found, expected) >= least


@pytest.mark.parametrize("name", BASES)
def test_batched_equals_single(name: str, tmp_path: Path) -> None:
    texts, _ = golden(name)
    model = EmbeddingModel.from_pretrained(make(name, tmp_path), device="cpu")
    single = np.stack([model.encode(text) for text in texts])
    for batch_tokens in (None, 100):
        batched = model.encode(texts, batch_tokens=batch_tokens)
        assert difference(batched, single) <= TOLERANCE * np.abs(single).max()


@pytest.mark.parametrize("name", BASES)
def test_conversion_keeps_the_vectors(name: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    convert(make(name, tmp_path / "a"), tmp_path / "b")
    assert difference(encode(tmp_path / "b", texts), expected) <= TOLERANCE
    convert(tmp_path / "a", tmp_path / "c", quantize=8, group_size=32)
    stored = mx.load(str(tmp_path / "c/model.safetensors"))
    assert any(key.endswith(("qkv.scales", "query.scales")) for key in stored)
    assert any(key.endswith(("word_embeddings.scales", "embed_tokens.scales")) for key in stored)
    assert least_cosine(encode(tmp_path / "c", texts), expected) >= (
        0.995 if name in (*DECODERS, "embedding_gemma2") else 0.999
    )


@pytest.mark.parametrize("name", CASES)
def test_live(name: str, tmp_path: Path) -> None:
    """Texts of every length up to past the maximum, in padded mixed batches on their side."""
    make(name, tmp_path)
    texts = random_texts(90)
    expected = oracle(tmp_path).encode(texts, batch_size=16, normalize_embeddings=True)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    assert difference(encode(tmp_path, texts, engine="reference"), expected) <= TOLERANCE
    assert least_cosine(encode(tmp_path, texts, dtype="float16", engine="reference"), expected) >= 0.9999


@pytest.mark.parametrize("name", DECODERS)
def test_golden_queries_and_short_documents(name: str, tmp_path: Path) -> None:
    with np.load(DATA / "decoders.npz") as file:
        texts, queries, short = file["texts"].tolist(), file[f"{name}: query"], file[f"{name}: short"]
    for options in ({}, {"engine": "graph"}):
        model = EmbeddingModel.from_pretrained(make(name, tmp_path / str(len(options))), device="cpu", **options)
        assert difference(model.encode_query(texts), queries) <= TOLERANCE
        assert difference(model.encode_document(texts, truncate_dim=12), short) <= TOLERANCE


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].base in DECODERS])
def test_live_queries(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    texts = random_texts(20)
    expected = oracle(tmp_path).encode_query(texts, batch_size=16)
    model = EmbeddingModel.from_pretrained(tmp_path, device="cpu")
    assert difference(model.encode_query(texts), expected) <= TOLERANCE


def minilm_golden() -> tuple[list[str], np.ndarray]:
    with np.load(DATA / "all-MiniLM-L6-v2.npz") as file:
        return file["texts"].tolist(), file["encode"]


def test_minilm_golden_vectors(minilm: EmbeddingModel) -> None:
    texts, expected = minilm_golden()
    short = [i for i, text in enumerate(texts) if len(text) < 1000]
    assert difference(minilm.encode([texts[i] for i in short]), expected[short]) <= TOLERANCE


def test_minilm_golden_vectors_truncated(minilm: EmbeddingModel) -> None:
    texts, expected = minilm_golden()
    long = int(np.argmax([len(text) for text in texts]))
    found, info = minilm.encode([texts[long]], return_info=True)
    assert info.truncated.tolist() == [True]
    assert difference(found, expected[[long]]) <= TOLERANCE


@needs_accelerator
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("way", WAYS)
def test_minilm_golden_vectors_on_the_accelerator(way: str, dtype: str, minilm_path: Path) -> None:
    texts, expected = minilm_golden()
    found = encode(minilm_path, texts, device="gpu", dtype=dtype, **WAYS[way])
    if dtype == "float32":
        assert difference(found, expected) <= TOLERANCE
    assert least_cosine(found, expected) >= 0.9999


def test_live_minilm(minilm: EmbeddingModel, minilm_path: Path) -> None:
    rng = np.random.default_rng()
    words = ["embedding", "naïve", "42", "日本", "aerodynamics", "?", "the"]
    texts = [" ".join(rng.choice(words, size=n)) for n in (0, 1, 2, 7, 31, 64, 300)]
    assert difference(minilm.encode(texts), oracle(minilm_path).encode(texts)) <= TOLERANCE


@pytest.mark.parametrize("name", BASES)
def test_native_kernels_run_every_model(name: str, tmp_path: Path) -> None:
    """Else "default" would be "reference" once more."""
    model = EmbeddingModel.from_pretrained(make(name, tmp_path), device="cpu")
    assert (model.engine.name == "native") == cpu.available()
