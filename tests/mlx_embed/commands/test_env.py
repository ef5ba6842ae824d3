"""`mlx-embed env` prints all that was found, and ends with what to do."""

import pytest

from mlx_embed import cli
from mlx_embed.measure import environment as module
from mlx_embed.measure.environment import Environment

KERNELS = {"layer_norm": {"cpu": "yes", "metal": "-", "cuda": "yes"}, "rope": {"cpu": "in others", "metal": "yes"}}


@pytest.mark.parametrize("advice", [[], ["Install a compiler.", "Unset a variable."]])
def test_env(advice: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = {"layer_norm": KERNELS["layer_norm"], "rope": {**KERNELS["rope"], "cuda": "-"}}
    found = Environment({"mlx": "0.32", "native cpu kernels": "AVX2, 3 of 4 cores"}, kernels, advice)
    monkeypatch.setattr(module, "environment", lambda: found)
    assert cli.main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert lines[1] == "native cpu kernels  AVX2, 3 of 4 cores"
    assert ["kernels", "cpu", "metal", "cuda"] in words
    assert ["layer_norm", "yes", "-", "yes"] in words
    assert ["rope", "in", "others", "yes", "-"] in words
    if advice:
        assert lines[-3:] == ["To improve:", *advice]
    else:
        assert lines[-1] == "There is nothing to improve."
