"""The folder of compiled CUDA kernels; a compiler stands in, so that this runs anywhere."""

from pathlib import Path

import pytest

from custom_kernels.cuda import nvrtc


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was compiled, in order."""
    sources: list[str] = []

    def compile_cubin(source: str, architecture: str) -> bytes:
        sources.append(f"{source} {architecture}")
        return sources[-1].encode()

    monkeypatch.setattr(nvrtc, "compile_cubin", compile_cubin)
    monkeypatch.setattr(nvrtc, "version", lambda: "13.0")
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", str(tmp_path))
    return sources


def test_a_kernel_is_compiled_once_for_each_source_and_architecture(compiled: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert nvrtc.cubin("a", "sm_90") == b"a sm_90"
        assert nvrtc.cubin("a", "sm_80") == b"a sm_80"
        assert nvrtc.cubin("b", "sm_90") == b"b sm_90"
    assert compiled == ["a sm_90", "a sm_80", "b sm_90"]
    assert len(list(tmp_path.iterdir())) == 3


def test_another_compiler_compiles_again(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc.cubin("a", "sm_90")
    monkeypatch.setattr(nvrtc, "version", lambda: "12.9")
    nvrtc.cubin("a", "sm_90")
    assert len(compiled) == 2


@pytest.mark.parametrize("damaged", [b"", b"short", b"\0" * 80])
def test_a_damaged_file_is_made_again(compiled: list[str], tmp_path: Path, damaged: bytes) -> None:
    nvrtc.cubin("a", "sm_90")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damaged)
    assert nvrtc.cubin("a", "sm_90") == b"a sm_90"
    assert nvrtc.cubin("a", "sm_90") == b"a sm_90"
    assert len(compiled) == 2


def test_without_a_folder_it_compiles_each_time(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", str(tmp_path / "absent"))
    assert nvrtc.cubin("a", "sm_90") == b"a sm_90"
    monkeypatch.delenv("MLX_PTX_CACHE_DIR")
    assert nvrtc.cubin("a", "sm_90") == b"a sm_90"
    assert len(compiled) == 2
    assert not list(tmp_path.iterdir())
