"""`encode --sparse` and `--multi-vector`, beside the same models asked directly."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_embed import MultiVectorEncoder, MultiVectors, SparseEncoder, SparseVectors
from mlx_embed.cli import main
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

TEXTS = ["the wing flow", "heat", "", "a query of code"]


def lines(folder: Path) -> str:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"_id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return str(path)


@pytest.mark.parametrize("task", ["query", "document"])
def test_sparse(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_sparse(tmp_path / "model", "queries looked up")
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    expected = (model.encode_query if task == "query" else model.encode_document)(TEXTS)
    command = ["encode", lines(tmp_path), "--sparse", "--model", str(folder), "--task", task, "--device", "cpu"]
    assert main(command) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == list(range(4))
    assert rows[0]["indices"] == expected[0].indices.tolist()
    assert rows[0]["values"] == pytest.approx(expected[0].values.tolist(), abs=1e-6)
    assert main([*command, "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as file:
        found = SparseVectors(file["indptr"], file["indices"], file["data"], int(file["shape"][1]))
        assert file["ids"].tolist() == list(range(4))
        assert file["format"].item() == b"csr"
    assert found.dimension == expected.dimension
    assert found.dense() == pytest.approx(expected.dense(), abs=1e-6)
    assert "4 texts" in capsys.readouterr().err


def test_multi_vector(tmp_path: Path) -> None:
    folder = make_multi_vector(tmp_path / "model", "sentence-transformers")
    model = MultiVectorEncoder.from_pretrained(folder, device="cpu")
    command = ["encode", lines(tmp_path), "--multi-vector", "--model", str(folder), "--device", "cpu", "-o"]
    assert main([*command, str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as file:
        found = MultiVectors(file["vectors"], file["offsets"])
    for a, b in zip(found, model.encode_document(TEXTS), strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    assert main([*command, str(tmp_path / "out.jsonl"), "--task", "query"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.array([row["vectors"] for row in rows]) == pytest.approx(model.encode_query(TEXTS), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume is not for --sparse"),
        (["--output-dtype", "int8"], "--output-dtype is not for --sparse"),
        (["-o", "out.npy"], "none of .npz, .jsonl"),
        (["-o", "nowhere/out.npz"], "cannot be written"),
        ([], "Name a model"),
    ],
)
def test_bad_options(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", lines(tmp_path), "--sparse", *options]) == 2
    assert message in capsys.readouterr().err
