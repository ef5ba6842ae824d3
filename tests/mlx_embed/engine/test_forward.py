"""A forward pass computes hidden states of those tokens alone that are read, where a head reads one of each text."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed.architectures.ops import native
from mlx_embed.architectures.ops.unseen import hiding
from mlx_embed.checkpoint import read_checkpoint, weights
from mlx_embed.checkpoint.modules import Pooled, Pooling
from mlx_embed.cross_encoder import ClassifierHead
from mlx_embed.embedding_head import EmbeddingHead
from mlx_embed.engine.forward import forward
from mlx_embed.pooling import POOLING, first_rows, last_rows
from tests.mlx_embed.architectures.cases import CASES, make

# Models that are hardly ever pooled by one token.
EVERY_ROW = {"albert", "t5", "t5, gated", "embedding_gemma2"}
LENGTHS = [3, 1, 0, 9, 4, 0]


def head(*modes: str, skip: int = 0, blank: bool = False) -> EmbeddingHead:
    return EmbeddingHead(Pooling(modes), (), skip, 32, True, blank)


@pytest.mark.parametrize("hides", [pytest.param(True, id="hiding"), pytest.param(False, id="all seen")])
@pytest.mark.parametrize("kind", ["graph", "native"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.changes])
def test_rows_are_those_among_all(name: str, kind: str, hides: bool, tmp_path: Path) -> None:
    """Of every architecture, whatever its tokens see of each other, in any order and of some twice."""
    checkpoint = read_checkpoint(make(name, tmp_path))
    encoder = weights.load_encoder(checkpoint, mx.float32)
    assert getattr(encoder, "takes_rows", False) == (name not in EVERY_ROW)
    if name in EVERY_ROW:
        return
    if kind == "native":
        if not cpu.available():
            pytest.skip(cpu.why_unavailable())
        native.lay_out(encoder)
    array = mx.array if kind == "graph" else np.array
    total = sum(LENGTHS)
    ids = np.random.default_rng(1).integers(5, 20, size=total).astype(np.int32)
    cu_seqlens = np.cumsum([0, *LENGTHS]).astype(np.int32)
    unseen = (np.arange(total) == 1).astype(np.int32) if hides else None
    wanted = np.array([0, 16, 2, 2, 5], dtype=np.int32)

    def run(rows: Any) -> np.ndarray:
        with hiding(None if unseen is None else array(unseen)):
            return np.array(encoder(array(ids), array(cu_seqlens), max(LENGTHS), rows=rows))

    try:
        every = run(None)
    except NotImplementedError as error:
        pytest.skip(str(error))
    found = run(array(wanted))
    assert found.shape == (len(wanted), every.shape[1])
    np.testing.assert_allclose(found, every[wanted], atol=1e-5)


class Recorded:
    """An encoder that notes what it is asked for."""

    def __init__(self, takes_rows: bool) -> None:
        self.takes_rows = takes_rows
        self.asked: list[Any] = []
        self.hidden = np.random.default_rng(0).standard_normal((sum(LENGTHS), 32)).astype(np.float32)

    def __call__(self, *arguments: Any, rows: Any = None) -> Any:
        assert rows is None or rows.dtype == np.int32, "as the kernels take them"
        self.asked.append(None if rows is None else rows.tolist())
        return self.hidden if rows is None else self.hidden[rows]


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (head("cls"), [0, 3, 4, 4, 13, 16]),
        (head("cls", skip=2), [2, 3, 4, 6, 15, 16]),
        (head("lasttoken"), [2, 3, 3, 12, 16, 16]),
        (head("lasttoken", skip=2), [2, 3, 3, 12, 16, 16]),
        (head("lasttoken", blank=True), None),
        (head("mean"), None),
        (head("cls", "lasttoken"), None),
        (EmbeddingHead(Pooled(), (), 0, 32, True), None),
        (ClassifierHead("cls", ()), [0, 3, 4, 4, 13, 16]),
        (ClassifierHead("lasttoken", ()), [2, 3, 3, 12, 16, 16]),
        (ClassifierHead("mean", ()), None),
        (ClassifierHead("late", ()), None),
    ],
)
@pytest.mark.parametrize("takes_rows", [True, False])
@pytest.mark.parametrize("few", [False, True])
def test_the_rows_that_a_head_reads(
    function: Any, rows: list[int] | None, takes_rows: bool, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors are the same in any case."""
    monkeypatch.setattr("mlx_embed.engine.forward.FEW", sum(LENGTHS) - (not few))
    encoder = Recorded(takes_rows)
    cu_seqlens = np.cumsum([0, *LENGTHS]).astype(np.int32)
    ids = np.zeros(sum(LENGTHS), dtype=np.int32)
    if isinstance(function, EmbeddingHead) and isinstance(function.pooling, Pooled):
        encoder.hidden = encoder.hidden[: len(LENGTHS)]
    found = forward(function, (), encoder, ids, cu_seqlens, max(LENGTHS))
    assert encoder.asked == [rows if takes_rows and not few else None]
    np.testing.assert_array_equal(found, function(encoder.hidden, cu_seqlens, max(LENGTHS), ()))


@pytest.mark.parametrize("skip", [0, 2])
def test_pooling_takes_those_rows(skip: int) -> None:
    hidden, cu_seqlens = Recorded(True).hidden, np.cumsum([0, *LENGTHS]).astype(np.int32)
    for mode, rows in (("cls", first_rows), ("lasttoken", last_rows)):
        for array in (np.array, mx.array):
            pooled = POOLING[mode](array(hidden), array(cu_seqlens), max(LENGTHS), skip)
            np.testing.assert_array_equal(np.array(pooled), hidden[np.array(rows(cu_seqlens, len(hidden), skip))])
