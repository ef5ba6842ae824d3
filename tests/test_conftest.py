"""Tests that are skipped where they must not be."""

import os
import shutil

import pytest

from tests.conftest import untested

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
