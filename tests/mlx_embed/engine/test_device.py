"""What MLX is told before it first uses an accelerator."""

import os
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_embed.engine.device import accelerator, is_cpu, prepare_accelerator, resolve_device

NAMES = ("MLX_ENABLE_TF32", "MLX_PTX_CACHE_DIR", "MLX_MAX_OPS_PER_BUFFER", "MLX_USE_CUDA_GRAPHS")


@pytest.fixture
def untold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing, and is put back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_mac_that_shows_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX says that there is Metal, and fails when it looks for the device."""
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    shown = False
    monkeypatch.setattr(mx, "is_available", lambda device: shown or is_cpu(device))
    assert accelerator() is None
    with pytest.warns(UserWarning, match="finds no GPU"):
        assert is_cpu(resolve_device(None))
    with pytest.raises(ValueError, match="finds no accelerator"):
        resolve_device("metal")
    shown = True
    assert accelerator() == "metal"
    assert not is_cpu(resolve_device(None))


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.usefixtures("untold")
def test_float32_is_float32_on_cuda_and_metal_keeps_what_is_its_own(
    cuda: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And compiled kernels are in a folder that nobody else can write to."""
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    prepare_accelerator()
    assert os.environ.get("MLX_ENABLE_TF32") == ("0" if cuda else None)
    folder = Path(os.environ["MLX_PTX_CACHE_DIR"])
    assert tmp_path in folder.parents
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("untold")
def test_launches_on_cuda_do_not_wait_for_a_whole_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    prepare_accelerator()
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == "0"
    assert os.environ["MLX_MAX_OPS_PER_BUFFER"] == "10"


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.usefixtures("untold")
def test_what_the_user_has_set_stays(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    for name in NAMES:
        monkeypatch.setenv(name, "7")
    prepare_accelerator()
    assert [os.environ[name] for name in NAMES] == ["7"] * 4
