"""`encode --sparse` and `--multi-vector`, beside the same models asked directly; killed, and gone on with."""

import json
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import BGEM3, MultiVectorEncoder, MultiVectors, SparseEncoder, SparseVectors
from mlx_embed.cli import main
from mlx_embed.encode_files import dense
from mlx_embed.records import ragged
from tests.bge_m3 import make as make_m3
from tests.conftest import ROOT
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
TEXTS = ["the wing flow", "heat", "", "a query of code", "the wing " * 60, "flow of heat", "code"]
PARQUET = pytest.mark.skipif(find_spec("pyarrow") is None, reason='pyarrow is not installed: pip install ".[parquet]"')


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sparse(tmp_path_factory.mktemp("s") / "model", "queries looked up")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_multi_vector(tmp_path_factory.mktemp("l") / "model", "sentence-transformers")


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_m3(tmp_path_factory.mktemp("m") / "model", 20)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PART", 2)


def lines(folder: Path, *, named: bool = True) -> str:
    path = folder / "texts.jsonl"
    rows = [({"_id": f"d{i}"} if named else {}) | {"text": text} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(folder: Path, *arguments: str | Path, code: int = 0, named: bool = True) -> None:
    command = ["encode", lines(folder, named=named), "--device", "cpu", *map(str, arguments)]
    assert main(command) == code


def csr(path: Path) -> SparseVectors:
    with np.load(path) as file:
        assert file["format"].item() == b"csr"
        return SparseVectors(file["indptr"], file["indices"], file["data"], int(file["shape"][1]))


def multi(path: Path) -> MultiVectors:
    with np.load(path) as file:
        return MultiVectors(file["vectors"], file["offsets"])


@pytest.mark.parametrize("task", ["query", "document"])
def test_sparse(task: str, sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = SparseEncoder.from_pretrained(sparse, device="cpu")
    expected = (model.encode_query if task == "query" else model.encode_document)(TEXTS)
    options = ["--sparse", "--model", sparse, "--task", task]
    run(tmp_path, *options)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [f"d{i}" for i in range(7)]
    assert rows[0]["indices"] == expected[0].indices.tolist()
    assert rows[0]["values"] == pytest.approx(expected[0].values.tolist(), abs=1e-6)
    run(tmp_path, *options, "-o", tmp_path / "out.npz")
    found = csr(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        assert file["ids"].tolist() == [f"d{i}" for i in range(7)]
    assert found.dimension == expected.dimension
    assert found.dense() == pytest.approx(expected.dense(), abs=1e-6)
    said = capsys.readouterr().err
    counts = model.tokenizer_for(task)(TEXTS).counts
    assert f"7 texts, {counts.sum()} tokens, by {sparse}: {len(expected.values):,} weights to" in said
    assert task == "query" or f"texts.jsonl:5, with {counts[4]} tokens." in said


def test_scipy_reads_it(sparse: Path, tmp_path: Path) -> None:
    load_npz = pytest.importorskip("scipy.sparse", reason="scipy is not installed").load_npz
    run(tmp_path, "--sparse", "--model", sparse, "-o", tmp_path / "out.npz")
    assert load_npz(tmp_path / "out.npz").toarray().tolist() == csr(tmp_path / "out.npz").dense().tolist()


def test_multi_vector(late: Path, tmp_path: Path) -> None:
    model = MultiVectorEncoder.from_pretrained(late, device="cpu")
    run(tmp_path, "--multi-vector", "--model", late, "-o", tmp_path / "out.npz")
    for a, b in zip(multi(tmp_path / "out.npz"), model.encode_document(TEXTS), strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    run(tmp_path, "--multi-vector", "--model", late, "--task", "query", "-o", tmp_path / "out.jsonl", named=False)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.array([row["vectors"] for row in rows]) == pytest.approx(model.encode_query(TEXTS), abs=1e-6)
    assert set(rows[0]) == {"vectors"}


def test_a_prompt_that_encode_document_does_not_take(late: Path, tmp_path: Path) -> None:
    """A model of this kind has a "document" prompt, if an empty one: "passage" is never come to."""
    shutil.copytree(late, tmp_path / "model")
    path = tmp_path / "model" / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": {"passage": "flow of heat "}}))
    model = MultiVectorEncoder.from_pretrained(tmp_path / "model", device="cpu")
    assert model.prompts["passage"]
    run(tmp_path, "--multi-vector", "--model", tmp_path / "model", "-o", tmp_path / "out.npz")
    for a, b in zip(multi(tmp_path / "out.npz"), model.encode_document(TEXTS), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


def test_bge_m3(m3: Path, tmp_path: Path) -> None:
    expected = BGEM3.from_pretrained(m3, device="cpu").encode(TEXTS)
    run(tmp_path, "--sparse", "--model", m3, "-o", tmp_path / "out.npz")
    assert csr(tmp_path / "out.npz").dense() == pytest.approx(expected.sparse.dense(), abs=1e-6)
    run(tmp_path, "--multi-vector", "--model", m3, "-o", tmp_path / "out.npz")
    found = multi(tmp_path / "out.npz")
    assert found.offsets.tolist() == expected.multi_vector.offsets.tolist()
    assert found.vectors == pytest.approx(expected.multi_vector.vectors, abs=1e-6)


@PARQUET
def test_parquet(sparse: Path, late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(ragged, "BLOCK", 700)  # some row groups
    monkeypatch.setattr(ragged, "_ROWS", 3)
    run(tmp_path, "--sparse", "--model", sparse, "-o", tmp_path / "out.npz")
    run(tmp_path, "--sparse", "--model", sparse, "-o", tmp_path / "out.parquet")
    table, expected = parquet.read_table(tmp_path / "out.parquet"), csr(tmp_path / "out.npz")
    assert table.column_names == ["id", "indices", "values"]
    assert table["id"].to_pylist() == [f"d{i}" for i in range(7)]
    assert table["indices"].to_pylist() == [row.indices.tolist() for row in expected]
    assert table["values"].to_pylist() == [row.values.tolist() for row in expected]
    run(tmp_path, "--multi-vector", "--model", late, "-o", tmp_path / "out.npz", named=False)
    run(tmp_path, "--multi-vector", "--model", late, "-o", tmp_path / "out.parquet", named=False)
    table, whole = parquet.read_table(tmp_path / "out.parquet"), multi(tmp_path / "out.npz")
    assert table.column_names == ["vectors"]
    assert table.schema.field("vectors").type.value_type.list_size == whole[0].shape[1]
    assert table["vectors"].to_pylist() == [row.tolist() for row in whole]
    if find_spec("polars") is not None:
        import polars

        frame = polars.read_parquet(tmp_path / "out.parquet")
        assert frame["vectors"][0].to_numpy().tolist() == whole[0].tolist()


def test_no_texts(late: Path, sparse: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").touch()
    for options in (["--sparse", "--model", str(sparse)], ["--multi-vector", "--model", str(late)]):
        out = str(tmp_path / "out.npz")
        assert main(["encode", str(tmp_path / "none.txt"), "--device", "cpu", "-o", out, *options]) == 0
        assert len(csr(Path(out)) if "--sparse" in options else multi(Path(out))) == 0


SCRIPT = """
import os, signal, sys
from mlx_embed import cli
from mlx_embed.encode_files import dense
from mlx_embed.records import ragged, writing
def dying(function, call):
    calls = [0]
    def wrapped(*arguments):
        calls[0] += 1
        if calls[0] == call: os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
dense.PART = 2
PLACE
sys.exit(cli.main(sys.argv[1:]))
"""
# After a part's rows are written but before the journal says so, and before the file is in its place.
KILLED = {
    "before the journal": ("writing.replacing = dying(writing.replacing, 3)", 4),
    "before it is put in place": ("os.replace = dying(os.replace, 5)", 7),
}


def killed(how: str, folder: Path, *arguments: str | Path) -> None:
    script = SCRIPT.replace("PLACE", KILLED[how][0])
    command = [sys.executable, "-c", script, "encode", lines(folder), "--device", "cpu", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def stopped(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str | Path) -> None:
    """A run that ends by an error before its third part is written."""
    append, calls = ragged.RaggedPartial.append, []

    def failing(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("no more")
        append(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ragged.RaggedPartial, "append", failing)
        run(folder, *arguments, code=2)


@pytest.mark.parametrize(
    ("how", "kind", "suffix"),
    [
        ("before the journal", "--multi-vector", "npz"),
        pytest.param("before the journal", "--sparse", "parquet", marks=PARQUET),
        ("before it is put in place", "--sparse", "jsonl"),
    ],
)
def test_after_a_kill_the_file_is_that_of_a_run_that_was_not_killed(
    how: str, kind: str, suffix: str, sparse: Path, late: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (kind, "--model", sparse if kind == "--sparse" else late, "-o")
    run(tmp_path, *options, tmp_path / f"whole.{suffix}")
    whole = capsys.readouterr().err
    out = tmp_path / f"out.{suffix}"
    out.write_text("what was there before")
    killed(how, tmp_path, *options, out)
    assert out.read_text() == "what was there before"
    run(tmp_path, *options, out, "--resume")
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    said = capsys.readouterr().err
    done = KILLED[how][1]
    assert f"{done} texts are done already." in said
    assert f"; {7 - done} of them in " in said
    counted = whole.splitlines()[-1].partition(": ")[2].partition(" to ")[0]
    assert f": {counted} to " in said, "over both runs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "query"], "was begun with another task ('document', now 'query')"),
        (["--prompt-name", "query"], "was begun with another prompt_name"),
        (["--multi-vector"], "was begun with another"),
    ],
)
def test_another_run_does_not_go_on(
    options: list[str],
    message: str,
    late: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_sparse(tmp_path / "model", "bert")
    settings = model / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"prompts": {"query": "heat of "}}))
    stopped(monkeypatch, tmp_path, "--sparse", "--model", model, "-o", tmp_path / "out.npz")
    kind = ["--multi-vector", "--model", late] if "--multi-vector" in options else ["--sparse", "--model", model]
    more = [option for option in options if option != "--multi-vector"]
    run(tmp_path, *kind, *more, "-o", tmp_path / "out.npz", "--resume", code=2)
    assert message in capsys.readouterr().err
    run(tmp_path, "--sparse", "--model", model, "-o", tmp_path / "out.npz", "--resume")
    assert "4 texts are done already." in capsys.readouterr().err, "what was done is still there"


@pytest.mark.parametrize("name", ["", ".lengths", ".ids"])
def test_what_is_damaged_does_not_go_on(
    name: str, sparse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(monkeypatch, tmp_path, "--sparse", "--model", sparse, "-o", tmp_path / "out.npz")
    (tmp_path / f".out.npz.partial{name}").write_bytes(b"bad")
    run(tmp_path, "--sparse", "--model", sparse, "-o", tmp_path / "out.npz", "--resume", code=2)
    assert "damaged; start over without --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume goes on with a file: name it with -o"),
        (["--output-dtype", "int8"], "--output-dtype is not for --sparse"),
        (["--truncate-dim", "8"], "--truncate-dim is not for --sparse"),
        (["--long-text", "mean_of_chunks"], "--long-text is not for --sparse"),
        (["-o", "out.npy"], "none of .npz, .parquet, .jsonl"),
        (["-o", "nowhere/out.npz"], "There is no folder"),
        (["--api-key-file", "keys"], "--api-key-file is the key of a server"),
    ],
)
def test_bad_options(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", lines(tmp_path), "--sparse", "--model", "none", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", lines(tmp_path), "--sparse"]) == 2
    assert "Name a model" in capsys.readouterr().err


def test_ids_of_every_sort(sparse: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    for names, expected in (([3, 1], [3, 1]), ([2**70, 5], [str(2**70), "5"])):
        path.write_text("".join(json.dumps({"_id": name, "text": "heat"}) + "\n" for name in names))
        command: list[Any] = ["encode", path, "--sparse", "--model", sparse, "--device", "cpu"]
        assert main([*map(str, command), "-o", str(tmp_path / "out.npz")]) == 0
        with np.load(tmp_path / "out.npz") as file:
            assert file["ids"].tolist() == expected
