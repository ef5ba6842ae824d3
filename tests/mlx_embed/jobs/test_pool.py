"""Pool: the vectors of one process, from several."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, EmbeddingModelType, ModelNotFoundError
from mlx_embed.jobs import Pool
from mlx_embed.jobs.processes import WorkerError
from tests.conftest import DATA

MODEL = DATA / "tiny-bert"
TEXTS = [f"text {n} " + "wing " * (n % 30) for n in range(300)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(MODEL, workers=2, piece=32, device="cpu") as found:
        yield found


def test_pieces_of_several_sizes_are_put_in_order(alone: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_embed.jobs.pool.SMALLEST", 3)
    with Pool(MODEL, workers=2, piece=32, device="cpu") as pool:
        assert np.abs(pool.encode(TEXTS) - alone.encode(TEXTS)).max() < 1e-5


@pytest.fixture(scope="module")
def alone() -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(MODEL, device="cpu")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 300])
def test_vectors_are_those_of_one_process_in_order(count: int, pool: Pool, alone: EmbeddingModel) -> None:
    wanted = alone.encode(TEXTS[:count])
    for given in (TEXTS[:count], iter(TEXTS[:count])):
        found = pool.encode(given)
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 1e-5
    assert pool.workers == len(pool.pids) == 2


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [0, 1, 255, 2048, 2049, 20000])
def test_the_last_pieces_are_smaller(count: int, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_embed.jobs.pool.Processes", lambda make, environments, ahead: None)
    texts = [str(n) for n in range(count)]
    pieces = list(Pool(MODEL, workers=2, device="cpu")._pieces(iter(texts), count if known else None))
    assert [text for piece in pieces for text in piece] == texts
    sizes = [len(piece) for piece in pieces]
    assert all(sizes) or count == 0
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= 2048
    if known and count == 20000:
        assert sizes[0] == 2048
        assert sizes[-1] <= 256


def test_one_text_and_none(pool: Pool, alone: EmbeddingModel) -> None:
    assert np.abs(pool.encode("wing") - alone.encode("wing")).max() < 1e-5
    for none in ([], iter([])):
        assert pool.encode(none).shape == (0, 32)
    assert pool.encode([], truncate_dim=8, output_dtype="binary").shape == (0, 1)


def test_options_and_prompts(pool: Pool, alone: EmbeddingModel) -> None:
    for options in (
        {"truncate_dim": 8},
        {"prompt": "title: "},
        {"output_dtype": "binary"},
        {"long_text": "mean_of_chunks"},
    ):
        assert np.allclose(pool.encode(TEXTS[:70], **options), alone.encode(TEXTS[:70], **options), atol=1e-5)  # type: ignore
    for method in ("encode_query", "encode_document"):
        assert np.abs(getattr(pool, method)(TEXTS[:40]) - getattr(alone, method)(TEXTS[:40])).max() < 1e-5


def test_a_bar_of_all_texts(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["the wing"] * 40
    pool.encode(texts)
    assert capfd.readouterr().err == ""
    pool.encode(texts, show_progress_bar=True)
    said = capfd.readouterr().err
    assert "40/40" in said
    assert said.count("Encoding:   0%") == 1, "the processes show none"


def test_bad_input_is_refused_before_it_travels(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] is an int"):
        pool.encode(["a", 1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="no_such_option"):
        pool.encode(["a"], no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="workers -1"):
        Pool(MODEL, workers=-1)
    with pytest.raises(ValueError, match="piece 0"):
        Pool(MODEL, workers=1, piece=0)
    assert pool.encode(["a"]).shape == (1, 32)


def test_calls_of_several_threads_are_done_one_after_the_other(pool: Pool, alone: EmbeddingModel) -> None:
    wanted = alone.encode(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda first: pool.encode(TEXTS[first:]), range(0, 160, 20)))
    for first, vectors in zip(range(0, 160, 20), found, strict=True):
        assert np.abs(vectors - wanted[first:]).max() < 1e-5


def test_texts_that_come_of_the_pool_itself_are_refused() -> None:
    with Pool(MODEL, workers=1, device="cpu") as pool, pytest.raises(ValueError, match="a call of the same pool"):
        pool.encode(str(len(pool.encode(text))) for text in "ab")


def test_a_pool_that_is_closed_meanwhile() -> None:
    with Pool(MODEL, workers=1, piece=8, device="cpu") as pool:

        def texts() -> Iterator[str]:
            for number, text in enumerate(TEXTS):
                if number == 100:
                    Thread(target=pool.close).start()
                yield text

        with pytest.raises(WorkerError, match="ended by another thread"):
            pool.encode(texts())
        assert pool.pids == []


def test_texts_of_a_dead_process_are_embedded_by_another(alone: EmbeddingModel) -> None:
    with Pool(MODEL, workers=2, piece=8, device="cpu") as pool:
        pool.encode(TEXTS[:32])
        before = pool.pids

        def texts() -> Iterator[str]:
            for number, text in enumerate(TEXTS):
                if number == 100:
                    os.kill(before[0], 9)
                yield text

        assert np.abs(pool.encode(texts()) - alone.encode(TEXTS)).max() < 1e-5
        assert pool.pids[0] != before[0]
        assert pool.pids[1] == before[1]


def test_what_fails_is_raised_and_the_pool_is_closed(tmp_path: Path) -> None:
    with Pool(MODEL, workers=1, device="cpu") as pool:
        with pytest.raises(ValueError, match="tokens"):
            pool.encode(["word " * 500], long_text="error")
        with pytest.raises(ValueError, match="The pool is closed"):
            pool.encode(["a"])
    named = EmbeddingModelType.ALL_MPNET_BASE_V2
    offline = Pool(named, workers=1, device="cpu", local_files_only=True, cache_dir=tmp_path)
    with offline, pytest.raises(ModelNotFoundError, match=f"{named.value} is not in the local cache"):
        offline.encode(["a"])


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Recorded:
        pids = (1,)

        def __init__(self, make: Any, environments: Any, ahead: int) -> None:
            given.extend(environments)

    monkeypatch.setattr("mlx_embed.jobs.pool.Processes", Recorded)
    monkeypatch.setattr("mlx_embed.jobs.devices.usable_cores", lambda: 7)
    Pool(MODEL, workers=3, device="cpu")
    assert given == [{"MLX_EMBED_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2"}] * 3


def test_a_process_that_is_started_again_elsewhere_finds_the_model(
    alone: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MODEL.parent)
    with Pool(MODEL.name, workers=1, device="cpu") as pool:
        pool.encode(["a"])
        monkeypatch.chdir(tmp_path)
        os.kill(pool.pids[0], 9)
        assert np.abs(pool.encode(TEXTS) - alone.encode(TEXTS)).max() < 1e-5
