"""`convert(..., quantize="int8-cpu")`: the layers that stay in bfloat16 are chosen, recorded and obeyed."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError, cli, convert, int8_layers
from tests.checkpoints import decoder, edit
from tests.conftest import DATA, minilm_folder

TINY = DATA / "tiny-bert"
HERE = cpu.available() and cpu.product("int8") and cpu.product("bfloat16")

pytestmark = pytest.mark.skipif(not HERE, reason="this machine has no products of int8 and bfloat16")


def vectors(folder: Path, dtype: str | None = None) -> np.ndarray:
    model = EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype)
    return np.asarray(model.encode(int8_layers.ODD, normalize_embeddings=True))


def least_cosine(folder: Path, dtype: str | None = None) -> float:
    return float((vectors(folder, dtype) * vectors(TINY)).sum(axis=1).min())


def stated(folder: Path) -> list[str]:
    return list(json.loads((folder / "config.json").read_text())["int8_cpu"]["bfloat16"])


def test_the_fewest_layers_that_are_enough_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = least_cosine(TINY, "int8")
    target = (1 + everything) / 2
    monkeypatch.setattr(int8_layers, "LEAST_COSINE", target)
    report = convert(TINY, tmp_path / "a", quantize="int8-cpu")
    kept = report.kept_in_bfloat16
    assert kept is not None
    assert 0 < len(kept) < 8
    assert list(kept) == stated(tmp_path / "a")
    assert everything < target <= least_cosine(tmp_path / "a") < 1 - 1e-6
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


@pytest.mark.parametrize("kept", [["layers.0.up"], []])
def test_the_report(
    kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8_layers, "choose", lambda *given: tuple(kept))
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
        ({"bfloat16": ["layers.7.up"]}, r"layers\.7\.up is to stay out of int8, and is no linear layer"),
    ],
)
def test_a_list_that_is_none(wrong: object, sentence: str, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "a")
    edit(tmp_path / "a", int8_cpu=wrong)
    with pytest.raises(CheckpointError, match=sentence):
        EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu")


@pytest.mark.skipif(minilm_folder() is None, reason="all-MiniLM-L6-v2 is not here")
def test_the_layers_of_a_real_model(tmp_path: Path) -> None:
    """What is chosen for it, on texts that had no part in the choice: docs/benchmarks.md has the figures."""
    folder = minilm_folder()
    assert folder is not None
    shutil.copytree(folder, tmp_path / "a")
    kept = ["layers.2.down", "layers.4.attention.qkv", "layers.4.up", "layers.5.attention.qkv"]
    edit(tmp_path / "a", int8_cpu={"bfloat16": kept})
    texts = ["thanks", "that", "above", "So?", "did", "not", "no", "Hi", "  ", "::", "ab", "я", "the wing stalls"]
    exact, found, everything = (
        np.asarray(EmbeddingModel.from_pretrained(path, device="cpu", dtype=dtype).encode(texts))
        for path, dtype in ((folder, "float32"), (tmp_path / "a", None), (folder, "int8"))
    )
    assert (exact * everything).sum(axis=1).min() < 0.993 < 0.995 <= (exact * found).sum(axis=1).min()
