"""What an index says of itself, and which models it refuses."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreMismatchError
from mlx_embed.index import Index
from mlx_embed.index.statement import Statement
from tests.checkpoints import NORMALIZE, dense, pooling, with_modules
from tests.conftest import DATA
from tests.mlx_embed.checkpoint import test_jina_v5
from tests.mlx_embed.checkpoint.test_tasks import authors


@pytest.fixture
def folder(model: EmbeddingModel, tmp_path: Path) -> Path:
    with Index.create(tmp_path / "index", model, document_prompt="passage: ", row_dtype="int8", chunker="c 1") as index:
        index.add(["a"], ["the wing"])
    return tmp_path / "index"


def test_the_statement(folder: Path, model: EmbeddingModel) -> None:
    with Index.open(folder, model) as index:
        said = index.statement
    assert (said.model, said.dimension, said.max_seq_length) == (model.name, 32, model.max_seq_length)
    assert (said.query_prompt, said.document_prompt, said.row_dtype, said.chunker) == ("", "passage: ", "int8", "c 1")
    assert (said.similarity, said.format, said.revision, len(said.weights)) == ("cosine", 1, "", 64)
    assert Path(said.folder) == model.checkpoint.folder


def test_the_same_weights_under_another_name_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(DATA / "tiny-bert", tmp_path / "copied")
    with Index.open(folder, str(tmp_path / "copied")) as index:
        assert index.search("wing")[0].id == "a"


def test_other_models_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"is of .*tiny-bert \(weights .* and the model given is .*tiny-mpnet"):
        Index.open(folder, str(DATA / "tiny-mpnet"))
    changed = shutil.copytree(DATA / "tiny-bert", tmp_path / "changed")
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    with pytest.raises(StoreMismatchError, match="weights"):
        Index.open(folder, EmbeddingModel.from_pretrained(changed, device="cpu"))
    other = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=16)
    with pytest.raises(StoreMismatchError, match="max_seq_length 64, not 16"):
        Index.open(folder, other)
    cut = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    cut.truncate_dim = 8
    with pytest.raises(StoreMismatchError, match="dimension 32, not 8"):
        Index.open(folder, cut)


def test_other_prompts_and_types_are_refused(folder: Path, model: EmbeddingModel) -> None:
    options = {"document_prompt": "passage: ", "row_dtype": "int8", "chunker": "c 1"}
    Index.create(folder, model, exist_ok=True, **options).close()  # type: ignore[arg-type]
    for change in ({"document_prompt": "x"}, {"query_prompt": "x"}, {"row_dtype": "float32"}, {"chunker": "c 2"}):
        with pytest.raises(StoreMismatchError, match=next(iter(change))):
            Index.create(folder, model, exist_ok=True, **(options | change))  # type: ignore[arg-type]


def test_a_model_that_has_changed_in_its_place_is_seen(tmp_path: Path) -> None:
    place = shutil.copytree(DATA / "tiny-bert", tmp_path / "model")
    with Index.create(tmp_path / "index", str(place)) as index:
        index.add(["a"], ["the wing"])
    weights = bytearray((place / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (place / "model.safetensors").write_bytes(weights)
    with Index.open(tmp_path / "index") as index:
        assert index.search("wing", mode="text")[0].id == "a"
        with pytest.raises(StoreMismatchError, match="weights"):
            index.search("wing")


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        ([pooling("cls"), NORMALIZE], "cls, length 1"),
        ([pooling("mean", include_prompt=False), NORMALIZE], "mean without prompt, length 1"),
        ([pooling("mean"), dense(32, 32), NORMALIZE], r"mean, Dense\(in_features=32, out_features=32\), length 1"),
        ([pooling("mean")], "mean"),
    ],
)
def test_the_same_weights_pooled_otherwise_are_refused(
    folder: Path, tmp_path: Path, stack: list[tuple[str, dict[str, Any]]], said: str
) -> None:
    other = with_modules(tmp_path / "other", stack)
    with Index.open(folder) as index:
        ours = index.statement
    theirs = replace(Statement.of(EmbeddingModel.from_pretrained(other, device="cpu")), weights=ours.weights)
    alike = {name: getattr(ours, name) for name in ("document_prompt", "row_dtype", "chunker")}
    with pytest.raises(StoreMismatchError, match=f"the vectors 'mean, length 1', not '{said}'"):
        ours.require(replace(theirs, **alike), folder)
    replace(ours, vectors="").require(replace(theirs, **alike), folder)  # made before it was kept


def test_a_statement_of_lowercase_texts_and_of_a_task(folder: Path, tmp_path: Path) -> None:
    lower = shutil.copytree(DATA / "tiny-bert", tmp_path / "lower")
    (lower / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": true}')
    assert Statement.of(EmbeddingModel.from_pretrained(lower, device="cpu")).vectors.endswith(", of lowercase texts")
    place = test_jina_v5.authors(tmp_path / "v5", "nano")
    model = EmbeddingModel.from_pretrained(place, device="cpu", task="clustering")
    with Index.create(tmp_path / "tasks", model) as index:
        index.add(["a"], ["the wing stalls"])
    with Index.open(tmp_path / "tasks") as index:
        assert index.search("the wing stalls", mode="vector")[0].id == "a"
        assert index.model.checkpoint.task == "clustering"
        said = index.statement
    with pytest.raises(StoreMismatchError, match="the task 'clustering', not 'retrieval'"):
        said.require(replace(said, task="retrieval"), folder)


def test_a_model_that_was_set_otherwise_is_loaded_as_it_was(tmp_path: Path) -> None:
    place = shutil.copytree(DATA / "tiny-bert", tmp_path / "model")
    settings = json.loads((place / "config_sentence_transformers.json").read_text())
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings | {"similarity_fn_name": "euclidean"}))
    model = EmbeddingModel.from_pretrained(place, device="cpu", max_seq_length=16)
    model.truncate_dim, model.similarity_fn_name = 8, "cosine"
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["the wing stalls"])
    with Index.open(tmp_path / "index") as index:
        assert index.search("the wing stalls", mode="vector")[0].score == pytest.approx(1, abs=1e-6)


def test_a_model_with_tasks_has_their_prompts(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(authors(tmp_path / "model"), device="cpu")
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["the wing"])
        ((_, vectors),) = index.everything()
        (hit,) = index.search("flow", mode="vector")
    text, query = model.encode_document("the wing"), model.encode_query("flow")
    assert np.abs(vectors[0] - text).max() <= 1e-5
    assert hit.score == pytest.approx(float(query @ text), abs=1e-5)


def test_another_format_is_refused(folder: Path) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    (text,) = connection.execute("SELECT value FROM meta WHERE key = 'statement'").fetchone()
    text = json.dumps(json.loads(text) | {"format": 2, "new": 1})
    connection.execute("UPDATE meta SET value = ? WHERE key = 'statement'", (text,))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'check'", (str(crc32(text.encode())),))
    connection.commit()
    connection.close()
    (folder / "index.seal").unlink()
    with pytest.raises(StoreMismatchError, match="format 2, and this version of mlx-embed reads 1"):
        Index.open(folder)
