"""The contract of an engine, on each of them: rows in the order of the batches, errors, and an end when asked."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.batching import Batch
from mlx_embed.engine import Engine
from mlx_embed.engine.graph import GraphEngine
from mlx_embed.engine.worker import worker
from tests.conftest import DATA

IDS = [[2, *[7 + i] * n, 3] for i, n in enumerate((1, 20, 4, 0, 9, 33, 2))]


@pytest.fixture(scope="module", params=["native", "graph", "reference"])
def model(request: pytest.FixtureRequest) -> EmbeddingModel:
    if request.param == "native" and not cpu.available():
        pytest.skip("the native kernels are not built")
    return EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=request.param)


def vectors(engine: Engine, head: Any, budget: int) -> np.ndarray:
    out = np.full((len(IDS), 32), np.nan, dtype=np.float32)
    for batch, rows in engine.run(engine.batches(IDS, budget), head):
        assert rows.shape == (len(batch.texts), 32)
        out[batch.texts] = rows
    return out


def test_every_text_has_its_row_whatever_the_batches(model: EmbeddingModel) -> None:
    whole = vectors(model.engine, model.head(), 4096)
    assert np.isfinite(whole).all()
    assert np.abs(vectors(model.engine, model.head(), 1) - whole).max() <= 1e-5
    alone = [next(iter(model.engine.run(model.engine.batches([ids], 4096), model.head())))[1][0] for ids in IDS]
    assert np.abs(np.stack(alone) - whole).max() <= 1e-5


def test_rows_come_in_the_order_of_the_batches(model: EmbeddingModel) -> None:
    given = list(model.engine.batches(IDS, 16))
    found = [batch for batch, _ in model.engine.run(given, model.head())]
    assert len(found) == len(given) > 2
    assert all(a is b for a, b in zip(found, given, strict=True))


def test_no_batches(model: EmbeddingModel) -> None:
    assert list(model.engine.run([], model.head())) == []


def test_an_error_of_a_batch_comes_after_the_rows_before_it(model: EmbeddingModel) -> None:
    def failing() -> Iterator[Batch]:
        yield from list(model.engine.batches(IDS, 16))[:2]
        raise ZeroDivisionError("no third batch")

    run = model.engine.run(failing(), model.head())
    next(run)
    with pytest.raises(ZeroDivisionError, match="no third"):
        list(run)
    assert list(run) == [], "a run that has failed has ended"
    assert np.isfinite(vectors(model.engine, model.head(), 64)).all()


def test_closing_stops_it(model: EmbeddingModel) -> None:
    """What is drawn after the close is at most the batch that was being drawn."""
    closed = threading.Event()
    drawn = 0

    def endless() -> Iterator[Batch]:
        nonlocal drawn
        batches = list(model.engine.batches(IDS, 64))
        while drawn < 1_000:
            drawn += closed.is_set()
            yield batches[0]

    run = model.engine.run(endless(), model.head())
    next(run)
    run.close()
    closed.set()
    assert list(run) == []
    vectors(model.engine, model.head(), 64)  # behind the run on the worker, where there is one
    assert drawn <= 1


def test_what_is_gathered_is_what_is_run(model: EmbeddingModel) -> None:
    done: list[int] = []
    gathering = model.engine.gather(model.engine.batches(IDS, 16), model.head(), done.append)
    assert np.array_equal(gathering.result(), vectors(model.engine, model.head(), 16))
    assert sum(done) == len(IDS)
    assert len(done) == len(list(model.engine.batches(IDS, 16)))


@pytest.mark.parametrize("ids", [IDS[:1], [[]], IDS[:2], [[], *IDS]], ids=len)
def test_what_is_gathered_is_its_readers_own(model: EmbeddingModel, ids: list[list[int]]) -> None:
    """A text or several, in one batch or in many: float32 rows that may be written to, and that no other call has."""
    engine, head = model.engine, model.head()
    found = [engine.gather(engine.batches(ids, budget), head, lambda done: None).result() for budget in (1, 4096, 1)]
    found.append(engine.begin(engine.batches(ids, 4096), head)())
    kept = found[-1].copy()
    for rows in found[:-1]:
        assert rows.shape == (len(ids), 32)
        assert rows.dtype == np.float32
        assert np.abs(rows - kept).max() <= 1e-5
        rows[:] = np.nan
    assert np.array_equal(found[-1], kept)


def test_rows_that_are_not_all_there_are_not_given(model: EmbeddingModel) -> None:
    engine, head = model.engine, model.head()
    batches = list(engine.batches(IDS, 16))
    for some in ([], batches[1:]):
        with pytest.raises(RuntimeError, match="not the rows of all texts"):
            engine.gather(some, head, lambda done: None).result()
        with pytest.raises(RuntimeError, match="not the rows of all texts"):
            engine.begin(some, head)()
    lone = replace(batches[0], texts=np.arange(len(batches[0].texts)), of=None)
    assert engine.begin([lone], head)().shape == (len(lone.texts), 32), "nobody has said that there are more"


def test_an_error_while_gathering(model: EmbeddingModel) -> None:
    def failing() -> Iterator[Batch]:
        yield from list(model.engine.batches(IDS, 16))[:2]
        raise ZeroDivisionError("no third batch")

    with pytest.raises(ZeroDivisionError, match="no third"):
        model.engine.gather(failing(), model.head(), lambda done: None).result()
    assert np.isfinite(vectors(model.engine, model.head(), 64)).all()


def test_closing_stops_gathering(model: EmbeddingModel) -> None:
    closed, begun = threading.Event(), threading.Event()
    drawn = 0

    def endless() -> Iterator[Batch]:
        nonlocal drawn
        (batch,) = model.engine.batches([IDS[0]], 64)
        while drawn < 1_000:
            begun.set()
            drawn += closed.is_set()
            yield batch

    gathering = model.engine.gather(endless(), model.head(), lambda done: None)
    if model.engine.ahead:  # else it begins when its result is asked for
        assert begun.wait(30)
    gathering.close()
    closed.set()
    vectors(model.engine, model.head(), 64)  # behind it on the worker, where there is one
    assert drawn <= 1


def test_budget(model: EmbeddingModel) -> None:
    assert model.engine.budget(None) >= 1024
    assert model.engine.budget(7) == model.engine.budget(np.int64(7)) == 7
    with pytest.raises(ValueError, match="batch_tokens 0 is not a positive number"):
        model.engine.budget(0)
    with pytest.raises(TypeError):
        model.engine.budget(1.5)  # type: ignore[arg-type]


def test_batches_begun_ahead(model: EmbeddingModel) -> None:
    """Each has its own rows, in whatever order they are waited for."""
    engine, head = model.engine, model.head()
    whole = vectors(engine, head, 4096)
    waits = [engine.begin(engine.batches(part, 16), head) for part in (IDS[:3], IDS[3:])]
    assert np.abs(waits[1]() - whole[3:]).max() <= 1e-5
    assert np.abs(waits[0]() - whole[:3]).max() <= 1e-5


def test_an_error_of_what_is_begun(model: EmbeddingModel) -> None:
    def failing() -> Iterator[Batch]:
        yield next(iter(model.engine.batches(IDS, 16)))
        raise ZeroDivisionError("no second batch")

    wait = model.engine.begin(failing(), model.head())
    with pytest.raises(ZeroDivisionError, match="no second"):
        wait()
    assert np.isfinite(vectors(model.engine, model.head(), 16)).all()


def test_the_next_batch_is_begun_before_the_last_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
    engine, events = model.engine, []
    assert isinstance(engine, GraphEngine)
    own = engine._begin

    def begin(batch: Batch, head: Any) -> Any:
        events.append(f"begin {len(batch.texts)}")
        wait = own(batch, head)
        return lambda: (events.append(f"read {len(batch.texts)}"), wait())[1]

    monkeypatch.setattr(engine, "_begin", begin)
    waits = [engine.begin(engine.batches(part, 4096), model.head()) for part in (IDS[:3], IDS[3:])]
    for wait in waits:
        wait()
    assert events == ["begin 3", "begin 4", "read 3", "read 4"]


def test_windows_are_read_while_the_next_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch of one is read once the first of the next has begun, and at once where there is no next."""
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
    engine, events = model.engine, []
    assert isinstance(engine, GraphEngine)
    own = engine._begin

    def begin(batch: Batch, *rest: Any) -> Any:
        events.append(f"begin {len(batch.texts)}")
        wait = own(batch, *rest)
        return lambda: (events.append(f"read {len(batch.texts)}"), wait())[1]

    monkeypatch.setattr(engine, "_begin", begin)
    whole = vectors(engine, model.head(), 4096)
    events.clear()
    hold = threading.Event()
    worker.submit(hold.wait)
    parts = (IDS[:3], IDS[3:])
    gatherings = [engine.gather(engine.batches(part, 4096), model.head(), lambda done: None) for part in parts]
    hold.set()
    assert np.abs(np.concatenate([gathering.result() for gathering in gatherings]) - whole).max() <= 1e-5
    assert events == ["begin 3", "begin 4", "read 3", "read 4"]


def test_an_error_of_one_window_is_not_the_next_ones(model: EmbeddingModel) -> None:
    def failing() -> Iterator[Batch]:
        yield from list(model.engine.batches(IDS, 16))[:2]
        raise ZeroDivisionError("no third batch")

    engine, head = model.engine, model.head()
    whole = vectors(engine, head, 4096)
    given = (engine.batches(IDS, 16), failing(), engine.batches(IDS, 16))
    first, bad, last = [engine.gather(batches, head, lambda done: None) for batches in given]
    with pytest.raises(ZeroDivisionError, match="no third"):
        bad.result()
    assert np.abs(first.result() - whole).max() <= 1e-5
    assert np.abs(last.result() - whole).max() <= 1e-5


def test_what_is_near_the_engine_is_done_at_once(model: EmbeddingModel) -> None:
    """All of it, and what it gives to the engine, on the engine's thread where it has one; its errors come back."""
    engine, head = model.engine, model.head()
    whole = vectors(engine, head, 4096)

    def work() -> tuple[np.ndarray, str]:
        rows = engine.gather(engine.batches(IDS, 16), head, lambda done: None).result()
        run = vectors(engine, head, 64)
        begun = engine.begin(engine.batches(IDS, 16), head)()
        assert np.abs(np.stack([rows, run, begun]) - whole).max() <= 1e-5
        return rows, threading.current_thread().name

    _, name = engine.near(work)
    assert name == ("mlx-embed" if engine.ahead else threading.current_thread().name)
    with pytest.raises(ZeroDivisionError):
        engine.near(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
def test_kernels_are_asked_for_when_a_head_is_made(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, which this engine is made to believe in; that a rehearsal fails does not matter."""
    from mlx_embed.engine import graph, rehearsal

    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
    whole = vectors(model.engine, model.head(), 4096)
    asked: list[Any] = []
    seen: list[tuple[int, ...]] = []

    class Watched:
        def __call__(self, input_ids: Any, cu_seqlens: Any, max_seqlen: int, *types: Any) -> Any:
            seen.append((input_ids.shape[0], cu_seqlens.shape[0] - 1, max_seqlen))
            if fails and len(seen) == 1:
                raise ValueError("no such shape")
            return encoder(input_ids, cu_seqlens, max_seqlen, *types)

    encoder = model.engine.encoder  # type: ignore[attr-defined]
    monkeypatch.setattr(rehearsal, "compile_all", asked.append)
    monkeypatch.setattr(model.engine, "_ragged", True)
    monkeypatch.setattr(graph, "accelerator", lambda: "cuda")
    monkeypatch.setattr(model.engine, "rehearsed", ((64, 4, 16),))
    monkeypatch.setattr(model.engine, "encoder", Watched())
    head = model.head(dim=31)
    assert np.abs(vectors(model.engine, model.head(), 4096) - whole).max() <= 1e-5
    assert worker.submit(lambda: head).result() is head
    assert asked == [{}]
    assert seen[0] == (64, 4, 16)


def test_graphs_are_made_again_once_all_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of batches that could not wait: until then other kernels compute them."""
    from mlx_embed.engine import graph

    patient: list[float] = []
    left = [True, True, False]

    def under_way(patience: float) -> bool:
        patient.append(patience)
        return left.pop(0)

    traced: list[int] = []

    def forward(x: mx.array) -> mx.array:
        traced.append(x.shape[0])
        return x + len(traced)

    monkeypatch.setattr(graph, "under_way", under_way)
    compiled = graph._Compiled(forward)
    assert [compiled(mx.zeros((1,))).item() for _ in range(5)] == [1, 1, 2, 2, 2]
    assert patient == [graph.PATIENCE, 0, 0], "the first alone waits, and nobody asks once all are there"
    left.append(False)
    at_once = graph._Compiled(forward)
    assert [at_once(mx.zeros((1,))).item() for _ in range(2)] == [3, 3]
