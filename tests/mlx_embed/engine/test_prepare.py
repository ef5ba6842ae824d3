"""On a Mac, ops find out how they are best computed when a model is loaded: afterwards nobody waits for that."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import mean_pool
from custom_kernels.choice import op
from custom_kernels.choice.serving import serving
from custom_kernels.ops.attention import ATTENTION
from mlx_embed import EmbeddingModel
from mlx_embed.architectures import bert
from mlx_embed.engine import choice, graph
from mlx_embed.engine.graph import GraphEngine
from tests.conftest import DATA
from tests.metal.emulation import emulated_metal, unavailable
from tests.metal.launches import function
from tests.metal.primitives import kernels_on_metal

# The ops that this package has Metal kernels of.
WITH_KERNELS = {"attention", "embedding_norm", "layer_norm", "linear", "mean_pool"}
CPU = mx.Device(mx.cpu)


@pytest.fixture
def engine() -> Iterator[GraphEngine]:
    """Of a small BERT on a Mac, where MLX's own ops are played to be fastest."""
    encoder = bert.Model(bert.Config(50, 64, 1, 2, 128, 512))
    mx.eval(encoder.parameters())
    with kernels_on_metal(), pytest.MonkeyPatch.context() as patch, mx.stream(mx.cpu):
        patch.setattr(op.Op, "_fastest", lambda self, variant, load: self.builtin(variant))
        yield GraphEngine(encoder, CPU, kernels=True, compiled=True)


@pytest.mark.parametrize("longest", [512, 48])
def test_every_class_of_batches_has_been_seen(
    engine: GraphEngine, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.prepare(longest)
    missed = []

    def unasked(self: op.Op, backend: str, variant: Any) -> op.Kernel:
        missed.append((self.name, variant))
        return self.builtin(variant)

    monkeypatch.setattr(op.Op, "_unasked", unasked)
    rng = np.random.default_rng()
    head = engine.encoder  # not compiled: a graph is built for each batch, and none is run
    for count, budget in ((1, 512), (2, 512), (3, 30), (20, 700), (90, 20000)):
        ids = [np.zeros(n, dtype=np.int32) for n in rng.integers(2, longest + 1, size=count)]
        for batch in engine.batches(ids, budget):
            engine.rows(batch, lambda ids, starts, longest, types: head(ids, starts, longest))
    assert [name for name, _ in missed if name in WITH_KERNELS] == []


@pytest.mark.parametrize("worst", [None, op.Load(4096, 128), op.Load(4096, 128, True), op.Load(16, 16)])
def test_texts_share_a_batch_where_a_kernel_is_best_for_them(engine: GraphEngine, worst: op.Load | None) -> None:
    def kernel(*arguments: Any, **options: Any) -> mx.array:
        return ATTENTION.reference(*arguments, **options)

    def fastest(self: op.Op, variant: Any, load: op.Load) -> op.Kernel:
        return kernel if self is ATTENTION and load != worst else self.builtin(variant)

    engine._ragged = True
    with pytest.MonkeyPatch.context() as patch:  # ends before the fixture's own
        patch.setitem(ATTENTION.kernels, "metal", kernel)
        patch.setattr(op.Op, "_fastest", fastest)
        engine.prepare(512)
    assert engine._ragged == (worst is None or worst.equal or not worst.many)


@pytest.mark.parametrize(("accelerator", "wanted", "prepared"), [
    ("metal", "graph", [512]), ("metal", "reference", []), ("cuda", "graph", [])
])  # fmt: skip
def test_a_model_is_prepared_at_load(
    accelerator: str, wanted: str, prepared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(choice, "accelerator", lambda: accelerator)
    monkeypatch.setattr(choice, "is_cpu", lambda device: False)
    monkeypatch.setattr(GraphEngine, "prepare", lambda self, longest: found.append(longest))
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=wanted)
    assert [min(longest, 512) for longest in found] == [min(n, model.max_seq_length) for n in prepared]


@pytest.mark.parametrize(("accelerator", "kernels", "shared"), [
    ("metal", True, True), ("cuda", True, True), ("metal", False, False), (None, True, False)
])  # fmt: skip
def test_texts_of_any_lengths_share_a_batch_where_attention_is_packed(
    accelerator: str | None, kernels: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "accelerator", lambda: accelerator)
    monkeypatch.setattr(graph, "is_cpu", lambda device: False)
    engine = GraphEngine(bert.Model(bert.Config(50, 64, 1, 2, 128, 512)), CPU, kernels=kernels, compiled=True)
    ids = [[0] * n for n in [*[512] * 9, *[8] * 120]]
    assert (len(list(engine.batches(ids, 65536))) == 1) == shared


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[GraphEngine, list[str]]]:
    """Of a small BERT on a Mac whose kernels give zeros, and the sources of all launches."""
    monkeypatch.setattr(graph, "accelerator", lambda: "metal")
    encoder = bert.Model(bert.Config(50, 64, 1, 2, 128, 512))
    encoder.set_dtype(mx.float16)
    mx.eval(encoder.parameters())
    with kernels_on_metal(), mx.stream(mx.cpu), emulated_metal(run=False) as sources:
        engine = GraphEngine(encoder, CPU, kernels=True, compiled=True)
        engine._ragged = True
        yield engine, sources


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_no_request_waits_for_apples_compiler(
    emulated: tuple[GraphEngine, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes a function of each kernel, with its template's numbers, at the first launch in a process."""
    engine, sources = emulated
    begun: list[int] = []
    computed: list[tuple[int, ...]] = []
    to_host = graph.to_host
    monkeypatch.setattr(graph, "serving", lambda: (begun.append(len(sources)), serving())[1])
    monkeypatch.setattr(graph, "to_host", lambda x: (computed.append(x.shape), to_host(x))[1])
    engine.prepare(512)
    assert not computed, "only built"
    head = engine.head(lambda hidden, starts, longest, _: mean_pool(hidden, starts, 0, True))
    assert 10 <= len(computed) <= 20
    functions, traced = {function(source) for source in sources[begun[0] :]}, len(sources)
    assert any("mean_pool" in name for name in functions), "what the head takes was found out too"
    for length in range(1, 129):
        list(engine.run(engine.batches([[0] * length], 512), head))
    assert len(sources) == traced, "nothing is traced for a query"
    rng = np.random.default_rng()
    for count, most in ((2, 9), (5, 5), (9, 16), (3, 40), (20, 30), (12, 200)):
        ids = [np.zeros(n, dtype=np.int32) for n in rng.integers(1, most + 1, size=count)]
        list(engine.run(engine.batches(ids, 2048), head))
    assert len(sources) > traced
    assert {function(source) for source in sources[traced:]} - functions == set()
    tried = len(computed)
    engine.head(lambda hidden, starts, longest, _: hidden[starts[:-1]])
    assert len(computed) == tried, "later heads are made in requests"
