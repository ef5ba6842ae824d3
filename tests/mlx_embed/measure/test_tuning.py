"""`mlx-embed tune`, and a model on a Mac whose candidates take told seconds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels.choice import op, tune
from custom_kernels.ops.attention import ATTENTION, reference_attention
from mlx_embed import EmbeddingModel, cli
from mlx_embed.engine import device, graph
from mlx_embed.engine.worker import worker
from mlx_embed.measure import tuning
from tests.conftest import DATA
from tests.custom_kernels import conftest
from tests.custom_kernels.conftest import OP, PLAYED, Machine

mac = conftest.mac  # the fixture


@pytest.mark.parametrize("slow", ["kernel", "built-in"])
def test_a_model_takes_what_is_faster_by_the_real_clock(
    slow: str, mac: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock runs while mx.compile traces the model."""
    texts, calls = ["Some words.", "More."], []
    expected = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").encode(texts)
    monkeypatch.setattr(tune, "measure", mac.by_the_clock)
    monkeypatch.setattr(op, "QUICK", 0.001)
    monkeypatch.setattr(tune, "WARM_UP", 0.0)
    monkeypatch.setattr(tune, "repeats", lambda many: 2)
    monkeypatch.setattr(graph, "CLASSES", {16: 64})
    monkeypatch.setattr(graph, "ROWS", ())
    monkeypatch.setattr(graph, "LENGTHS", (16,))

    def way(name: str) -> Callable[..., mx.array]:
        def run(*arguments: Any, **options: Any) -> mx.array:
            calls.append(name)
            found = reference_attention(*arguments, **options)
            if name == slow:
                y = mx.ones((100, 100))
                for _ in range(15):  # some ms, which nothing else that runs here takes
                    y = mx.tanh(y @ y)
                found = found + 0 * y.max()
            return found

        return run

    mac.ship("attention", way("kernel"))
    slowed = replace(ATTENTION, builtins=lambda variant: {"built-in": way("built-in")})
    monkeypatch.setattr("custom_kernels.ops.attention.ATTENTION", slowed)
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="graph")
    worker.run(lambda: model.engine.prepare(16), mx.Device(mx.cpu))
    calls.clear()
    assert np.allclose(model.encode(texts), expected, atol=1e-5)
    last = calls[-1]
    assert set(calls) == {last}, "a choice made before"
    assert last == {"kernel": "built-in", "built-in": "kernel"}[slow]
    before = len(calls)
    assert np.allclose(model.encode(texts), expected, atol=1e-5)
    assert len(calls) == before, "the graph is traced, and the choice made"


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_tune(mac: Machine, backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLAYED:
        monkeypatch.setitem(OP[name].kernels, "cuda", OP[name].reference)
    monkeypatch.setattr(device, "accelerator", lambda: backend)
    monkeypatch.setattr(tuning, "default_backend", lambda: backend)
    monkeypatch.setattr(tuning, "prepare_accelerator", lambda: None)
    monkeypatch.setattr(mx, "gpu", mx.cpu)
    wanted = [c for c in tuning.classes(backend) if c[0].name in PLAYED and not c[2].many][:6]
    monkeypatch.setattr(tuning, "classes", lambda backend: wanted)
    mac.seconds["built-in"] = 1e-4
    assert cli.main(["tune"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(wanted) + 1
    for (one, variant, load), line in zip(wanted, lines, strict=False):
        assert line.startswith(one.name)
        assert f"{variant}, {load}" in line
        assert "kernel 1,000 us" in line
    assert mac.timed == [one.name for one, _, _ in wanted]
    assert tune.cache_file().exists() == (backend == "metal")
    # What was tuned is not timed again.
    one, variant, load = wanted[0]
    mac.timed.clear()
    chosen = one.pick(None, variant, load)
    assert not mac.timed or backend == "cuda"
    assert (chosen is one.builtin(variant)) or backend == "cuda"
