"""Models that are pickled, copied or sent to another process: loaded again there, as they were."""

import copy
import json
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel, ModelNotFoundError
from tests.checkpoints import reranker
from tests.conftest import DATA

TEXTS = ["the wing", "heat of the boundary layer " * 20]
PAIRS = [("the wing", "heat"), ("note", "code index " * 40)]
COPIES = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_an_embedding_model(copied: Any, checkpoint: Path) -> None:
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "heat: "}}))
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu", engine="reference", dtype="float16")
    model.name = "org/name"
    model.max_seq_length = 9
    model.truncate_dim = 8
    model.prompts["other"] = "code: "
    model.default_prompt_name = "other"
    model.similarity_fn_name = "dot"
    found = copied(model)
    assert found is not model
    assert found.engine is not model.engine
    assert repr(found) == repr(model)
    assert (found.engine.name, found.dtype, found.device) == (model.engine.name, mx.float16, model.device)
    assert np.array_equal(found.encode(TEXTS), model.encode(TEXTS))
    assert np.array_equal(found.encode_query(TEXTS), model.encode_query(TEXTS))
    assert (found.similarity_fn_name, found.dimension) == ("dot", 8)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_reranker(copied: Any, tmp_path: Path) -> None:
    model = CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu", max_seq_length=20)
    model.activation = "Identity"
    model.prompts["q"] = "note "
    model.default_prompt_name = "q"
    found = copied(model)
    assert repr(found) == repr(model)
    assert (found.max_seq_length, found.default_prompt_name) == (20, "q")
    assert np.array_equal(found.predict(PAIRS), model.predict(PAIRS))


@pytest.mark.parametrize("device", ["cpu", mx.Device(mx.cpu)])
@pytest.mark.parametrize("dtype", [None, "bfloat16", mx.bfloat16])
def test_options_travel_by_name(device: Any, dtype: Any) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device=device, dtype=dtype)
    found = pickle.loads(pickle.dumps(model))
    assert (found.dtype, found.device) == (model.dtype, mx.Device(mx.cpu))


def test_another_process(tmp_path: Path) -> None:
    """By spawn, which starts anew and knows only what is pickled."""
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=9)
    scorer = CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert np.array_equal(pool.submit(model.encode, TEXTS).result(60), model.encode(TEXTS))
        assert np.array_equal(pool.submit(scorer.predict, PAIRS).result(60), scorer.predict(PAIRS))


def test_a_folder_given_by_where_we_are(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    sent = pickle.dumps(EmbeddingModel.from_pretrained(checkpoint.name, device="cpu"))
    monkeypatch.chdir(os.sep)
    assert pickle.loads(sent).name == checkpoint.name


def test_the_folder_is_gone(checkpoint: Path) -> None:
    sent = pickle.dumps(EmbeddingModel.from_pretrained(checkpoint, device="cpu"))
    shutil.rmtree(checkpoint)
    with pytest.raises(ModelNotFoundError, match=r"checkpoint is not here, where this EmbeddingModel was loaded from"):
        pickle.loads(sent)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_model_made_of_parts(copied: Any, tiny_bert: EmbeddingModel) -> None:
    made = EmbeddingModel(tiny_bert.checkpoint, tiny_bert.tokenizer, tiny_bert.engine, [])
    with pytest.raises(TypeError, match="This EmbeddingModel was made of parts; only one that `from_pretrained`"):
        copied(made)


@pytest.mark.parametrize(("said", "taken"), [(100_000, 64), (64, 64), (9, 9), (None, 64)])
def test_a_checkpoint_names_no_more_tokens_than_it_has_positions(
    said: int | None, taken: int, checkpoint: Path
) -> None:
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": said}))
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    assert model.max_seq_length == taken
    with pytest.warns(UserWarning, match=f"only {taken} tokens of each were embedded"):
        model.encode("the wing " * 200)
