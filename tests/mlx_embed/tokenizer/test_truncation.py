"""The warning that texts were cut: once for a model, counted over the whole call, at the caller's line."""

import re
from pathlib import Path

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, SparseEncoder, TruncationWarning
from mlx_embed import texts as texts_module
from tests.conftest import DATA
from tests.sparse import make as make_sparse


def test_truncation_is_said_once(recwarn: pytest.WarningsRecorder) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=4)
    model.encode(["the wing"])
    assert not recwarn.list
    for more in range(2):
        model.encode(["a", "the wing flow", "the wing flow heat", *["heat flow index"] * more])
    (said,) = recwarn.list
    assert said.category is TruncationWarning
    assert re.match(r"2 of 3 texts are longer than the model's 4 tokens \(the longest has 6\)", str(said.message))
    assert 'long_text="mean_of_chunks"' in str(said.message)
    assert said.filename == __file__, "the user's line is blamed"


def test_only_what_a_model_has_is_recommended(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = SparseEncoder.from_pretrained(make_sparse(tmp_path / "sparse", "bert"), device="cpu", max_seq_length=4)
    model.encode(["the wing flow heat"])
    (said,) = recwarn.list
    assert said.category is TruncationWarning
    assert str(said.message).endswith("only 4 tokens of each were embedded. This is said once for a model.")


@pytest.mark.parametrize("way", ["encode", "encode_query", "encode_document"])
def test_all_windows_of_a_call_are_counted(
    way: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(texts_module, "FIRST_WINDOW", 2)
    monkeypatch.setattr(texts_module, "WINDOW", 3)
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=4)
    getattr(model, way)(f"{'the wing ' * n}" for n in (1, 9, 2, 3, 1, 30, 1, 5))
    (said,) = recwarn.list
    assert re.match(r"5 of 8 texts .* \(the longest has 62\)", str(said.message))
    assert said.filename == __file__


@pytest.mark.parametrize("long_text", ["mean_of_chunks", "error"])
def test_nothing_is_said_where_nothing_is_cut(long_text: str, recwarn: pytest.WarningsRecorder) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=4)
    texts = ["the wing " * 9] if long_text == "mean_of_chunks" else ["the wing"]
    assert np.isfinite(model.encode(texts, long_text=long_text)).all()
    assert not recwarn.list
