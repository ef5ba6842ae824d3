"""A Mac whose kernels stop to run after they have passed their check."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels.choice import op
from mlx_embed.architectures import bert
from mlx_embed.engine import graph
from mlx_embed.engine.graph import GraphEngine
from tests.metal.primitives import kernels_on_metal

IDS = [[7] * n for n in (3, 20, 4, 9)]
CPU = mx.Device(mx.cpu)
FAULT = "[metal::Device] Unable to load kernel custom_kernel_layer_norm"


@pytest.fixture
def mac() -> Iterator[pytest.MonkeyPatch]:
    """A Mac, and what patches it: `monkeypatch` would put back what this has put there."""
    with kernels_on_metal(), pytest.MonkeyPatch.context() as patch, mx.stream(mx.cpu):
        patch.setattr(graph, "accelerator", lambda: "metal")
        patch.setattr(op.Op, "_unasked", lambda self, backend, variant: self.builtin(variant))
        yield patch


@pytest.fixture
def engine(mac: pytest.MonkeyPatch) -> GraphEngine:
    """Of a small BERT."""
    encoder = bert.Model(bert.Config(50, 32, 1, 2, 64, 64))
    mx.eval(encoder.parameters())
    return GraphEngine(encoder, CPU, kernels=True, compiled=True)


def first_of(hidden: mx.array, starts: mx.array, *_: Any) -> mx.array:
    return hidden[starts[:-1]]


def last_of(hidden: mx.array, starts: mx.array, *_: Any) -> mx.array:
    return hidden[starts[1:] - 1]


def vectors(engine: GraphEngine, head: Any) -> np.ndarray:
    out = np.full((len(IDS), 32), np.nan, dtype=np.float32)
    for batch, rows in engine.run(engine.batches(IDS, 32), head):
        out[batch.texts] = rows
    return out


def broken(*_: Any, **__: Any) -> mx.array:
    raise RuntimeError(FAULT)


@pytest.mark.parametrize("late", [False, True], ids=["when it is launched", "while it runs"])
def test_mlx_computes_what_a_kernel_does_not(engine: GraphEngine, late: bool, mac: pytest.MonkeyPatch) -> None:
    first, second = engine.head(first_of), engine.head(last_of)
    expected = [vectors(engine, head) for head in (first, second)]
    to_host = graph.to_host

    def unread(x: mx.array) -> Callable[[], Any]:
        return broken if engine.kernels else to_host(x)

    if late:
        mac.setattr(graph, "to_host", unread)
    else:
        # Graphs of these shapes are there; another head's are made anew.
        first = engine.head(first_of)
        mac.setattr(op.Op, "_unasked", lambda self, backend, variant: broken)
    engine._ragged = True  # as on a GPU
    with pytest.warns(RuntimeWarning, match="Unable to load kernel.*MLX's own ops instead") as caught:
        found = [vectors(engine, head) for head in (first, second)]
    assert len(caught) == 1
    np.testing.assert_array_equal(found, expected)
    assert engine.name == "reference"
    assert not engine._ragged, "MLX's own attention pads"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(vectors(engine, first), expected[0])


def test_graphs_of_kernels_are_not_used_afterwards(engine: GraphEngine, mac: pytest.MonkeyPatch) -> None:
    head = engine.head(first_of)
    mac.setattr(op.Op, "_unasked", lambda self, backend, variant: doubled(self.builtin(variant)))
    with_kernels = vectors(engine, head)
    engine.kernels = False
    assert np.abs(vectors(engine, head) - with_kernels).max() > 1e-3


def doubled(way: op.Kernel) -> op.Kernel:
    return lambda *arguments, **options: 2 * way(*arguments, **options)


def test_what_fails_without_kernels_too_is_raised_as_it_was(engine: GraphEngine) -> None:
    def head(*_: Any) -> mx.array:
        raise ValueError("a fault of the head")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="a fault of the head"):
            vectors(engine, head)
    assert engine.kernels


def test_a_kernel_that_does_not_run_is_found_at_load(engine: GraphEngine, mac: pytest.MonkeyPatch) -> None:
    """Of a batch of few tokens; whatever else a head may have against it, a request says."""
    expected = vectors(engine, engine.head(first_of))
    to_host = graph.to_host
    mac.setattr(graph, "to_host", lambda x: broken if engine.kernels else to_host(x))
    mac.setattr(op.Op, "_fastest", lambda self, variant, load: self.builtin(variant))
    engine.prepare(3)
    with pytest.warns(RuntimeWarning, match="Unable to load kernel.*MLX's own ops instead"):
        head = engine.head(first_of)
    assert engine.name == "reference"
    np.testing.assert_array_equal(vectors(engine, head), expected)
    engine.prepare(3)
    wrong = engine.head(broken)
    with pytest.raises(RuntimeError, match="Unable to load"):
        vectors(engine, wrong)
