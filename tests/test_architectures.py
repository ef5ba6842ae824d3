"""The encoders against transformers and sentence-transformers: golden vectors, and live where PyTorch is installed."""

from pathlib import Path

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.architectures.mpnet import distance_buckets
from mlx_embed.engine.device import accelerator
from tests.conftest import DATA, TINY

TOLERANCE = 1e-5


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_pooling(folder: Path, mode: str) -> EmbeddingModel:
    """The checkpoint with another pooling and no Normalize, in the layout of sentence-transformers before 5."""
    (folder / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
    )
    flag = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}[mode]
    (folder / "1_Pooling" / "config.json").write_text(
        f'{{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": false, "pooling_mode_{flag}": true}}'
    )
    return EmbeddingModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("options", [{}, {"engine": "graph"}, {"engine": "reference"}])
@pytest.mark.parametrize("name", TINY)
def test_golden_vectors(name: str, options: dict) -> None:
    expected = golden(name)
    model = EmbeddingModel.from_pretrained(DATA / name, device="cpu", **options)
    found = model.encode(expected["texts"].tolist())
    assert np.abs(found - expected["encode"]).max() <= TOLERANCE


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("name", TINY)
def test_golden_pooling(name: str, mode: str, tmp_path: Path) -> None:
    import shutil

    expected = golden(name)
    model = with_pooling(Path(shutil.copytree(DATA / name, tmp_path / name)), mode)
    found = model.encode(expected["texts"].tolist())
    assert np.abs(unit(found) - unit(expected[mode])).max() <= TOLERANCE
    assert np.allclose(found, expected[mode], rtol=1e-4, atol=1e-4), "the vectors' lengths differ"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", TINY)
def test_half_precision(name: str, dtype: str) -> None:
    expected = golden(name)
    model = EmbeddingModel.from_pretrained(DATA / name, device="cpu", dtype=dtype)
    found = model.encode(expected["texts"].tolist())
    assert found.dtype == np.float32
    assert (unit(found) * unit(expected["encode"])).sum(axis=1).min() >= {"float16": 0.9999, "bfloat16": 0.995}[dtype]


def test_minilm_golden_vectors(minilm: EmbeddingModel) -> None:
    expected = golden("all-MiniLM-L6-v2")
    short = [i for i, text in enumerate(expected["texts"]) if len(text) < 1000]
    found = minilm.encode([str(expected["texts"][i]) for i in short])
    assert np.abs(found - expected["encode"][short]).max() <= TOLERANCE


def test_minilm_golden_vectors_truncated(minilm: EmbeddingModel) -> None:
    expected = golden("all-MiniLM-L6-v2")
    long = int(np.argmax([len(text) for text in expected["texts"]]))
    found, info = minilm.encode([str(expected["texts"][long])], return_info=True)
    assert info.truncated.tolist() == [True]
    assert np.abs(found - expected["encode"][[long]]).max() <= TOLERANCE


@pytest.mark.skipif(accelerator() is None, reason="MLX finds no Metal or CUDA device here")
@pytest.mark.parametrize("name", [*TINY, "all-MiniLM-L6-v2"])
@pytest.mark.parametrize("options", [{}, {"engine": "reference"}])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_golden_vectors_on_the_accelerator(name: str, options: dict, dtype: str, request) -> None:
    expected = golden(name)
    folder = DATA / name if name in TINY else request.getfixturevalue("minilm_path")
    model = EmbeddingModel.from_pretrained(folder, device="gpu", dtype=dtype, **options)
    found = model.encode(expected["texts"].tolist())
    if dtype == "float32":
        assert np.abs(found - expected["encode"]).max() <= TOLERANCE
    assert (unit(found) * unit(expected["encode"])).sum(axis=1).min() >= 0.9999


def test_mpnet_buckets_are_those_of_transformers() -> None:
    assert distance_buckets(512, 32).tolist() == golden("tiny-mpnet")["buckets"].tolist()


def test_mpnet_needs_its_position_bias() -> None:
    """The golden vectors must be such that a missing bias would show."""
    import mlx.core as mx

    expected = golden("tiny-mpnet")
    model = EmbeddingModel.from_pretrained(DATA / "tiny-mpnet", device="cpu", engine="reference")
    bias = model.engine.encoder.relative_attention_bias
    bias.weight = mx.array(np.zeros(bias.weight.shape, dtype=np.float32))
    assert np.abs(model.encode(expected["texts"].tolist()) - expected["encode"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", TINY)
def test_live_against_sentence_transformers(name: str) -> None:
    """Fresh random texts of every length up to past the maximum, in padded mixed batches on their side."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="PyTorch oracles are not installed")
    words = ["the", "wing", "flow", "of", "heat", "is", "in", "code", "qux", "42", "!"]
    rng = np.random.default_rng()
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.permutation(np.arange(0, 90))]
    oracle = sentence_transformers.SentenceTransformer(str(DATA / name), device="cpu")
    found = EmbeddingModel.from_pretrained(DATA / name, device="cpu").encode(texts)
    assert np.abs(found - oracle.encode(texts, batch_size=16)).max() <= TOLERANCE


def test_live_minilm(minilm: EmbeddingModel, minilm_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="PyTorch oracles are not installed")
    rng = np.random.default_rng()
    words = ["embedding", "naïve", "42", "日本", "aerodynamics", "?", "the"]
    texts = [" ".join(rng.choice(words, size=n)) for n in (0, 1, 2, 7, 31, 64, 300)]
    oracle = sentence_transformers.SentenceTransformer(str(minilm_path), device="cpu")
    assert np.abs(minilm.encode(texts) - oracle.encode(texts)).max() <= TOLERANCE
