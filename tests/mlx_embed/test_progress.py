"""Bars: when they are shown, and that one within another advances that one."""

import logging

import pytest

from mlx_embed import EmbeddingModel, texts
from mlx_embed.texts import progress

TEXTS = ["the wing"] * 40


@pytest.fixture
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mlx_embed")


def test_what_is_soon_done_needs_no_bar(
    tiny_bert: EmbeddingModel, at_info: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert.encode(TEXTS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(texts, "BAR_AFTER", 0.0)
    tiny_bert.encode(TEXTS)
    assert "40/40" in capsys.readouterr().err


def test_no_bar_where_nothing_is_logged(
    tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BAR_AFTER", 0.0)
    tiny_bert.encode(TEXTS)
    assert capsys.readouterr().err == ""


def test_a_bar_within_a_bar_advances_that_one(
    tiny_bert: EmbeddingModel, at_info: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BAR_AFTER", 0.0)
    with progress(None, 100, "document", description="All", done=20):
        tiny_bert.encode(TEXTS)
        tiny_bert.encode(TEXTS, show_progress_bar=True)
    said = capsys.readouterr().err
    assert "All: 100%" in said
    assert "100/100" in said
    assert "Encoding" not in said
    tiny_bert.encode(TEXTS)
    assert "Encoding" in capsys.readouterr().err, "the outer bar is forgotten"


def test_it_advances_a_batch_at_a_time(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    token = texts._outer.set(steps.append)
    tiny_bert.encode(TEXTS, batch_size=7)
    texts._outer.reset(token)
    assert steps == [7, 7, 7, 7, 7, 5]
