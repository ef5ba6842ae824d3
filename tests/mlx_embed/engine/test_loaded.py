"""The engine of a loaded model is the one that was asked for."""

import threading
from pathlib import Path

import mlx.core as mx
import pytest

from custom_kernels import cpu
from custom_kernels.choice.switch import kernels_wanted
from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.architectures.ops import native
from tests.checkpoints import reranker
from tests.conftest import DATA

AUTO = "native" if cpu.available() else "reference"


@pytest.mark.parametrize(("wanted", "name"), [("auto", AUTO), ("graph", "graph"), ("reference", "reference")])
def test_by_name(wanted: str, name: str, tmp_path: Path) -> None:
    models = [
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=wanted),
        CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu", engine=wanted),
    ]
    assert [model.engine.name for model in models] == [name, name]


@pytest.mark.parametrize(("wanted", "kernels"), [("graph", True), ("reference", False)])
def test_whether_kernels_may_run(wanted: str, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model computes, and not only by its name."""
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=wanted)
    seen = []
    rows = model.engine.rows

    def watched(batch: object, head: object) -> object:
        def looked(*given: object) -> object:
            seen.append(kernels_wanted())
            return head(*given)

        return rows(batch, looked)

    monkeypatch.setattr(model.engine, "rows", watched)
    model.encode("the wing")
    assert seen == [kernels]


def test_kernels_switched_off_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    assert EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").engine.name == "reference"


@pytest.mark.parametrize("cuda", [True, False])
def test_mlx_gives_memory_back_on_a_thread_of_its_own(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, whose last GPU that thread is left on, while this one goes on with the first."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(mx, "clear_cache", lambda: threads.append(threading.current_thread()))
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    native._clear_cache()
    (thread,) = threads
    assert (thread is threading.current_thread()) != cuda
    assert not cuda or not thread.is_alive()
