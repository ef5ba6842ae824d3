"""What is remembered of kernels that agreed, and when it ends."""

import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from custom_kernels import layer_norm
from custom_kernels.choice import machine as module
from custom_kernels.choice import trust
from custom_kernels.ops.layer_norm import LAYER_NORM, reference_layer_norm
from tests.custom_kernels.choice.conftest import play
from tests.custom_kernels.conftest import forget_kernels, random


@pytest.mark.usefixtures("unchecked")
def test_the_next_process_trusts_what_agreed_and_checks_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = random(6, 32), random(32)
    calls = play(monkeypatch, lambda x: reference_layer_norm(x, weight, None, 1e-5, mx.zeros_like(x)))
    sample = (random(5, 32), weight, None, 1e-5, mx.zeros((5, 32))), {}
    monkeypatch.setattr("custom_kernels.ops.layer_norm.LAYER_NORM", replace(LAYER_NORM, sample=lambda *_: sample))

    def checks() -> int:
        forget_kernels(monkeypatch)
        calls.clear()
        layer_norm(x, weight, None, 1e-5, mx.zeros_like(x))
        return calls.count((5, 32))

    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "sources", lambda: "other code")
    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "machine", lambda: ("another driver",))
    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "machine", lambda: ("where it is wrong",))
    calls = play(monkeypatch, lambda x: x)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="switched off"):
            assert checks() == 1
    # Nowhere to remember: a file is where the folder should be.
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    calls = play(monkeypatch, lambda x: reference_layer_norm(x, weight, None, 1e-5, mx.zeros_like(x)))
    assert [checks(), checks()] == [1, 1]


def test_trust_is_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for info in ({}, {"device_name": "M1"}, {"device_name": "M1", "architecture": "applegpu_g13s"}):
        monkeypatch.setattr(mx, "device_info", lambda info=info: info)
        seen.append(module.machine())
    assert len(set(seen)) == 3


def test_trust_ends_where_the_code_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path(module.__file__).parents[1]
    copy = Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.so", "__pycache__")))
    monkeypatch.setattr(module, "__file__", str(copy / "choice/machine.py"))
    seen = {module.sources.__wrapped__()}
    for name in (
        "cuda/linear.cu",
        "cuda/shared/products.cuh",
        "metal/attention.metal",
        "cuda/linear.py",
        "ops/linear.py",
    ):
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
        seen.add(module.sources.__wrapped__())
    assert len(seen) == 6
