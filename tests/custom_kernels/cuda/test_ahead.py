"""Kernels that are compiled ahead; a compiler stands in, so that this runs anywhere."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import mlx.core as mx
import pytest

from custom_kernels import attention, cuda
from custom_kernels.choice.op import Kernel, Load, Op
from custom_kernels.cuda import ahead, launch
from tests.cuda.emulation import on_hopper
from tests.custom_kernels.conftest import OP, head_norms, random, rotation, starts

LAUNCH = {"types": {"T": mx.float16}, "constants": {"WIDTH": 8}}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled, in order; it takes a little."""
    sources: list[str] = []

    def cubin(source: str, architecture: str) -> bytes:
        sources.append(source)
        time.sleep(0.05)
        if "mean_pool" in source:
            raise RuntimeError("no such instruction")
        return b"code"

    monkeypatch.setattr(launch, "cubin", cubin)
    monkeypatch.setattr(launch, "compressed", lambda code, *_: code)
    monkeypatch.setattr(launch, "architecture", lambda: "sm_90")
    monkeypatch.setattr(launch, "_codes", {})
    return sources


def ask(name: str, x: mx.array, **options: Any) -> mx.array:
    return launch.launch(name, [x], [8], (1, 32), (3, 8), mx.float16, **LAUNCH, **options)


def test_a_rehearsal_launches_and_compiles_nothing(compiled: list[str]) -> None:
    with ahead.rehearsal() as wanted:
        for name in ("layer_norm", "layer_norm", "rope"):
            found = ask(name, mx.zeros((3, 8)))
            assert (found.shape, found.dtype) == ((3, 8), mx.float16)
        ask("rope", found, macros={"A": "1"})
    assert len(wanted) == 3
    assert compiled == []
    assert ahead.rehearsed() is None


def test_all_that_is_wanted_is_compiled_and_waited_for(compiled: list[str]) -> None:
    with ahead.rehearsal() as wanted:
        for name in ("layer_norm", "mean_pool", "rope"):
            ask(name, mx.zeros((3, 8)))
    ahead.compile_all(wanted)
    codes = [
        lambda name=name: launch.compiled(name, (("T", mx.float16),), (("WIDTH", 8),))
        for name in ("layer_norm", "rope")
    ]
    assert [code() for code in codes] == [b"code", b"code"]
    with pytest.raises(RuntimeError, match="no such instruction"):
        launch.compiled("mean_pool", (("T", mx.float16),), (("WIDTH", 8),))
    assert len(compiled) == 3
    ahead.compile_all({})


def test_whoever_asks_for_what_is_being_compiled_waits(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bytes] = []
    all_have_looked = threading.Barrier(5)

    def future() -> Future[bytes]:
        """What a thread makes that has found no code."""
        all_have_looked.wait(10)
        return Future()

    monkeypatch.setattr(launch, "Future", future)

    def ask_too() -> None:
        found.append(launch.compiled("rope", (("T", mx.float32),), ()))

    threads = [threading.Thread(target=ask_too) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"code"] * 5
    assert len(compiled) == 1


def test_errors_of_what_is_compiled_ahead_are_left_to_who_needs_it() -> None:
    done = threading.Event()

    def broken() -> None:
        raise RuntimeError("no such instruction")

    wanted: dict[str, Callable[[], object]] = {"a": broken, "b": done.set}
    ahead.compile_all(wanted)
    assert done.wait(10)


def test_whether_something_is_still_being_compiled() -> None:
    go_on = threading.Event()
    wanted: dict[str, Callable[[], object]] = {"a": lambda: go_on.wait(10), "b": lambda: 1 / 0}
    assert not ahead.under_way()
    ahead.compile_all(wanted)
    assert ahead.under_way(), "nobody waits for what has begun"
    start = time.perf_counter()
    assert ahead.under_way(0.05)
    assert time.perf_counter() - start >= 0.05
    go_on.set()
    assert not ahead.under_way(10)
    assert not ahead.under_way()


@pytest.mark.parametrize("length", [16, 150, 300, 700])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("dtype", "dim"), [("bfloat16", 128), ("float16", 64), ("float16", 256), ("float32", 5)])
def test_attention_is_checked_as_it_is_compiled(
    dtype: str, dim: int, turned: bool, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a sample that takes the very kernel that a model does, which is then compiled once."""
    variants: list[Any] = []

    def pick(_: Op, backend: str | None, variant: Any, load: Load) -> Kernel:
        variants.append(variant)
        return cuda.attention

    on_hopper(monkeypatch)
    monkeypatch.setattr(Op, "pick", pick)
    monkeypatch.setattr("custom_kernels.ops.attention.default_backend", lambda: "cuda")
    lengths = [length, 3]  # or MLX's own attention is chosen
    turn = rotation(lengths, dim, head_norms(dim, dtype)) if turned and dim % 2 == 0 else None
    qkv = random(sum(lengths), (12 + 2 * 4) * dim, dtype=dtype)
    with ahead.rehearsal() as wanted:
        attention(qkv, starts(lengths), 12, 0.2, None, turn, max_seqlen=length, kv_heads=4)
    arguments, options = OP["attention"].sample(*variants, None)
    with ahead.rehearsal() as checked:
        cuda.attention(*arguments, **options)
    assert set(checked) == set(wanted)
