"""Tests that are skipped where they must not be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, untested
from tests.headers import precompiled

STALE = "The CPU kernels were built from other sources than these"


@pytest.mark.parametrize(
    ("environment", "reason", "refused"),
    [
        ({"CI": "true"}, STALE, True),
        ({"CI": "1", "CXX": "ccache g++"}, STALE, True),
        ({"CI": "true"}, "", False),
        ({"CI": "false"}, STALE, False),
        ({}, STALE, False),
    ],
)
def test_stale_native_kernels_fail_in_ci(
    environment: dict[str, str], reason: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in ("g++", "ccache") else None)
    found = untested(environment, reason)
    assert (found is not None) == refused
    assert not refused or STALE in str(found)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert untested(environment, reason) is None, "nothing here could build them"


def test_float32_is_float32_in_tests() -> None:
    """On every device, unless who runs them has set something else."""
    assert "MLX_ENABLE_TF32" in os.environ


def test_what_mlx_compiles_finds_its_headers_compiled(tmp_path: Path) -> None:
    """Or a change of its options, or of where it looks, would make all the tests slow that compile anything."""
    made, compiler = precompiled(tmp_path), shutil.which("g++")
    if made is None:
        pytest.skip("MLX's headers are not compiled here")
    said, telling = tmp_path / "said", tmp_path / "g++"
    telling.write_text(f'#!/bin/sh\nexec {compiler} -H "$@" 2>>{said}\n')
    telling.chmod(0o700)
    code = "import mlx_embed, mlx.core as mx; mx.set_default_device(mx.cpu)\n"
    code += "mx.eval(mx.compile(lambda x: mx.tanh(x * 3))(mx.ones(7)))"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert f"! {made}\n" in said.read_text()


def test_processes_of_tests_keep_what_they_compile() -> None:
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
