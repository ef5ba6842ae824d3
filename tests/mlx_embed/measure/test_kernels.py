"""The tables of ops: every op is in them, each way has arrays of its own, and a wrong result is seen."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.choice.op import Op
from custom_kernels.ops import OPS
from custom_kernels.ops.layer_norm import fast_layer_norm
from mlx_embed.engine.device import accelerator
from mlx_embed.engine.worker import worker
from mlx_embed.measure import copying, kernels
from mlx_embed.measure.copying import copy_seconds, least_bytes
from mlx_embed.measure.report import MAX_NORM_ERROR, MAX_OP_ERROR, OpRow
from mlx_embed.measure.timing import Plan, Timing

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the native CPU kernels are not built")
# What runs instead of it depends on the layers around it, so it has no row of its own.
ALONE = {"short_encoder"}
# They have no native kernel: on a CPU there is one way alone.
MLX_ALONE = {"activate", "gated_linear"}
# On Metal, what has no kernel of its own, or one for few rows alone.
NOT_ON_METAL = {"linear", "output_norm", "gated_linear"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PLAN", Plan(rounds=1, turn=0.001, pause=0.0))
    monkeypatch.setattr(copying, "PLAN", Plan(rounds=2, turn=0.001, pause=0.0, seconds=0.02))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA, played by the CPU stream, where the reference is every kernel."""
    monkeypatch.setattr(kernels, "accelerator", lambda: "cuda")
    monkeypatch.setattr(mx, "gpu", mx.cpu)
    monkeypatch.setattr(Op, "candidates", lambda self, backend, variant: iter([("kernel", self.reference)]))
    monkeypatch.setattr(kernels, "prepare_accelerator", lambda: None)
    monkeypatch.setattr(kernels, "layer_norm", lambda *arguments, backend: fast_layer_norm(*arguments))


def rows(op: Op, many: bool) -> list[OpRow]:
    variant, load = next(pair for pair in kernels.shapes(op) if pair[1].many == many)
    found, whole = worker.run(lambda: kernels.op_rows(op, variant, load))
    assert whole
    return found


@pytest.mark.parametrize("backend", [None, "metal", "cuda"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_has_shapes_of_few_and_of_many_tokens(
    op: Op, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "accelerator", lambda: backend)
    found = kernels.shapes(op)
    wanted = [] if op.name in ALONE or (backend == "metal" and op.name in NOT_ON_METAL) else [False, True]
    assert [load.many for _, load in found] == wanted
    assert all(load.longest in (None, 128) for _, load in found)


@pytest.mark.parametrize("op", [op for op in OPS if op.name not in ALONE], ids=lambda op: op.name)
def test_shapes_are_in_float32_where_that_has_a_kernel(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "accelerator", lambda: "cuda")
    has_one = op.name not in ("output_norm", "position_ids")
    assert {"float32" in str(variant) for variant, _ in kernels.shapes(op)} == {has_one}


@pytest.mark.parametrize("op", [op for op in OPS if op.name not in ALONE], ids=lambda op: op.name)
def test_ways_agree(op: Op) -> None:
    found = {row.way: row for row in rows(op, many=False)}
    if op.name in MLX_ALONE and accelerator() is None:
        assert found == {}
        return
    on_a_gpu = {way for way in found if accelerator() is not None and way.endswith(f", {accelerator()}")}
    assert set(found) - on_a_gpu == ({"ops, cpu"} if op.name in MLX_ALONE else {"ops, cpu", "native cpu"})
    assert bool(on_a_gpu) == (accelerator() is not None)
    for row in found.values():
        assert row.op == op.name
        assert row.error <= MAX_OP_ERROR[row.dtype]
        assert row.call.seconds > 0
        assert (row.chain is not None) == (row.way in on_a_gpu)
    assert found["ops, cpu"].error == 0


@pytest.mark.usefixtures("gpu")
def test_no_way_on_a_gpu_is_begun_once_the_time_has_come() -> None:
    op = next(op for op in OPS if op.name == "rope")
    variant, load = kernels.shapes(op)[0]
    found, whole = worker.run(lambda: kernels.op_rows(op, variant, load, time.perf_counter() - 1))
    assert [row.way for row in found] == ["ops, cpu", "native cpu"]
    assert not whole


def test_a_wrong_op_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = cpu.mean_pool
    monkeypatch.setattr(cpu, "mean_pool", lambda *arguments, **options: honest(*arguments, **options) * 1.01)
    op = next(op for op in OPS if op.name == "mean_pool")
    errors = {row.way: row.error for row in rows(op, many=False)}
    assert errors["native cpu"] > MAX_OP_ERROR["float32"]


@pytest.mark.parametrize("shape", kernels.NORM_SHAPES)
def test_layer_norm(shape: tuple[int, ...]) -> None:
    found = {row.way: row for row in worker.run(lambda: kernels.norm_rows(shape))}
    on_a_gpu = set() if (here := accelerator()) is None else {f"kernel, {here}", f"mx.fast, {here}"}
    assert set(found) == {"mx.fast, cpu", "ops, cpu", "native cpu"} | on_a_gpu
    for row in found.values():
        assert 0 < row.error <= MAX_NORM_ERROR
        assert row.input == str(list(shape))
        assert row.bytes == 2 * 4 * np.prod(shape)


@pytest.mark.parametrize("wrong", ["native cpu", "mx.fast, cpu", "ops, cpu"])
def test_a_wrong_layer_norm_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    native, honest = cpu.layer_norm, kernels.layer_norm

    def on_mlx(*arguments: Any, backend: str) -> mx.array:
        off = {"fast": "mx.fast, cpu", "reference": "ops, cpu"}[backend] == wrong
        return honest(*arguments, backend=backend) * (1.01 if off else 1.0)

    monkeypatch.setattr(kernels, "accelerator", lambda: None)
    monkeypatch.setattr(cpu, "layer_norm", lambda *a: native(*a) * np.float32(1.01 if wrong == "native cpu" else 1))
    monkeypatch.setattr(kernels, "layer_norm", on_mlx)
    for row in worker.run(lambda: kernels.norm_rows((3, 384))):
        assert (row.error > MAX_NORM_ERROR) == (row.way == wrong)


def test_copies_are_in_memory_of_their_own() -> None:
    def copies() -> list[tuple[mx.array, mx.array]]:
        originals = [mx.array(np.arange(12, dtype=kind).reshape(3, 4)) for kind in (np.float32, np.float16, np.int32)]
        return list(zip(originals, kernels.own([*originals, 7, None])[:3], strict=True))

    for original, copy in worker.run(copies):
        assert copy.dtype == original.dtype
        assert np.array_equal(np.asarray(copy), np.asarray(original))
        assert not np.shares_memory(np.asarray(copy), np.asarray(original))


@pytest.mark.usefixtures("gpu")
def test_each_side_has_arrays_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[kernels.Way] = []
    rope = next(op for op in OPS if op.name == "rope")
    monkeypatch.setattr(kernels, "_rows", lambda op, text, ways, *_: made.extend(ways) or [])

    def views() -> list[np.ndarray]:
        kernels.norm_rows((3, 384))
        kernels.op_rows(rope, *kernels.shapes(rope)[0])
        return [np.asarray(way.inputs[0]) for way in made]

    arrays = worker.run(views)
    assert [way.name for way in made[:4]] == ["mx.fast, cpu", "ops, cpu", "kernel, cuda", "mx.fast, cuda"]
    assert [way.launches for way in made[:4]] == [False, False, True, True]
    pairs = [(a, b) for i, a in enumerate(made) for b in made[i + 1 :] if "native" not in a.name + b.name]
    places = dict(zip(map(id, made), arrays, strict=True))
    assert pairs
    for one, other in pairs:
        assert not np.shares_memory(places[id(one)], places[id(other)]), (one.name, other.name)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_has_the_time_of_a_call_and_of_one_of_many_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[set[str], bool]] = []

    def interleaved(works: Mapping[str, Any], *, prepared: bool = False, **_: Any) -> dict[str, Timing]:
        asked.append((set(works), prepared))
        return {name: Timing(3.0, 2.0, 4.0, 1) if prepared else Timing(1.0, 1.0, 1.0, 1) for name in works}

    monkeypatch.setattr(kernels, "interleaved", interleaved)
    found = {row.way: row for row in worker.run(lambda: kernels.norm_rows((3, 384)))}
    on_gpu = {"kernel, cuda", "mx.fast, cuda"}
    assert asked == [(set(found), False), (on_gpu, True)]
    for way, row in found.items():
        assert row.call.seconds == 1.0
        n = kernels.CHAIN
        assert row.chain == (Timing(3.0 / n, 2.0 / n, 4.0 / n, 1) if way in on_gpu else None)


def test_a_chain_is_of_launches_that_are_waited_for_together() -> None:
    begun: list[mx.array] = []

    def begin() -> mx.array:
        begun.append(mx.zeros((2,)) + len(begun))
        return begun[-1]

    def chained() -> list[int]:
        run = kernels.Way("kernel, cuda", begin, [], launches=True).chain(4)
        assert len(begun) == 4
        run()
        return [int(x[0]) for x in begun]

    assert worker.run(chained) == [0, 1, 2, 3]


def test_a_chain_is_shorter_where_results_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHAIN_BYTES", 3 * 384 * 4 * 10)
    way = kernels.Way("kernel, cuda", lambda: mx.zeros((3, 384)), [], launches=True)
    lengths: list[int] = []
    chain = way.chain

    def counted(launches: int) -> Callable[[], None]:
        lengths.append(launches)
        return chain(launches)

    monkeypatch.setattr(kernels.Way, "chain", lambda self, launches: counted(launches))
    worker.run(lambda: kernels._rows("layer_norm", "", [way], {way.name: 0.0}, 3 * 384 * 4))
    assert set(lengths) == {10}


def test_load_of_the_tables() -> None:
    assert [load.many for load in kernels.LOADS] == [False, True]


@pytest.mark.skipif(not cpu.available(), reason="the native CPU kernels are not built")
def test_errors_are_shares_of_the_largest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a way that gives zeros, all of it."""
    monkeypatch.setattr(kernels, "PLAN", Plan(rounds=1, turn=0.0, pause=0.0))
    monkeypatch.setattr(kernels.twins, "native", lambda op: lambda *_, **__: np.zeros(1, dtype=np.float32))
    op = next(op for op in OPS if op.name == "layer_norm")
    rows, _ = worker.run(lambda: kernels.op_rows(op, *kernels.shapes(op)[0]))
    assert {row.way: row.error for row in rows}["native cpu"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["linear", "rope", "embedding_norm", "activate"])
def test_bytes_that_an_op_reads_and_writes_at_least(name: str) -> None:
    op = next(op for op in OPS if op.name == name)
    variant, load = next(pair for pair in kernels.shapes(op) if not pair[1].many)
    with mx.stream(mx.cpu):
        given, _ = op.sample(variant, load)
    moved = least_bytes(name, given, 1000)
    if name == "embedding_norm":
        assert moved is None, "it reads some rows of its tables"
    elif name == "linear":
        assert moved == given[0].nbytes + given[1].weight.nbytes + given[1].bias.nbytes + 1000
    else:
        assert moved == given[0].nbytes + 1000 + (given[1].nbytes if name == "rope" else 0)


def test_a_copy_takes_longer_the_more_there_is() -> None:
    # Far apart, since other work may disturb either.
    assert 0 < copy_seconds(2**12, on_gpu=False) < copy_seconds(2**26, on_gpu=False)
