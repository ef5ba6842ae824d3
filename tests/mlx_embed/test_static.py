"""Static models against the libraries that wrote their folders: golden vectors, and live."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import CheckpointError, EmbeddingModel, TruncationWarning, UnsupportedModelError
from mlx_embed.engine.table import TableEngine
from tests import oracles
from tests.conftest import DATA
from tests.static import CASES, TEXTS, TOKENS, WIDTH, make, save

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
VOCABULARY = len(TOKENS)
ENGINES = ["reference", *(["native"] if cpu.available() else [])]


def load(folder: Path, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(folder, device="cpu", **options)


def oracle(folder: Path) -> Any:
    """What the folder's own library makes of it."""
    if (folder / "config.json").exists():
        model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed")
        return model2vec.StaticModel.from_pretrained(folder)
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def close(name: str, found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal, as far as a library's float32 goes; of tables of float16 it gives float16."""
    bound = (1e-3 if CASES[name].get("dtype") == "float16" else 5e-6) * max(1, np.abs(expected).max())
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= bound)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, engine: str, tmp_path: Path) -> None:
    with np.load(DATA / "static.npz") as file:
        expected = file[name]
    found = load(make(tmp_path, name), engine=engine).encode(TEXTS)
    assert found.dtype == np.float32
    assert close(name, found, expected)


@pytest.mark.parametrize("name", CASES)
def test_live(name: str, tmp_path: Path) -> None:
    expected = oracle(make(tmp_path, name)).encode(TEXTS)
    assert close(name, load(tmp_path).encode(TEXTS), np.asarray(expected, dtype=np.float32))


def test_a_text_without_tokens_is_zeros(tmp_path: Path) -> None:
    model = load(make(tmp_path, "model2vec"))
    # An empty text, and one of which model2vec knows no token.
    assert not model.encode(["", "一"]).any()
    assert model.encode("the").any()
    assert model.token_counts(["", "一", "the"]).tolist() == [0, 1, 1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["sentence-transformers", "model2vec, mapped"])
def test_batches_change_nothing(name: str, engine: str, tmp_path: Path) -> None:
    model = load(make(tmp_path, name), engine=engine)
    whole = model.encode(TEXTS)
    assert np.abs(np.stack([model.encode(text) for text in TEXTS]) - whole).max() <= 1e-6
    for options in ({"batch_tokens": 7}, {"batch_size": 2}, {"batch_tokens": 1, "batch_size": 1}):
        assert np.abs(model.encode(iter(TEXTS), **options) - whole).max() <= 1e-6


def test_the_native_table_is_kept_as_it_is(tmp_path: Path) -> None:
    if not cpu.available():
        pytest.skip(cpu.why_unavailable())
    model = load(make(tmp_path, "model2vec, int8"))
    assert isinstance(model.engine, TableEngine)
    assert model.engine.encoder.table.rows.dtype == np.int8


def test_cut_texts_are_told(tmp_path: Path) -> None:
    model = load(make(tmp_path, "model2vec, cut at 5 tokens"))
    assert model.max_seq_length == 5
    texts = ["the wing", "the wing flow of heat heat", " " * 60 + "the wing"]
    with pytest.warns(TruncationWarning, match="2 of 3 texts .* has 6 or more"):
        _, info = model.encode(texts, return_info=True)
    assert info.truncated.tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"texts\[1\] has 6 tokens"):
        model.encode(texts, long_text="error")
    # All of a text, its spaces and all, where it is not cut.
    parts = model.encode(texts[2], long_text="mean_of_chunks")
    assert np.abs(parts - model.encode("the wing")).max() <= 1e-6
    model.max_seq_length = 100
    assert model.encode(texts, return_info=True)[1].truncated.tolist() == [False] * 3


def test_prompts_dimensions_and_similarity(tmp_path: Path) -> None:
    model = load(make(tmp_path, "sentence-transformers, dense"))
    assert np.abs(model.encode("flow") - model.encode("the wing flow", prompt="")).max() <= 1e-6
    assert model.encode("flow", truncate_dim=3).shape == (3,)
    assert model.dimension == 7
    assert model.similarity(model.encode("heat"), model.encode("heat")).item() == pytest.approx(1, abs=1e-5)


def broken(folder: Path, name: str, **tensors: np.ndarray | None) -> Path:
    make(folder, name)
    width = {"embeddings": np.ones((VOCABULARY, WIDTH), np.float32)}
    save(folder / "model.safetensors", {k: v for k, v in (width | tensors).items() if v is not None})
    return folder


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"embeddings": None, "vectors": np.ones((VOCABULARY, 4), np.float32)}, "neither a tensor"),
        ({"embeddings": np.ones(VOCABULARY, np.float32)}, r"where .* \[rows, dimensions\] is needed"),
        ({"embeddings": np.ones((VOCABULARY, 4), np.int64)}, "is I64"),
        ({"embeddings": np.full((VOCABULARY, 4), np.nan, np.float32)}, "NaN or infinite"),
        ({"embeddings": np.ones((9, 4), np.float32)}, "token ids up to 14"),
        ({"weights": np.ones(7, np.float32)}, r"where .* \[15\] is needed"),
        ({"mapping": np.full(VOCABULARY, 118, np.int64)}, "rows that are not within 0..14"),
        ({"mapping": np.full(VOCABULARY, -1, np.int64)}, "rows that are not within 0..14"),
        ({"mapping": np.ones(VOCABULARY, np.float32)}, "where I64 or I32"),
    ],
)
def test_broken_tables(tensors: dict[str, np.ndarray | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(broken(tmp_path, "model2vec", **tensors))


def test_broken_settings(tmp_path: Path) -> None:
    make(tmp_path, "model2vec")
    for config, message in (({"max_length": -1}, "max_length"), ({"normalize": "yes"}, "normalize")):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(CheckpointError, match="no vocabulary"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load(tmp_path)


def test_two_tables_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "sentence-transformers")
    path = tmp_path / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(UnsupportedModelError, match="StaticEmbedding -> StaticEmbedding"):
        load(tmp_path)


def test_a_dtype_that_is_asked_for_changes_nothing_and_is_said(tmp_path: Path) -> None:
    make(tmp_path, "model2vec")
    with pytest.warns(UserWarning, match="float16 changes nothing"):
        model = load(tmp_path, dtype="float16")
    assert (model.encode(TEXTS) == load(tmp_path).encode(TEXTS)).all()
