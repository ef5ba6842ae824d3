"""A machine that seems to have a GPU, whose kernels are functions."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from custom_kernels.choice import op
from custom_kernels.ops.layer_norm import LAYER_NORM
from tests.custom_kernels.conftest import forget_kernels


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No verdict yet, and a machine that seems to have a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    monkeypatch.setattr(op, "default_backend", lambda: "cuda")
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)


def play(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[tuple[int, ...]]:
    """Let `kernel` be the CUDA layer_norm; returns the shapes that it was called with."""
    calls: list[tuple[int, ...]] = []

    def called(x: mx.array, *rest: Any) -> mx.array:
        calls.append(x.shape)
        return kernel(x)

    monkeypatch.setitem(LAYER_NORM.kernels, "cuda", called)
    return calls
