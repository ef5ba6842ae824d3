"""The comparison run on a tiny model: who is compared with whom, on what, and what becomes of a slow or wrong side."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.engine.device import accelerator
from mlx_embed.measure import compare as module
from mlx_embed.measure.compare import Sides, agreements, batchings, filling, latencies, launches, load, subject
from mlx_embed.measure.report import BASE, COMPILED, NATIVE, Report
from mlx_embed.measure.timing import Plan, Timing
from mlx_embed.tokenizer.fast import FastTokenizer
from tests.conftest import DATA

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the native CPU kernels are not built")
TEXTS = ["A text.", "Another one, which is longer.", "And a third."]
Encoded = list[tuple[str, tuple[str, ...]]]
SECONDS = {BASE: 0.6, NATIVE: 0.1, COMPILED: 0.3}


@pytest.fixture(scope="module")
def sides() -> Sides:
    found = load(DATA / "tiny-bert", None)
    # Where there is an accelerator, its side is played by the graph on the CPU.
    compiled = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="graph")
    return {BASE: found[BASE], NATIVE: found[NATIVE], COMPILED: compiled}


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Nothing is timed: each side takes what SECONDS says, for any number of texts. What was to be timed, in order."""
    asked: list[dict[str, Any]] = []

    def interleaved(works: Mapping[str, Callable[[], Any]], cold: object = ()) -> dict[str, Timing]:
        for work in works.values():
            work()
        asked.append({"works": list(works), "cold": list(cold)})  # type: ignore[call-overload]
        seconds = {name: SECONDS.get(name, 1.0) for name in works}
        return {name: Timing(s, s, s, 5) for name, s in seconds.items()}

    monkeypatch.setattr(module, "interleaved", interleaved)
    return asked


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    """Each call of `encode`: by which engine, and of what."""
    calls: Encoded = []
    honest = EmbeddingModel.encode

    def encode(self: EmbeddingModel, texts: Any, **options: Any) -> Any:
        calls.append((self.engine.name, tuple(texts)))
        return honest(self, texts, **options)

    monkeypatch.setattr(EmbeddingModel, "encode", encode)
    return calls


def test_every_side_is_computed_differently_and_the_base_by_mlx_alone() -> None:
    engines = {name: side.engine.name for name, side in load(DATA / "tiny-bert", None).items()}
    assert next(iter(engines)) == BASE
    assert engines[BASE] == "reference"
    assert engines[NATIVE] == "native"
    three = [name for name in engines if not name.startswith(f"{NATIVE}, ")]
    assert len({engines[name] for name in three}) == len(three) == 3


def test_each_dtype_of_the_native_kernels_is_a_side() -> None:
    dtypes = {name: str(side.dtype) for name, side in load(DATA / "tiny-bert", None).items() if NATIVE in name}
    here = [dtype for dtype in ("bfloat16", "int8") if cpu.product(dtype)]
    assert dtypes == {NATIVE: "mlx.core.float32"} | {f"{NATIVE}, {dtype}": f"mlx.core.{dtype}" for dtype in here}


def test_the_base_is_on_the_cpu_in_float32() -> None:
    base = load(DATA / "tiny-bert", "float16")[BASE]
    assert base.device == mx.Device(mx.cpu)
    assert base.dtype == mx.float32


@pytest.mark.parametrize("name", [NATIVE, COMPILED])
def test_a_side_is_compared_with_the_base_and_not_with_itself(
    name: str, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {row.side: row for row in agreements(sides, TEXTS)}
    assert set(before) == {NATIVE, COMPILED}
    honest = EmbeddingModel.encode

    def turned(self: EmbeddingModel, *arguments: Any, **options: Any) -> Any:
        vectors = honest(self, *arguments, **options)
        return np.roll(vectors, 1, axis=-1) if self is sides[name] else vectors

    monkeypatch.setattr(EmbeddingModel, "encode", turned)
    after = {row.side: row for row in agreements(sides, TEXTS)}
    for side, row in after.items():
        wrong = side == name
        assert (row.min_cosine < 0.9) == (row.max_difference > 0.01) == wrong
        assert row == before[side] or wrong


def test_agreement_is_of_unit_vectors_and_by_numbers(sides: Sides) -> None:
    expected, found = (
        np.stack([sides[name].encode(text) for text in TEXTS]).astype(np.float64) for name in (BASE, NATIVE)
    )
    expected, found = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (expected, found))
    row = next(iter(agreements(sides, TEXTS)))
    assert row.side == NATIVE
    assert row.max_difference == pytest.approx(np.abs(expected - found).max(), abs=2e-7)
    assert row.min_cosine == pytest.approx((expected * found).sum(axis=1).min(), abs=1e-7)


def test_latency_is_of_one_batch_on_each_side_and_the_base_is_the_measure(
    sides: Sides,
    times: list[dict[str, Any]],
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZES", (1, 5))
    rows, left_out = latencies(sides, TEXTS)
    assert left_out == []
    assert [(row.texts, row.side) for row in rows] == [(n, side) for n in (1, 5) for side in sides]
    assert {row.side: row.speed_up for row in rows} == pytest.approx({BASE: 1.0, NATIVE: 6.0, COMPILED: 2.0})
    batches = (TEXTS[0],), (*TEXTS, *TEXTS[:2])
    assert encoded == [(engine, batch) for batch in batches for engine in ("reference", "native", "graph")]


def test_a_slow_side_gets_no_larger_batch_and_a_slow_base_no_warm_up(
    sides: Sides, times: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZES", (1, 3))
    monkeypatch.setitem(SECONDS, BASE, 2.0)
    monkeypatch.setitem(SECONDS, COMPILED, 2.0)
    rows, left_out = latencies(sides, TEXTS)
    assert [(row.texts, row.side) for row in rows][3:] == [(3, BASE), (3, NATIVE)]
    assert times[0]["cold"] == []
    assert times[1]["cold"] == [BASE]
    assert left_out == [f"batches of 3 texts and more on {COMPILED}: 1 took 2.0 s"]


def test_without_the_base_there_is_no_speed_up(
    sides: Sides, times: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZES", (1, 3))
    monkeypatch.setitem(SECONDS, BASE, 60.0)
    rows, left_out = latencies(sides, TEXTS)
    assert [(row.side, row.speed_up) for row in rows][3:] == [(NATIVE, None), (COMPILED, None)]
    assert left_out == [f"batches of 3 texts and more on {BASE}: 1 took 60.0 s"]


def test_batching_times_the_same_texts_both_ways(
    sides: Sides,
    times: list[dict[str, Any]],
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCHED", (2,))
    monkeypatch.setitem(SECONDS, "one by one", 0.8)
    monkeypatch.setitem(SECONDS, "batched", 0.2)
    rows, left_out = batchings(sides, TEXTS, {(2, BASE): 0.1, (2, COMPILED): 30.0}, math.inf)
    assert [(row.texts, row.side, row.gain) for row in rows] == [(2, BASE, 4.0), (2, NATIVE, 4.0)]
    assert left_out == [f"2 texts one by one on {COMPILED}: in a batch they took 30.0 s"]
    one, two = TEXTS[:2]
    assert encoded[:3] == [("reference", (one,)), ("reference", (two,)), ("reference", (one, two))]


def test_what_is_said_of_the_run(sides: Sides) -> None:
    found = subject(sides, TEXTS, 0.7)
    counts = [len(sides[BASE].tokenizer([text]).ids[0]) for text in TEXTS]
    assert found.tokens == (min(counts), pytest.approx(np.mean(counts)), max(counts))
    assert (found.load, found.cores) == (0.7, cpu.usable_cores())
    assert (found.texts, found.dimension) == (3, sides[BASE].dimension)
    assert [(side.name, side.engine, side.dtype) for side in found.sides] == [
        (BASE, "reference", "float32"),
        (NATIVE, "native", "float32"),
        (COMPILED, "graph", "float32"),
    ]
    assert {side.name: side.threads for side in found.sides}[NATIVE] == str(cpu.num_threads())


def test_how_a_compiled_graph_fills_batches_up(sides: Sides) -> None:
    ids = sides[COMPILED].tokenizer(TEXTS).ids
    found = filling(sides[COMPILED], TEXTS)
    assert (found.texts, found.tokens, found.block) == (3, sum(map(len, ids)), 3 * max(map(len, ids)))
    assert found.computed >= found.tokens
    assert found.computed_block >= found.block
    # The plain graph's batches are not filled up.
    plain = filling(sides[BASE], TEXTS)
    assert (plain.tokens, plain.block) == (plain.computed, plain.computed_block)


def test_primitives_are_those_of_the_graph(sides: Sides) -> None:
    plain, compiled = (module.primitives(sides[name], TEXTS) for name in (BASE, COMPILED))
    assert plain > compiled > 0


def test_launches_are_counted_on_cuda_alone(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(folder: Path, dtype: mx.Dtype, texts: list[str], *, kernels: bool, timeout: float) -> Counter[str]:
        assert timeout == module.COUNTING
        assert (folder / "config.json").exists()
        assert texts == TEXTS
        return Counter({"attention": 6, "gemm": 24} if kernels else {"softmax": 6, "gemm": 94})

    monkeypatch.setattr(module, "count_launches", counted)
    assert launches(sides, TEXTS) == ([], [])
    (ours, plain), left_out = launches({**sides, "cuda": sides[COMPILED]}, TEXTS)
    assert (ours.kernels, ours.launches, ours.of) == ("this package's", 30, {"gemm": 24, "attention": 6})
    assert (plain.kernels, plain.launches, plain.of) == ("MLX's own ops", 100, {"gemm": 94, "softmax": 6})
    assert left_out == []


def test_launches_that_cannot_be_counted_do_not_lose_the_rest(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("MLX wrote no CUDA graph of the forward pass.")

    monkeypatch.setattr(module, "count_launches", fails)
    found, left_out = launches({**sides, "cuda": sides[COMPILED]}, TEXTS)
    assert found == []
    assert left_out == ["kernel launches: MLX wrote no CUDA graph of the forward pass"]


def test_batching_is_left_out_once_the_time_has_come(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHED", (2,))
    rows, left_out = batchings(sides, TEXTS, {}, time.perf_counter() - 1)
    assert rows == []
    assert [sentence.split(":")[0] for sentence in left_out] == [f"2 texts one by one on {name}" for name in sides]


def test_ops_are_left_out_once_the_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.kernels, "NORM_SHAPES", ())
    norms, ops, left_out = module.op_tables(time.perf_counter() - 1)
    assert norms == ops == []
    assert len(left_out) == 1
    assert "ways to compute layer_norm, embedding_norm, attention" in left_out[0]


@pytest.fixture(scope="module")
def report() -> Report:
    """A whole run, with one round a row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_SIZES", (1, 3))
        patch.setattr(module, "BATCHED", (3,))
        patch.setattr(module, "BATCHING_UNTIL", math.inf)
        if accelerator() is not None:
            # MLX compiles its own ways for a minute; test_kernels.py has them one by one.
            patch.setattr(module, "OPS_UNTIL", 0.0)
            patch.setattr(module, "COUNTING", 5.0)
        patch.setattr(module.kernels, "NORM_SHAPES", ((3, 384),))
        patch.setattr(module.kernels, "LOADS", module.kernels.LOADS[:1])
        patch.setattr(module.kernels, "PLAN", Plan(rounds=1, turn=0.001, pause=0.0))
        patch.setattr("mlx_embed.measure.copying.PLAN", Plan(rounds=1, turn=0.001, pause=0.0))
        patch.setattr("mlx_embed.measure.timing.PLAN", Plan(rounds=1))
        return module.compare(DATA / "tiny-bert", TEXTS)


def test_a_whole_run_agrees(report: Report) -> None:
    # That a busy machine disturbs the times is no fault of what is compared.
    assert [failure for failure in report.failures if "something disturbed" not in failure] == []
    assert report.agreement
    measured, late = {row.op for row in report.ops}, " ".join(report.left_out)
    for op in ("layer_norm", "attention", "linear", "output_norm", "rope"):
        assert op in measured or op in late
    assert report.primitives is not None
    assert report.primitives[BASE] > 0
    assert report.seconds > 0


def test_a_row_that_contradicts_another_table_fails(report: Report) -> None:
    """As where the threads of one side slow the side after it in one of the tables."""
    steady = {row.side: Timing(s := row.time.seconds, s, s, 5) for row in report.latency if row.texts == 3}
    latency = tuple(replace(row, time=steady[row.side]) for row in report.latency if row.texts == 3)
    batching = tuple(replace(row, batched=steady[row.side]) for row in report.batching)
    calm = replace(report, latency=latency, batching=batching)
    assert calm.failures == []
    slow = tuple(replace(row, time=row.time.divided(1 if row.side == BASE else 3)) for row in latency)
    disturbed = replace(calm, latency=slow)
    assert len(disturbed.failures) == len(latency) - 1
    assert all("something disturbed" in failure for failure in disturbed.failures)


def test_tokenizers_are_compared_before_anything_is_timed(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a fifth of a second on a thread of its own, after some hundred texts: in the middle of a table."""
    prepared = []
    monkeypatch.setattr(FastTokenizer, "prepare", lambda fast: prepared.append(fast))
    module.make_ready(sides, TEXTS)
    assert prepared == [side.tokenizer.fast for side in sides.values()]


def test_no_texts() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        module.compare(DATA / "tiny-bert", [])


def test_an_op_of_which_a_way_came_too_late_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.kernels, "NORM_SHAPES", ())
    monkeypatch.setattr(module.kernels, "op_rows", lambda op, *_: ([], op.name != "attention"))
    _, _, left_out = module.op_tables(math.inf)
    assert len(left_out) == 1
    assert left_out[0].startswith("all or some ways to compute attention on ")
