"""The comparison run on a tiny model, and `mlx-embed env`."""

import json
import re
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.ops import OPS
from mlx_embed import EmbeddingModel, cli
from mlx_embed.measure import compare
from tests.conftest import DATA


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "BATCH_SIZES", (1, 3))
    monkeypatch.setattr(compare, "NORM_SHAPES", ((3, 384),))
    monkeypatch.setattr(compare, "SECONDS_A_ROW", 0.01)
    monkeypatch.setattr(compare, "LOADS", compare.LOADS[:1])


def test_the_run_agrees_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.json"
    assert cli.main(["compare", "--model", str(DATA / "tiny-bert"), "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "All vectors agree." in printed
    report = json.loads(target.read_text())
    sides = set(report["model"]["sides"])
    assert compare.BASE in sides
    assert {row["side"] for row in report["agreement"]} == sides - {compare.BASE}
    assert {(row["texts"], row["side"]) for row in report["latency"]} == {(n, side) for n in (1, 3) for side in sides}
    assert report["graph"][compare.BASE] > 0
    for op in OPS:
        implementations = {row["implementation"] for row in report["kernels"] if row["op"] == op.name}
        if op.name in ("linear", "output_norm", "short_encoder"):  # their kernels are of 16 bits, the figures of 32
            assert not implementations
        else:
            assert "reference, CPU stream" in implementations
            assert ("native cpu" in implementations) == (cpu.available() and op.name != "activate")
    assert bool(report["launches"]) == mx.cuda.is_available()
    assert ("not counted" in printed) != mx.cuda.is_available()


@pytest.mark.skipif(not cpu.available(), reason="the native CPU kernels are not built")
def test_a_wrong_op_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    honest = cpu.mean_pool
    monkeypatch.setattr(cpu, "mean_pool", lambda *arguments: honest(*arguments) * 1.01)
    assert cli.main(["compare", "--model", str(DATA / "tiny-bert")]) == 1
    assert "FAILED: mean_pool" in capsys.readouterr().out


def test_launches_are_counted_on_cuda_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """CUDA is played by the CPU stream, and the counting by figures."""
    sides = compare._sides(DATA / "tiny-bert", None)
    sides["cuda"] = sides[compare.BASE]

    def counted(folder: Path, dtype: mx.Dtype, texts: list[str], *, kernels: bool) -> Counter[str]:
        assert (folder / "config.json").exists()
        assert len(texts) == 3
        return Counter({"attention": 6, "gemm": 24} if kernels else {"softmax": 6, "gemm": 94})

    monkeypatch.setattr(compare, "_sides", lambda *_: sides)
    monkeypatch.setattr(compare, "count_launches", counted)
    for part in ("OPS", "NORM_SHAPES"):
        monkeypatch.setattr(compare, part, ())
    monkeypatch.setattr(compare, "accelerator", lambda: "cuda")
    monkeypatch.setattr(compare, "resolve_device", lambda device: mx.Device(mx.cpu))
    target = tmp_path / "report.json"
    assert cli.main(["compare", "--model", str(DATA / "tiny-bert"), "--json", str(target)]) == 0
    assert "Kernel launches of one forward pass on CUDA, 3 texts" in capsys.readouterr().out
    first, second = json.loads(target.read_text())["launches"]
    assert (first["launches"], second["launches"]) == (30, 100)
    assert first["of"] == {"gemm": 24, "attention": 6}


def test_wrong_vectors_are_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    honest = EmbeddingModel.encode

    def turned(self: EmbeddingModel, *arguments: object, **options: object) -> np.ndarray:
        vectors = honest(self, *arguments, **options)
        return np.roll(vectors, 1, axis=-1) if self.engine.name == "reference" else vectors

    monkeypatch.setattr(EmbeddingModel, "encode", turned)
    assert cli.main(["compare", "--model", str(DATA / "tiny-bert")]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "texts.txt"
    empty.write_text("\n\n")
    assert cli.main(["compare", "--model", str(DATA / "tiny-bert"), "--texts", str(empty)]) == 2
    assert "at least one text" in capsys.readouterr().err
    assert cli.main(["compare", "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_env_names_every_op(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)
    assert cli.main(["env"]) == 0
    printed = capsys.readouterr().out
    for op in OPS:
        (row,) = re.findall(rf"^{op.name} on the cpu +(.+)$", printed, re.M)
        inside_others = op.name in ("activate", "short_encoder")
        kernel = "a part of other native kernels" if inside_others else "native kernel"
        assert row == (kernel if cpu.available() else "MLX's ops")


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_env_says_which_ops_have_a_kernel_on_a_gpu(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)
    monkeypatch.setattr("mlx_embed.measure.environment.default_backend", lambda: backend)
    assert cli.main(["env"]) == 0
    rows = dict(re.findall(rf"^(\w+) on {backend} +(.+)$", capsys.readouterr().out, re.M))
    without = {"metal": {"activate", "linear", "output_norm", "short_encoder"}, "cuda": set()}[backend]
    assert {name for name, row in rows.items() if row == "MLX's ops"} == without
    assert set(rows) == {op.name for op in OPS}
