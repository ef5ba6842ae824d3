"""The dtype of a model on the CPU, and quantized weights in MLX's graphs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel, convert
from mlx_embed.architectures import ARCHITECTURES, architecture
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.engine import choice, default_dtype
from mlx_embed.engine.device import DTYPES
from mlx_embed.engine.graph import GraphEngine
from tests.conftest import DATA, minilm_folder
from tests.mlx_embed.architectures.cases import BASES, DECODERS, encode, golden, least_cosine, make

ROOT = Path(__file__).parents[3]

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


NARROW = [
    pytest.param(
        dtype, least, marks=pytest.mark.skipif(not (cpu.available() and cpu.product(dtype)), reason=f"no {dtype} here")
    )
    for dtype, least in (("bfloat16", 0.9998), ("int8", 0.998))
]


@pytest.mark.parametrize(("dtype", "least"), NARROW)
@pytest.mark.parametrize("name", BASES)
def test_narrow_products_on_the_cpu(name: str, dtype: str, least: float, tmp_path: Path) -> None:
    texts, expected = golden(name)
    model = EmbeddingModel.from_pretrained(make(name, tmp_path), device="cpu", dtype=dtype)
    assert (model.engine.name, f"dtype={dtype}" in repr(model)) == ("native", True)
    found = model.encode(texts, normalize_embeddings=True)
    # A tiny decoder's last token stands alone, and no mean takes off what was rounded; UltraBERT has its layers.
    lost = (1 - least) * (4 if name in (*DECODERS, "embedding_gemma2", "ultrabert") else 1)
    assert 1 - lost <= least_cosine(found, expected) < 1 - 1e-6, "rounded, and by no more than that"


@pytest.mark.parametrize(("dtype", "least"), NARROW)
@pytest.mark.parametrize("name", [name for name in BASES if name != "gemma3_text"])  # its Dense layers are numpy's
def test_a_narrow_vector_does_not_depend_on_its_batch(name: str, dtype: str, least: float, tmp_path: Path) -> None:
    """Bit for bit, which rounding by the range of a whole batch would not give."""
    texts, _ = golden(name)
    model = EmbeddingModel.from_pretrained(make(name, tmp_path), device="cpu", dtype=dtype)
    single = np.stack([model.encode(text) for text in texts])
    assert np.array_equal(model.encode(texts), single)
    assert np.array_equal(model.encode(texts[::-1], batch_tokens=90), single[::-1])


@pytest.mark.skipif(minilm_folder() is None, reason="all-MiniLM-L6-v2 is not here")
@pytest.mark.parametrize(("dtype", "least"), NARROW)
def test_narrow_products_of_a_real_model(dtype: str, least: float) -> None:
    """What docs/benchmarks.md promises of real weights, on sentences of the repository's own."""
    folder = minilm_folder()
    assert folder is not None
    texts = [line for line in (ROOT / "README.md").read_text().split("\n") if len(line) > 40]
    exact = EmbeddingModel.from_pretrained(folder, device="cpu").encode(texts)
    found = EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype).encode(texts)
    cosines = (exact * found).sum(axis=1)
    promised, mean = {"bfloat16": (0.9999, 0.99998), "int8": (0.995, 0.9975)}[dtype]
    assert cosines.min() >= promised
    assert cosines.mean() >= mean


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "nomic_bert"])
def test_quantized_weights(name: str, engine: str, tmp_path: Path) -> None:
    """Of 8 bits, in rows of 32 alone: what is between the layers is as ever."""
    texts, expected = golden(name)
    convert(make(name, tmp_path / "a"), tmp_path / "b", quantize=8, group_size=32)
    assert least_cosine(encode(tmp_path / "b", texts, engine=engine), expected) >= 0.999


@pytest.mark.parametrize(
    ("accelerator", "stored", "asked", "computed"),
    [
        ("metal", "float32", None, mx.float16),
        ("metal", "float32", "float32", mx.float32),
        ("metal", "bfloat16", None, mx.bfloat16),
        ("metal", "float16", None, mx.float16),
        ("cuda", "float32", None, mx.float32),
    ],
)
def test_a_float32_checkpoint_is_float16_on_metal_unless_asked_for(
    accelerator: str,
    stored: str,
    asked: str | None,
    computed: mx.Dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device is played by the CPU."""
    folder = DATA / "tiny-bert"
    if stored != "float32":
        folder = tmp_path / "stored"
        convert(DATA / "tiny-bert", folder, dtype=stored)
    monkeypatch.setattr(choice, "accelerator", lambda: accelerator)
    monkeypatch.setattr(choice, "is_cpu", lambda device: False)
    monkeypatch.setattr(GraphEngine, "prepare", lambda self, longest: None)
    resolved = None if asked is None else DTYPES[asked]
    monkeypatch.setattr("mlx_embed.loading.resolve_dtype", lambda name, device: resolved)
    model = EmbeddingModel.from_pretrained(folder, device="cpu", engine="reference", dtype=asked)
    assert isinstance(model.engine, GraphEngine)
    assert model.engine.dtype == computed


# By their model_type, those of which no hidden state leaves float16's range.
IN_FLOAT16 = {
    *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "eurobert", "gte", "jina_bert"),
    *("jina_embeddings_v3", "modernbert", "mpnet", "new", "nomic_bert", "roberta", "ultrabert", "xlm-roberta"),
}
# What is told apart by more of config.json than its model_type.
OF_MORE = [
    ({"model_type": "jina_embeddings_v5", "is_decoder": False}, mx.float16),
    ({"model_type": "jina_embeddings_v5"}, None),
    ({"model_type": "bert", "position_embedding_type": "alibi"}, mx.float16),
]


@pytest.mark.parametrize(
    ("config", "computed"),
    [({"model_type": name}, mx.float16 if name in IN_FLOAT16 else None) for name in ARCHITECTURES] + OF_MORE,
    ids=str,
)
def test_what_leaves_the_range_of_float16_is_not_computed_in_it(
    config: dict[str, Any], computed: mx.Dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders and T5, whatever their model_type is called; each of the weights is float32."""
    monkeypatch.setattr(choice, "accelerator", lambda: "metal")
    bert = read_checkpoint(DATA / "tiny-bert", "", "SentenceTransformer", cache_dir=None, local_files_only=True)
    found = replace(bert, config=config, architecture=architecture(config))
    assert default_dtype(found, mx.Device(mx.gpu)) == computed


def test_packed_numbers_stay_as_they_are_on_metal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have scales of their own."""
    monkeypatch.setattr(choice, "accelerator", lambda: "metal")
    convert(DATA / "tiny-bert", tmp_path / "packed", quantize=8, group_size=32)
    packed = read_checkpoint(tmp_path / "packed", "", "SentenceTransformer", cache_dir=None, local_files_only=True)
    assert default_dtype(packed, mx.Device(mx.gpu)) is None
