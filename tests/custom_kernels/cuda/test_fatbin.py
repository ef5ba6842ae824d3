"""The container that kernels are handed to MLX in."""

import builtins
import struct
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import layer_norm
from custom_kernels.cuda import driver, fatbin, launch

# What CUDA 13.5's `fatbinary --create x --compress-mode=size --image3=kind=elf,sm=90a,file=... -64` writes before a
# cubin of 14036 bytes of which zstd makes 4054.
HEADERS = """
    50ed55ba 01001000 1810000000000000
    0200 0101 40000000 d80f000000000000 d60f0000 00000000 0800 0100 5a000000 0000000000000000
    1180100000000000 0000000000000000 d436000000000000
"""
CUBIN = np.random.default_rng(0).integers(0, 4, size=5001).astype(np.uint8).tobytes()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, str]]:
    """What a driver was asked for that takes everything."""
    images: list[tuple[bytes, str]] = []
    monkeypatch.setattr(fatbin, "_taken", {})
    monkeypatch.setattr(driver, "loads", lambda *image: images.append(image) or True)
    return images


def test_the_headers_are_those_of_cudas_own_tool() -> None:
    expected = bytes.fromhex("".join(HEADERS.split()))
    found = fatbin.fatbin(bytes(4054), 14036, "sm_90a")
    assert found[:80] == expected
    assert len(found) == 80 + 4056
    assert struct.unpack("<IQ", found[44:48] + found[56:64]) == (90, 0x108011)
    plain = fatbin.fatbin(bytes(8), 14036, "sm_120")
    assert struct.unpack("<IQ", plain[44:48] + plain[56:64]) == (120, 0x8011)


def test_what_is_in_it(tried: list[tuple[bytes, str]]) -> None:
    zstandard = pytest.importorskip("zstandard")
    found = fatbin.compressed(CUBIN, "attention", "sm_90a")
    assert fatbin.compressed(CUBIN, "rope", "sm_90a") == found
    assert tried == [(found, "attention")]
    assert len(found) < len(CUBIN) / 2
    assert len(found) % 8 == 0
    size = struct.unpack("<I", found[32:36])[0]
    assert zstandard.ZstdDecompressor().decompress(found[80 : 80 + size]) == CUBIN
    fatbin.compressed(CUBIN, "rope", "sm_90")
    assert len(tried) == 2


def test_a_driver_that_takes_none(tried: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zstandard")
    monkeypatch.setattr(driver, "loads", lambda *_: False)
    assert fatbin.compressed(CUBIN, "rope", "sm_90") == CUBIN


@pytest.mark.parametrize("error", [RuntimeError("CUDA's cuInit gives error 999."), OSError("no libcuda.so.1")])
def test_a_driver_that_cannot_be_asked(
    error: Exception, tried: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard")

    def fail(*_: Any) -> bool:
        raise error

    monkeypatch.setattr(driver, "loads", fail)
    assert fatbin.compressed(CUBIN, "rope", "sm_90") == CUBIN


def test_without_zstandard(tried: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert fatbin.compressed(CUBIN, "rope", "sm_90") == CUBIN
    assert tried == []


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no cuda device here")
def test_the_driver_here() -> None:
    pytest.importorskip("zstandard")
    x = mx.ones((3, 8))
    mx.eval(layer_norm(x, x[0], x[0], 1e-5, backend="cuda"))
    codes = [code.result() for code in launch._codes.values()]
    assert all(struct.unpack("<I", code[:4])[0] == fatbin.MAGIC for code in codes)
    assert driver.loads(codes[0], "no such kernel") is False
    assert driver.loads(b"no module", "rope") is False
