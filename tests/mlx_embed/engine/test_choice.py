"""Which engine is chosen, and that choices of one model never reach another."""

import asyncio
import threading
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.engine import ENGINES, choice, choose
from tests.conftest import DATA

CPU, GPU = mx.Device(mx.cpu), mx.Device(mx.gpu)
TEXTS = ["the wing " * n for n in (1, 9, 3, 0, 5)]

needs_native = pytest.mark.skipif(not cpu.available(), reason="the native kernels are not built")


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "chosen"),
    [
        pytest.param("auto", CPU, mx.float32, "native", marks=needs_native),
        pytest.param("native", CPU, mx.float32, "native", marks=needs_native),
        ("graph", CPU, mx.float32, "graph"),
        ("reference", CPU, mx.float32, "reference"),
        pytest.param("auto", CPU, mx.bfloat16, "native", marks=needs_native),
        ("reference", CPU, mx.bfloat16, "reference"),
        ("auto", GPU, mx.float16, "graph"),
        ("auto", GPU, None, "graph"),
        ("reference", GPU, None, "reference"),
    ],
)
def test_choice(wanted: str, device: mx.Device, dtype: mx.Dtype | None, chosen: str) -> None:
    assert choose(wanted, device, dtype) == chosen


@pytest.mark.parametrize("device", [CPU, GPU])
def test_kernels_switched_off_by_the_environment(device: mx.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    assert choose("auto", device, mx.float32) == "reference"
    assert choose("graph", device, mx.float32) == "graph", "what is named is had"


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "message"),
    [
        ("fastest", CPU, mx.float32, "engine 'fastest' is not one of auto, native, graph, reference"),
        ("native", GPU, mx.float32, 'pass device="cpu"'),
        ("native", CPU, mx.float16, "computes in float32, bfloat16 or int8"),
        ("native", GPU, mx.int8, 'pass device="cpu"'),
        ("graph", CPU, mx.int8, "int8.* engine 'graph' is \"graph\" here"),
        ("reference", CPU, mx.int8, "of the native CPU kernels"),
    ],
)
def test_what_cannot_be(wanted: str, device: mx.Device, dtype: mx.Dtype, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(wanted, device, dtype)


@needs_native
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_what_the_processor_does_not_multiply_is_float32_and_said_once(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").encode(TEXTS)
    choice._say_other.cache_clear()
    monkeypatch.setattr(cpu, "product", lambda dtype: "")
    with pytest.warns(UserWarning, match=f"compute in float32, .* rather than in {dtype}") as said:
        models = [EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", dtype=dtype) for _ in range(2)]
    assert len(said) == 1
    for model in models:
        assert (model.engine.name, model.dtype) == ("native", mx.float32)
        assert np.array_equal(model.encode(TEXTS), expected), "from the checkpoint's weights, which are not rounded"


@needs_native
@pytest.mark.parametrize(
    ("dtype", "here", "computed"),
    [
        (None, {"bfloat16", "int8"}, mx.float32),
        (mx.float32, {"bfloat16", "int8"}, mx.float32),
        (mx.float16, {"bfloat16", "int8"}, mx.float32),
        (mx.bfloat16, {"bfloat16"}, mx.bfloat16),
        (mx.bfloat16, {"int8"}, mx.float32),
        (mx.int8, {"int8"}, mx.int8),
        (mx.int8, {"bfloat16"}, mx.bfloat16),
        (mx.int8, set(), mx.float32),
    ],
)
def test_the_next_better_dtype_that_the_processor_multiplies(
    dtype: mx.Dtype | None, here: set[str], computed: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "product", lambda name: name if name in here else "")
    assert choice.native_dtype(dtype) == computed


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MLX_EMBED_NUM_THREADS", "0", "a number of at least 1"),
        ("MLX_EMBED_NUM_THREADS", "-1", "a number of at least 1"),
        ("MLX_EMBED_NUM_THREADS", "abc", "a number of at least 1"),
        ("MLX_EMBED_CPU_ISA", "sse9", "one of avx512_bf16, avx512_vnni, avx512, avx2_vnni, avx2, neon_dot, baseline"),
        ("MLX_EMBED_KERNELS", "off", "reference"),
    ],
)
def test_wrong_settings_are_said_at_load(
    name: str, value: str, allowed: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} is '{value}'; set it to {allowed}"):
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=engine)


def test_native_where_it_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "why_unavailable", lambda: "The CPU kernels were not built.")
    with pytest.raises(RuntimeError, match="were not built"):
        choose("native", CPU, mx.float32)


def test_bad_choices_come_before_any_download() -> None:
    with pytest.raises(ValueError, match="engine 'fastest'"):
        EmbeddingModel.from_pretrained("no/such-model", engine="fastest")


@needs_native
def test_models_on_two_threads_keep_their_engines(tmp_path: Path) -> None:
    """One of them on MLX's own ops alone: neither may change how the other, or a later one, is computed."""
    models = {
        name: EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=name)
        for name in ("auto", "reference", "graph")
    }
    expected = models["reference"].encode(TEXTS)
    wrong: list[str] = []
    stop = threading.Event()

    def encode(name: str) -> None:
        while not stop.is_set():
            if np.abs(models[name].encode(TEXTS) - expected).max() > 1e-5:
                wrong.append(name)

    threads = [threading.Thread(target=encode, args=(name,)) for name in models]
    for thread in threads:
        thread.start()
    loaded = [EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").engine.name for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert set(loaded) == {"native"}
    assert EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").engine.name == "native"


@needs_native
def test_models_in_threads_of_asyncio_keep_their_engines() -> None:
    async def main() -> list[str]:
        plain = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
        encodings = [asyncio.to_thread(plain.encode, TEXTS) for _ in range(8)]
        loads = [asyncio.to_thread(EmbeddingModel.from_pretrained, DATA / "tiny-bert", device="cpu") for _ in range(8)]
        (*_,) = await asyncio.gather(*encodings)
        return [model.engine.name for model in await asyncio.gather(*loads)]

    assert set(asyncio.run(main())) == {"native"}
