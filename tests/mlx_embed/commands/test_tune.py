"""`mlx-embed tune`: a row for each class of shapes as it is measured, and what becomes of the times."""

from typing import Any

import pytest

from custom_kernels.choice import tune
from custom_kernels.ops import OPS
from mlx_embed import cli
from mlx_embed.engine import device
from mlx_embed.measure import tuning
from mlx_embed.measure.tuning import Row


def test_without_a_gpu_there_is_nothing_to_tune(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "accelerator", lambda: None)
    assert cli.main(["tune"]) == 0
    assert "nothing to tune" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_every_class_is_measured(
    backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measured(op: Any, variant: Any, load: Any) -> Row:
        asked.append((op, variant, load))
        return Row(op.name, f"{variant}, {load}", {"kernel": 2e-5, "built-in": float("inf")}, "kernel")

    monkeypatch.setattr(device, "accelerator", lambda: backend)
    monkeypatch.setattr(tuning, "measured", measured)
    assert cli.main(["tune"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert asked == [(op, *pair) for op in OPS for pair in op.typical(backend)]
    for (op, variant, load), line in zip(asked, lines, strict=True):
        assert line.startswith(op.name)
        assert f"{variant}, {load}" in line
        assert "kernel 20 us, built-in does not run" in line
    assert (str(tune.cache_file()) in last) == (backend == "metal")
    assert ("choose nothing" in last) == (backend == "cuda")
