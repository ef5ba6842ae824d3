"""Which layers stay in bfloat16 in int8: chosen at the first load, or by `convert`, remembered and obeyed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import (
    CheckpointError,
    CrossEncoder,
    EmbeddingModel,
    SparseEncoder,
    UnsupportedModelError,
    cli,
    convert,
    int8_layers,
)
from mlx_embed.checkpoint.int8 import Int8Layers, factors, nearest
from mlx_embed.engine.native import NativeEngine
from tests.checkpoints import classifier, decoder, edit, read, reranker
from tests.conftest import DATA, minilm_folder
from tests.sparse import make as make_sparse

TINY = DATA / "tiny-bert"
HERE = cpu.available() and cpu.product("int8") and cpu.product("bfloat16")

pytestmark = pytest.mark.skipif(not HERE, reason="this machine has no products of int8 and bfloat16")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def remembered() -> list[Path]:
    return sorted((Path(os.environ["XDG_CACHE_HOME"]) / "mlx-embed" / "int8").glob("*"))


def kept_by(folder: Path) -> tuple[str, ...]:
    engine = EmbeddingModel.from_pretrained(folder, device="cpu", dtype="int8").engine
    assert isinstance(engine, NativeEngine)
    assert engine.dtype == mx.int8
    return engine.kept


def vectors(folder: Path, dtype: str | None = None) -> np.ndarray:
    model = EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype)
    return np.asarray(model.encode(int8_layers.ODD, normalize_embeddings=True))


def least_cosine(folder: Path, dtype: str | None = None) -> float:
    return float((vectors(folder, dtype) * vectors(TINY)).sum(axis=1).min())


def stated(folder: Path) -> list[str]:
    return list(json.loads((folder / "config.json").read_text())["int8_cpu"]["bfloat16"])


def halfway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A cosine to ask for that int8 alone does not have, and bfloat16 has."""
    with monkeypatch.context() as within:
        within.setattr(int8_layers, "LEAST_COSINE", -1.0)
        within.setattr(int8_layers, "_file", lambda checkpoint: folder / "not remembered")
        everything = least_cosine(TINY, "int8")
    monkeypatch.setattr(int8_layers, "LEAST_COSINE", (1 + everything) / 2)
    return everything


def test_a_load_chooses_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = halfway(tmp_path, monkeypatch)
    shutil.copytree(TINY, tmp_path / "a")
    kept = kept_by(tmp_path / "a")
    assert 0 < len(kept) < 12
    found = vectors(tmp_path / "a", "int8")
    assert everything < int8_layers.LEAST_COSINE - 1e-5 <= (found * vectors(TINY)).sum(axis=1).min()
    (file,) = remembered()
    assert tuple(json.loads(file.read_text())["bfloat16"]) == tuple(sorted(kept))
    assert tuple(sorted(kept_by(TINY))) == tuple(sorted(kept)), "the same weights elsewhere, the same layers"
    choose = int8_layers.choose

    def never(*given: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(int8_layers, "choose", never)
    assert kept_by(tmp_path / "a") == kept
    assert np.array_equal(vectors(tmp_path / "a", "int8"), found)
    EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu", dtype="bfloat16")
    # Other weights in the same place, and what is remembered cut off.
    monkeypatch.setattr(int8_layers, "choose", choose)
    os.utime(tmp_path / "a" / "model.safetensors", (1, 1))
    kept_by(tmp_path / "a")
    assert len(remembered()) == 3
    for file in remembered():
        file.write_text('{"bfloat16": ["layers.')
    assert kept_by(TINY) == kept


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halfway(tmp_path, monkeypatch)
    kept = kept_by(TINY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(TINY / "config.json"))
    assert kept_by(TINY) == kept


def test_other_kinds_of_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_layers, "LEAST_COSINE", 1.1)
    (tmp_path / "reranker").mkdir()
    sparse = make_sparse(tmp_path / "sparse", "bert")
    pairs = reranker("bert", 1, tmp_path / "reranker")
    for kind, folder in ((CrossEncoder, pairs), (SparseEncoder, sparse)):
        engine: Any = kind.from_pretrained(folder, device="cpu", dtype="int8").engine
        assert engine.kept == tuple(engine.layers)


@pytest.mark.parametrize("mode", ["mean", "lasttoken"])
def test_a_text_without_tokens_keeps_no_layers(mode: str, tmp_path: Path) -> None:
    """Of which a mean is zeros, and as far from themselves as could be."""
    (tmp_path / "a").mkdir()
    folder = decoder("qwen3", tmp_path / "a")
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    kept = kept_by(folder)
    assert len(kept) < 12
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    assert len(EmbeddingModel.from_pretrained(folder, device="cpu").tokenizer([""]).ids[0]) == 0
    for path in remembered():
        path.unlink()
    assert len(kept_by(folder)) < 12


def test_a_decoders_classifier_is_measured_by_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the folder as an embedding model by its mean: each is remembered by itself."""
    folder, measured = classifier("qwen3", tmp_path / "a"), []
    choose = int8_layers.choose

    def watched(checkpoint: Any, max_seq_length: int) -> Any:
        measured.append(checkpoint.pooling.modes)
        return choose(checkpoint, max_seq_length)

    monkeypatch.setattr(int8_layers, "choose", watched)
    for _ in range(2):
        CrossEncoder.from_pretrained(folder, device="cpu", dtype="int8")
        EmbeddingModel.from_pretrained(folder, device="cpu", dtype="int8")
    assert measured == [("lasttoken",), ("mean",)]
    assert len(remembered()) == 2
    convert(folder, tmp_path / "b", quantize="int8-cpu")
    tensors = {name: x for name, x in read(classifier("qwen3", tmp_path / "c")).items() if name != "score.weight"}
    mx.save_safetensors(str(tmp_path / "c" / "model.safetensors"), tensors, metadata={"format": "pt"})
    convert(tmp_path / "c", tmp_path / "d", quantize="int8-cpu")
    (tmp_path / "e").mkdir()
    CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path / "e"), device="cpu", dtype="int8")
    assert measured[2:] == [("lasttoken",), ("mean",), ("mean",)]


def test_attention_in_float32_beside_narrow_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where products are by tiles, and those of attention's instruction are slow."""
    in_halves, as_here = cpu.attends("bfloat16"), vectors(TINY, "bfloat16")
    monkeypatch.setattr(cpu, "attends", lambda dtype: dtype == "float32")
    found = vectors(TINY, "bfloat16")
    assert np.array_equal(found, as_here) != in_halves
    assert (found * vectors(TINY)).sum(axis=1).min() > 0.9999
    monkeypatch.setattr(int8_layers, "LEAST_COSINE", 1.1)
    engine = EmbeddingModel.from_pretrained(TINY, device="cpu", dtype="int8").engine
    assert isinstance(engine, NativeEngine)
    assert {layer.dtype for layer in engine.layers.values()} == {"bfloat16"}


def test_the_layers_that_are_kept_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = halfway(tmp_path, monkeypatch)
    target = int8_layers.LEAST_COSINE
    report = convert(TINY, tmp_path / "a", quantize="int8-cpu")
    kept = report.kept_in_bfloat16
    assert kept is not None
    assert 0 < len(kept) < 12
    assert list(kept) == stated(tmp_path / "a")
    assert everything < target - 1e-5 <= least_cosine(tmp_path / "a") < 1 - 1e-6
    assert "dtype=int8" in repr(EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu"))
    assert np.array_equal(vectors(tmp_path / "a", "int8"), vectors(tmp_path / "a"))
    assert np.array_equal(vectors(tmp_path / "a", "float32"), vectors(TINY)), "weights are as they were"
    assert np.array_equal(vectors(tmp_path / "a", "bfloat16"), vectors(TINY, "bfloat16"))
    model = EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu", engine="reference")
    assert "dtype=float32" in repr(model)
    convert(tmp_path / "a", tmp_path / "b")
    assert "int8_cpu" not in json.loads((tmp_path / "b" / "config.json").read_text())


def test_no_layer_stays_where_none_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_layers, "LEAST_COSINE", 0.9)
    assert convert(TINY, tmp_path / "a", quantize="int8-cpu").kept_in_bfloat16 == ()
    assert np.array_equal(vectors(tmp_path / "a"), vectors(TINY, "int8"))
    assert kept_by(TINY) == ()
    edit(tmp_path / "a", int8_cpu={"bfloat16": []})  # as earlier versions wrote it
    unscaled = vectors(tmp_path / "a")
    assert not np.array_equal(unscaled, vectors(TINY, "int8"))
    monkeypatch.setattr(int8_layers, "known", lambda checkpoint: Int8Layers())
    assert np.array_equal(unscaled, vectors(TINY, "int8"))


@pytest.mark.parametrize("kept", [["layers.0.up"], []])
def test_the_report(
    kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8_layers, "choose", lambda *given: (None, Int8Layers(tuple(kept))))
    assert cli.main(["convert", str(TINY), str(tmp_path / "a"), "--quantize", "int8-cpu"]) == 0
    assert f"on a CPU computed in int8; in bfloat16: {kept[0] if kept else 'no layer'}\n" in capsys.readouterr().out


def test_a_decoder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    report = convert(decoder("qwen3", tmp_path / "a"), tmp_path / "b", quantize="int8-cpu")
    assert report.min_cosine >= int8_layers.LEAST_COSINE
    assert EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu").engine.dtype == mx.int8


def test_what_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="quantize is 'int4-cpu' and not 'int8-cpu'"):
        convert(TINY, tmp_path / "b", quantize="int4-cpu")
    monkeypatch.setattr(cpu, "product", lambda dtype: "")
    with pytest.raises(UnsupportedModelError, match="no products of int8"):
        convert(TINY, tmp_path / "b", quantize="int8-cpu")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ([], "without a list of layers"),
        ({}, "without a list of layers"),
        ({"bfloat16": "layers.0.up"}, "without a list of layers"),
        ({"bfloat16": [1]}, "without a list of layers"),
        ({"bfloat16": ["layers.7.up"]}, r"how to compute layers\.7\.up, which is no linear layer"),
        ({"bfloat16": [], "columns": ["layers.0.up"]}, "not a string a layer"),
        ({"bfloat16": [], "columns": {"layers.0.up": 1}}, "not a string a layer"),
        ({"bfloat16": [], "columns": {"layers.7.up": ""}}, r"how to compute layers\.7\.up, which is no linear layer"),
        (
            {"bfloat16": [], "columns": {"layers.0.up": "AAAA"}},
            r"layers\.0\.up that are no base64 of 32 bytes; convert",
        ),
        ({"bfloat16": [], "columns": {"layers.0.up": "é"}}, r"layers\.0\.up that are no base64 of 32 bytes; convert"),
    ],
)
def test_a_list_that_is_none(wrong: object, sentence: str, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "a")
    edit(tmp_path / "a", int8_cpu=wrong)
    with pytest.raises(CheckpointError, match=sentence):
        EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu")


def test_factors_of_columns() -> None:
    """As near as eighths of a power of two are, but for one common to all."""
    wanted = np.exp2(np.random.default_rng(0).normal(size=101)).astype(np.float32)
    found = factors("up", nearest(wanted), np.ones((3, 101), np.float32))
    assert found.dtype == np.float32
    assert np.median(found) == 1
    ratio = found / wanted
    assert (ratio / np.median(ratio)).max() <= 2 ** (1 / 8)
    wanted[:2] = 1e-30, 1e30
    far = factors("up", nearest(wanted), np.ones((3, 101), np.float32))
    assert list(far[:2]) == [2 ** (-127 / 8), 2 ** (127 / 8)]


def test_columns_are_balanced() -> None:
    greatest, weight = np.array([4, 1, 0, 1], np.float32), np.array([[1, 1, 1, 1], [-1, -4, 0, 0]], np.float32)
    wanted = np.sqrt(np.array([4, 1 / 4, int8_layers.SHARE * 1.5, 1], np.float32))
    np.testing.assert_allclose(int8_layers.balanced(greatest, weight), wanted, rtol=1e-6)
    nothing = int8_layers.balanced(np.zeros(4, np.float32), np.zeros((2, 4), np.float32))
    assert np.array_equal(nothing, np.ones(4))


@pytest.mark.skipif(minilm_folder() is None, reason="all-MiniLM-L6-v2 is not here")
def test_the_layers_of_a_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """On texts that had no part in the choice: scripts/bench_int8.py has many more."""
    folder = minilm_folder()
    assert folder is not None
    texts = ["thanks", "thank", "yes", "actually", "anyone", "above", "So?", "did", "Hi", "  ", "::", "я", "the wing"]
    assert not set(texts) & set(int8_layers.ODD)
    exact, found = (
        np.asarray(EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype).encode(texts))
        for dtype in ("float32", "int8")
    )
    monkeypatch.setattr(int8_layers, "known", lambda checkpoint: Int8Layers())
    everything = EmbeddingModel.from_pretrained(folder, device="cpu", dtype="int8").encode(texts)
    assert (exact * everything).sum(axis=1).min() < 0.993 < 0.995 <= (exact * found).sum(axis=1).min()
