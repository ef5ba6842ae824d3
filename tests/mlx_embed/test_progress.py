"""Bars: when they are shown, and that one within another advances that one."""

import logging
from itertools import count

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli, texts
from mlx_embed.progress import Progress, Ticker, counted
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
    token = texts._outer.set(Played(steps))
    tiny_bert.encode(TEXTS, batch_size=7)
    texts._outer.reset(token)
    assert steps == [7, 7, 7, 7, 7, 5]


class Played(Progress):
    def __init__(self, steps: list[int]) -> None:
        super().__init__()
        self.steps = steps

    def __call__(self, count: int) -> None:
        self.steps.append(count)


def test_tokens_and_cut_texts_are_told(tiny_bert: EmbeddingModel) -> None:
    shown = Progress()
    token = texts._outer.set(shown)
    given = ["the wing", "flow " * 500, "of"]
    _, info = tiny_bert.encode(given, return_info=True)
    whole = shown.tokens
    assert whole == np.minimum(info.token_counts, tiny_bert.max_seq_length).sum()
    assert (shown.done, shown.cut) == (3, 1)
    tiny_bert.encode(given, long_text="mean_of_chunks")
    texts._outer.reset(token)
    assert (shown.done, shown.cut) == (6, 1), "in chunks nothing is cut"
    assert shown.tokens - whole > info.token_counts.sum()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_say_how_far_it_is() -> None:
    said: list[str] = []
    clock = Clock()
    with texts.in_lines(Ticker(said.append, 10, clock)), progress(None, 1000, "text", done=100) as advance:
        advance.note(5000, 0)
        advance(100)
        clock.now += 9.9
        advance(100)
        assert said == []
        clock.now += 0.1
        advance(100)
        advance(1)
        assert said == ["Encoding: 400 of 1,000 texts (40%), 30 texts/s, 0:20 left, 5,000 tokens"]
        advance.note(1, 17)
        clock.now += 7200
        advance(0)
    assert said[1:] == ["Encoding: 401 of 1,000 texts (40%), 0.04 texts/s, 3:59:08 left, 5,001 tokens, 17 cut"]


def test_texts_within_steps_are_told_beside(tiny_bert: EmbeddingModel) -> None:
    said: list[str] = []
    clock = Clock()
    with (
        texts.in_lines(Ticker(said.append, 10, clock)),
        progress(None, 4, "file", description="Indexing", steps=True) as advance,
    ):
        clock.now += 10
        tiny_bert.encode(TEXTS)
        clock.now += 10
        advance(1)
    told = f"40 texts, {tiny_bert.token_counts(TEXTS).sum()} tokens"
    assert said == [
        f"Indexing: 0 of 4 files (0%), 0.00 files/s, {told}",
        f"Indexing: 1 of 4 files (25%), 0.05 files/s, 1:00 left, {told}",
    ]


def test_a_bar_of_steps_goes_on_within_one(
    tiny_bert: EmbeddingModel, at_info: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BAR_AFTER", 0.0)
    seconds = count()
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(seconds)))
    with progress(None, 1, "file", description="Indexing", steps=True):
        tiny_bert.encode(TEXTS)
        said = capsys.readouterr().err
    assert "0/1 [" in said
    assert "40 texts, " in said


def test_one_is_one() -> None:
    assert [counted(n, "text") for n in (0, 1, 2, 1001)] == ["0 texts", "1 text", "2 texts", "1,001 texts"]
    said: list[str] = []
    clock = Clock()
    with texts.in_lines(Ticker(said.append, 10, clock)), progress(None, 1, "file", steps=True) as advance:
        clock.now += 10
        advance.note(1, 1)
        advance.inside(1)
    assert said == ["Encoding: 0 of 1 file (0%), 0.00 files/s, 1 text, 1 token, 1 cut"]


def test_lines_without_a_total() -> None:
    said: list[str] = []
    clock = Clock()
    with texts.in_lines(Ticker(said.append, 10, clock)), progress(None, None, "shard") as advance:
        clock.now += 10
        advance(3)
    assert said == ["Encoding: 3 shards, 0.30 shards/s"]


def test_who_asks_for_a_bar_gets_one(tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bert.encode([*TEXTS, "flow " * 500], show_progress_bar=True)
    said = capsys.readouterr().err
    assert "41/41" in said
    assert "tokens, 1 cut" in said
    assert not texts.watched()


def test_a_commands_lines_where_stderr_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("mlx_embed")
    with cli.signs_of_life():
        assert texts.watched()
        logger.info("a step")
        logger.warning("a warning")
        assert capsys.readouterr().err == "a warning\n"
    assert not texts.watched()
    clock = Clock()
    monkeypatch.setattr("mlx_embed.cli.Ticker", lambda say: Ticker(say, 10, clock))
    with cli.signs_of_life():
        clock.now += 11
        logger.info("a step")
        logger.info("another")
        assert capsys.readouterr().err == "... a step\n"
    assert logger.handlers == []
