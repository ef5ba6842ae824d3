"""Kernels that begin to be compiled before weights are read; nothing is launched, so that this runs anywhere."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from custom_kernels.cuda import products
from custom_kernels.cuda.ahead import rehearsed
from mlx_embed import EmbeddingModel, loading
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.engine import rehearsal
from mlx_embed.engine.rehearsal import SHAPES, rehearse_unread
from tests.conftest import DATA
from tests.cuda.emulation import on_hopper
from tests.mlx_embed.architectures.cases import BASES, make

CPU = mx.Device(mx.cpu)


@pytest.mark.parametrize("dtype", [None, mx.bfloat16])
@pytest.mark.parametrize("fails", [False, True])
def test_an_encoder_that_is_not_read(dtype: mx.Dtype | None, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through every shape in the dtype that it will have, and what it wanted so far is compiled in any case."""
    seen: list[Any] = []
    compiled: list[Any] = []
    monkeypatch.setattr(rehearsal, "compile_all", compiled.append)

    def head(hidden: mx.array, cu_seqlens: mx.array, longest: int, parameters: Any) -> mx.array:
        wanted = rehearsed()
        assert wanted is not None
        wanted[len(seen)] = print
        seen.append((hidden.shape, hidden.dtype, cu_seqlens.shape, longest, parameters))
        if fails:
            raise ValueError("no such shape")
        return hidden

    checkpoint = read_checkpoint(DATA / "tiny-bert")
    try:
        rehearse_unread(checkpoint, CPU, dtype, head)
    except ValueError:
        assert fails
    expected = [((tokens, 32), dtype or mx.float32, (texts + 1,), longest, ()) for tokens, texts, longest in SHAPES]
    assert seen == expected[: 1 if fails else None]
    assert compiled == [dict.fromkeys(range(len(seen)), print)]


@pytest.mark.parametrize("dtype", [mx.float16, mx.float32], ids=["float16", "float32"])
@pytest.mark.parametrize("name", BASES)
def test_nothing_is_evaluated(name: str, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What launches would give is made up: to compute with it takes time, and reads where nothing is.

    All that is made up is traced here, so that MLX refuses to evaluate what depends on it.
    """
    on_hopper(monkeypatch)
    monkeypatch.setattr(products, "row_pieces", lambda *_: mx.array(0))
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_90"})
    wanted: list[Any] = []
    monkeypatch.setattr(rehearsal, "compile_all", wanted.extend)
    checkpoint = read_checkpoint(make(name, tmp_path))
    shapes: list[tuple[int, ...]] = []

    def head(hidden: mx.array, cu_seqlens: mx.array, longest: int, parameters: Any) -> mx.array:
        shapes.append(hidden.shape)
        return hidden

    def all_traced(nothing: mx.array) -> mx.array:
        with monkeypatch.context() as within:
            within.setattr(mx, "zeros", lambda shape, dtype=mx.float32: mx.broadcast_to(nothing.astype(dtype), shape))
            rehearse_unread(checkpoint, CPU, dtype, head)
        return nothing

    mx.compile(all_traced)(mx.array(0))
    assert [tokens for tokens, _ in shapes] == [tokens for tokens, _, _ in SHAPES]
    assert wanted


@pytest.mark.parametrize("broken", [False, True])
def test_the_head_of_a_model_is_rehearsed_once(broken: bool, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """While it is loaded on CUDA, which it is made to believe in; what is wrong with it is found by loading it."""
    monkeypatch.setattr(loading, "accelerator", lambda: "cuda")
    monkeypatch.setattr(loading, "is_cpu", lambda _: False)
    monkeypatch.setattr(loading, "choose", lambda *_: "graph")
    monkeypatch.setattr(loading, "prepare_accelerator", lambda: None)
    asked: list[Any] = []

    def rehearse_unread(checkpoint: Any, device: Any, dtype: Any, head: Any) -> None:
        asked.append(head)
        if broken:
            raise ValueError("no such shape")

    monkeypatch.setattr(loading, "rehearse_unread", rehearse_unread)
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu", engine="reference")
    assert len(asked) == 1
    assert model.engine._known == (None if broken else asked[0])  # type: ignore[attr-defined]
    assert model.engine.name == "reference"
