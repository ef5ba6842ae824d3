"""How far a conversion may be from its source, and what of its options reaches the hub."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel, MLXEmbedError, convert
from mlx_embed.checkpoint import heads, weights
from tests.checkpoints import reranker
from tests.conftest import DATA

NOISE = np.random.default_rng(5).normal(size=(120, 32)).astype(np.float32)
# A token that one of the sample texts has, and no other.
PLUS = 71


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Callable[[mx.array], mx.array]) -> None:
    """Let the word embeddings that `convert` writes be others than those of the source."""
    save = weights.save_encoder

    def spoil(encoder: Any, *rest: Any) -> None:
        table = encoder.embeddings.word_embeddings
        table.weight = change(table.weight)
        save(encoder, *rest)

    monkeypatch.setattr(weights, "save_encoder", spoil)


@pytest.mark.parametrize("scale", [0.03, 0.06])
def test_vectors_a_little_off_are_refused(scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled(monkeypatch, lambda table: table + mx.array(scale * NOISE))
    with pytest.raises(MLXEmbedError, match=r"vectors differ from the source's \(cosine 0\.9[6-9]\d+\); nothing was"):
        convert(DATA / "tiny-bert", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_worst_of_the_texts_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.where(np.arange(120)[:, None] == PLUS, NOISE, 0)
    spoiled(monkeypatch, lambda table: table + mx.array(4 * row))
    with pytest.raises(MLXEmbedError, match=r"cosine 0\.998\d+\); nothing was"):
        convert(DATA / "tiny-bert", tmp_path / "a")


@pytest.mark.parametrize(("words", "fits"), [(60, True), (61, True), (62, False), (99, False)])
def test_a_default_prompt_that_leaves_no_room(words: int, fits: bool, tmp_path: Path) -> None:
    """Of 64 tokens two are special ones."""
    source = shutil.copytree(DATA / "tiny-bert", tmp_path / "source")
    stated = {"prompts": {"long": "the " * words}, "default_prompt_name": "long"}
    (source / "config_sentence_transformers.json").write_text(json.dumps(stated))
    if fits:
        assert convert(source, tmp_path / "a").min_cosine > 0.999
        return
    with pytest.raises(
        ValueError, match=rf"default prompt 'long' of .* has {words + 1} tokens .* reads 64: .* Shorten"
    ):
        convert(source, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_scores_a_little_off_are_refused(factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    source = reranker("bert", 1, tmp_path / "a")
    arrays = heads.head_arrays
    monkeypatch.setattr(
        heads,
        "head_arrays",
        lambda *given: {name: x * factor if "classifier" in name else x for name, x in arrays(*given).items()},
    )
    with pytest.raises(MLXEmbedError, match="scores differ from the source's"):
        convert(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("options", [{"local_files_only": True}, {"local_files_only": False, "revision": "v1.5"}])
@pytest.mark.parametrize("what", ["convert", "EmbeddingModel", "CrossEncoder"])
def test_what_is_asked_of_the_hub(
    what: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, by everything that takes these options."""
    (tmp_path / "there").mkdir()
    there = reranker("bert", 1, tmp_path / "there")
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(name: str, **given: Any) -> str:
        asked.append((name, given))
        return str(there)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    wanted = {"revision": None, "cache_dir": tmp_path / "cache", **options}
    if what == "convert":
        convert("somebody/some-model", tmp_path / "out", **wanted)
    else:
        kind = {"EmbeddingModel": EmbeddingModel, "CrossEncoder": CrossEncoder}[what]
        kind.from_pretrained("somebody/some-model", device="cpu", **wanted)
    ((name, given),) = asked
    assert name == "somebody/some-model"
    assert {key: given[key] for key in wanted} == wanted
