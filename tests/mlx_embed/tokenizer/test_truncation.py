"""The warning that texts were cut: once in a process, with the figures, at the caller's line."""

import re

import pytest

from mlx_embed import EmbeddingModel, TruncationWarning
from mlx_embed.tokenizer import truncation
from tests.conftest import DATA


def test_truncation_is_said_once(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(truncation, "_warned", False)
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=4)
    model.encode(["the wing"])
    assert not recwarn.list
    for more in range(2):
        model.encode(["a", "the wing flow", "the wing flow heat", *["heat flow index"] * more])
    (said,) = recwarn.list
    assert said.category is TruncationWarning
    assert re.match(r"2 of 3 texts are longer than the model's 4 tokens \(the longest has 6\)", str(said.message))
    assert said.filename == __file__, "the user's line is blamed"
