"""`mlx-embed job`: every row once, in order, with its id, whatever is killed on the way."""

import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.jobs import job, shards
from mlx_embed.jobs.job import Work
from mlx_embed.records import reading
from tests.conftest import DATA, ROOT
from tests.mlx_embed.checkpoint.test_jina_v5 import authors
from tests.mlx_embed.jobs.tasks import Slow

arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow, extra parquet")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow, extra parquet")

MODEL = str(DATA / "tiny-bert")
TEXTS = [f"text {n} " + "wing " * (n % 20) for n in range(230)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return EmbeddingModel.from_pretrained(MODEL, device="cpu").encode(TEXTS)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)))
    return path


def run(*arguments: Any, code: int = 0) -> None:
    assert cli.main(["job", *map(str, arguments), "--model", MODEL, "--device", "cpu"]) == code


def made(folder: Path) -> tuple[list[Any], np.ndarray]:
    """The ids and vectors of all shards, in the order of their names."""
    tables = [parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    ids = [name for table in tables if "id" in table.column_names for name in table["id"].to_pylist()]
    return ids, np.array([row for table in tables for row in table["vector"].to_pylist()], dtype=np.float32)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / shards.MANIFEST).read_text().splitlines()]


def check(folder: Path, vectors: np.ndarray, ids: list[Any]) -> None:
    found, rows = made(folder)
    assert found == ids
    assert rows.shape == vectors.shape
    assert np.abs(rows - vectors).max() < 1e-5
    done = {line["file"]: line for line in lines(folder) if "file" in line}
    files = sorted(folder.glob("part-*"))
    assert sorted(done) == [path.name for path in files]
    for path in files:
        assert done[path.name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert done[path.name]["bytes"] == path.stat().st_size
    assert lines(folder)[-1] == {**lines(folder)[-1], "finished": True, "rows": len(vectors), "shards": len(files)}
    assert {path.name for path in folder.iterdir() if "begun" not in path.name} == {*done, shards.MANIFEST}


def test_shards_of_several_processes(jsonl: Path, tmp_path: Path, vectors: np.ndarray, capsys: Any) -> None:
    out = tmp_path / "out"
    run(jsonl, out, "--workers", 2, "--rows", 30)
    check(out, vectors, list(range(230)))
    assert "230 texts, " in capsys.readouterr().out
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    run(jsonl, out, "--workers", 1, "--rows", 30)  # all is done
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert capsys.readouterr().err.startswith("8 of 8 shards are done already.")


def test_a_shard_of_more_texts_than_are_held(
    jsonl: Path, tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_TEXTS", 100)
    [shard] = shards.shards(shards.sources([str(jsonl)], None, (), None), 1000)
    done = Work(str(tmp_path), MODEL, {"device": "cpu"})()(shard)
    ids, rows = made(tmp_path)
    assert ids == list(range(done.rows)) == list(range(230))
    assert np.abs(rows - vectors).max() < 1e-5


def test_several_inputs_of_several_formats(tmp_path: Path, vectors: np.ndarray) -> None:
    names = [f"d{n}" for n in range(230)]
    table = arrow.table({"_id": names[:100], "body": TEXTS[:100]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=33)
    rows = "".join(
        f"{json.dumps({'_id': name, 'body': text})}\n\n"
        for name, text in zip(names[100:200], TEXTS[100:200], strict=True)
    )
    (tmp_path / "b.jsonl").write_text(rows)
    (tmp_path / "c.csv").write_text("_id,body\n" + "".join(f'd{n},"{TEXTS[n]}"\n' for n in range(200, 230)))
    inputs = [tmp_path / name for name in ("a.parquet", "b.jsonl", "c.csv")]
    run(*inputs, tmp_path / "out", "--rows", 40, "--field", "body")
    check(tmp_path / "out", vectors, names)


def test_lines_have_no_ids(tmp_path: Path, vectors: np.ndarray) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    run(tmp_path / "a.txt", tmp_path / "out", "--rows", 100)
    check(tmp_path / "out", vectors, [])


def test_a_model_with_tasks_is_told_one(jsonl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = authors(tmp_path / "model", "nano"), tmp_path / "out"
    command = ["job", str(jsonl), str(out), "--model", str(model), "--device", "cpu"]
    for options, message in (
        ([], "needs a task, of retrieval, "),
        (["--task", "no"], "'no' is not one of the model's"),
    ):
        assert cli.main([*command, *options]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    assert cli.main([*command, "--task", "clustering"]) == 0
    expected = EmbeddingModel.from_pretrained(model, device="cpu").encode(TEXTS, task="clustering")
    assert np.abs(made(out)[1] - expected).max() < 1e-5


@pytest.mark.parametrize("rows", [1, 7, 32, 33, 34, 1000])
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.txt"])
def test_parts_are_the_whole(name: str, rows: int, tmp_path: Path) -> None:
    texts = TEXTS[:67]
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(arrow.table({"text": texts}), path, row_group_size=33)
    elif name.startswith("a.jsonl"):
        rows_of = ("\ufeff" + "\n".join(json.dumps({"text": text}) for text in texts)).encode()
        path.write_bytes(gzip.compress(rows_of) if name.endswith(".gz") else rows_of)
    else:
        path.write_text("".join(f"{text}\n" for text in texts))
    source = reading.source(str(path))
    found = [record for shard in shards.shards([source], rows) for record in reading.records(shard.source)]
    assert found == list(reading.records(source))
    assert [record.text for record in found] == texts
    assert [shard.source.part.rows for shard in shards.shards([source], rows)][:-1] == [rows] * ((67 - 1) // rows)  # type: ignore


def killed(out: Path, jsonl: Path, chance: random.Random, seconds: float) -> bool:
    """Run the job and kill it, or one of its processes, at a random moment; whether it was the job itself."""
    command = [sys.executable, "-m", "mlx_embed.cli", "job", jsonl, out, "--model", MODEL, "--rows", 9, "--workers", 2]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*map(str, command), "--device", "cpu"], env=settings, stdout=subprocess.DEVNULL)
    time.sleep(chance.uniform(0.2, seconds))
    itself = chance.random() < 0.6
    if sys.platform == "linux":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    else:
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if itself or not children:
        process.kill()
    else:
        os.kill(int(chance.choice(children)), signal.SIGKILL)
    assert process.wait(100) in (0, -signal.SIGKILL)
    return itself


@pytest.mark.parametrize("seed", range(2))
def test_a_job_that_is_killed_goes_on(seed: int, jsonl: Path, tmp_path: Path, vectors: np.ndarray) -> None:
    chance = random.Random(seed)
    out = tmp_path / "out"
    for _ in range(3):
        killed(out, jsonl, chance, 1.6)
        if (out / shards.MANIFEST).exists() and chance.random() < 0.5:
            with (out / shards.MANIFEST).open("ab") as manifest:
                manifest.write(b'{"shard": 1, "fi')  # what a kill in the middle of a line leaves
    run(jsonl, out, "--rows", 9)
    check(out, vectors, list(range(230)))


def test_a_killed_process_costs_its_shard_once_more(jsonl: Path, tmp_path: Path, vectors: np.ndarray) -> None:
    out = tmp_path / "out"
    work = Slow(Work(str(out), MODEL, {"device": "cpu"}), 0.6)
    parts = shards.shards(shards.sources([str(jsonl)], None, (), None), 60)
    work.load = {"device": "cpu"}  # type: ignore[attr-defined]

    def kill() -> None:
        """The process that has just begun the third shard."""
        end = time.monotonic() + 30
        while len(begun := list(out.glob(".begun-*"))) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        newest = max(begun, key=lambda path: path.stat().st_mtime_ns)
        os.kill(int(newest.name.split("-")[-1]), signal.SIGKILL)

    with shards.opened(out, {}) as manifest:
        killer = threading.Thread(target=kill)
        killer.start()
        for _ in job.run(manifest, parts, work, 2):  # type: ignore[arg-type]
            pass
        killer.join()
        manifest.finish(len(parts))
    check(out, vectors, list(range(230)))
    begun = [path.name.split("-")[1] for path in out.glob(".begun-*")]
    assert sorted(begun.count(str(n)) for n in range(4)) == [1, 1, 1, 2]


@pytest.mark.parametrize("packed", [False, True])
def test_a_shard_that_was_lost_is_made_again(packed: bool, jsonl: Path, tmp_path: Path, vectors: np.ndarray) -> None:
    if packed:
        data, jsonl = jsonl.read_bytes(), jsonl.with_name("in.jsonl.gz")
        jsonl.write_bytes(gzip.compress(data))
    out = tmp_path / "out"
    run(jsonl, out, "--rows", 60)
    (out / "part-00002.parquet").unlink()
    (out / "part-00001.parquet").write_bytes(b"cut")
    run(jsonl, out, "--rows", 60)
    check(out, vectors, list(range(230)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "50"], "another rows of a shard"),
        (["--truncate-dim", "8"], "another truncate_dim"),
        (["--prompt-name", "none"], "--prompt-name 'none' is not one"),
        (["--id-field", "text"], "another fields"),
    ],
)
def test_another_job_does_not_go_on_with_this_one(
    options: list[str], message: str, jsonl: Path, tmp_path: Path, capsys: Any
) -> None:
    run(jsonl, tmp_path / "out", "--rows", 100)
    before = (tmp_path / "out" / shards.MANIFEST).read_bytes()
    run(jsonl, tmp_path / "out", "--rows", 100, *options, code=2)
    assert message in capsys.readouterr().err
    assert (tmp_path / "out" / shards.MANIFEST).read_bytes() == before


def test_a_job_of_which_nothing_is_done_is_no_other(
    jsonl: Path, tmp_path: Path, vectors: np.ndarray, capsys: Any
) -> None:
    run(jsonl, tmp_path / "out", "--truncate-dim", 99, code=2)
    assert "truncate_dim 99 is not within 1..32" in capsys.readouterr().err
    (tmp_path / "out" / "part-00007.parquet").write_bytes(b"of a run that was killed")
    run(jsonl, tmp_path / "out")
    check(tmp_path / "out", vectors, list(range(230)))
    assert [line["plan"]["truncate_dim"] for line in lines(tmp_path / "out") if "plan" in line] == [None]


def test_an_option_that_is_left_out_is_another_job(jsonl: Path, tmp_path: Path, capsys: Any) -> None:
    run(jsonl, tmp_path / "out", "--dtype", "bfloat16")
    (tmp_path / "out" / "part-00000.parquet").unlink()
    run(jsonl, tmp_path / "out", code=2)
    assert "another dtype ('bfloat16', now None)" in capsys.readouterr().err


def test_inputs_without_rows_are_left_out(jsonl: Path, tmp_path: Path, vectors: np.ndarray) -> None:
    empty = {"a.txt": "", "b.jsonl": "", "c.jsonl": "\n", "d.csv": "_id,text\n"}
    for name, content in empty.items():
        (tmp_path / name).write_text(content)
    files = [tmp_path / name for name in empty]
    run(*files[:2], jsonl, *files[2:], tmp_path / "out", "--rows", 100)
    check(tmp_path / "out", vectors, list(range(230)))
    run(*files, tmp_path / "none")
    assert lines(tmp_path / "none")[-1]["rows"] == 0


def test_ids_of_all_shards_are_of_one_type(jsonl: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "b.jsonl"
    other.write_text('{"id": "x", "text": "y"}\n')
    run(jsonl, other, tmp_path / "out", code=2)
    assert "are of type int and those of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with jsonl.open("a") as file:
        file.write("\n" + other.read_text())
    run(jsonl, tmp_path / "out", "--rows", 230, code=2)
    assert "b.jsonl" not in (said := capsys.readouterr().err)
    assert f"{jsonl}:231 has the id 'x', where those before it are of type int" in said


def test_an_input_that_has_changed_is_another_job(jsonl: Path, tmp_path: Path, capsys: Any) -> None:
    run(jsonl, tmp_path / "out")
    jsonl.write_text('{"id": 1, "text": "other"}\n')
    run(jsonl, tmp_path / "out", code=2)
    assert "another input" in capsys.readouterr().err


def test_of_many_inputs_the_one_that_differs_is_named(tmp_path: Path, capsys: Any) -> None:
    inputs = [tmp_path / f"{name}.txt" for name in "abcdefgh"]
    for path in inputs:
        path.write_text("wing\n")
    run(*inputs, tmp_path / "out")
    run(*inputs[:-1], tmp_path / "out", code=2)
    assert re.search(r"another input \(\['[^']*h\.txt', 5, \d+\], now None\)", capsys.readouterr().err)
    inputs[5].write_text("heat\nflow\n")
    run(*inputs, tmp_path / "out", code=2)
    said = capsys.readouterr().err
    assert re.search(r"another input \(\['[^']*f\.txt', 5, \d+\], now \['[^']*f\.txt', 10, \d+\]\)", said)


def test_what_is_refused_before_any_work(jsonl: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    run(jsonl, tmp_path / "full", code=2)
    assert "none is a manifest" in capsys.readouterr().err
    other = tmp_path / "b.jsonl"
    other.write_text('{"_id": "x", "text": "y"}\n')
    for arguments, message in (
        ([jsonl, other], "name one field for all by --id-field"),
        (["-"], "standard input"),
        ([jsonl, "--rows", 0], "--rows 0"),
        ([jsonl, "--workers", 0], "--workers 0"),
        ([tmp_path / "missing.jsonl"], "There is no file"),
        ([jsonl, "--field", "title"], ""),
    ):
        files = [item for item in arguments if not isinstance(item, (str, int)) or item == "-"]
        rest = [item for item in arguments if item not in files]
        run(*files, tmp_path / "out", *rest, code=2)
        assert message in capsys.readouterr().err
    with shards.opened(tmp_path / "held", {}):
        run(jsonl, tmp_path / "held", code=2)
    assert "Another run is writing" in capsys.readouterr().err
    (tmp_path / "held" / shards.MANIFEST).write_text("nonsense\n")
    run(jsonl, tmp_path / "held", code=2)
    assert "is damaged" in capsys.readouterr().err


def test_a_bad_row_is_named_and_the_rest_is_kept(jsonl: Path, tmp_path: Path, capsys: Any) -> None:
    rows = jsonl.read_text().splitlines()
    rows[150] = '{"id": 150}'
    jsonl.write_text("\n".join(rows))
    run(jsonl, tmp_path / "out", "--rows", 50, code=2)
    assert f"{jsonl}:151 has no 'text'" in capsys.readouterr().err
    assert len([line for line in lines(tmp_path / "out") if "file" in line]) >= 1
    assert not any("finished" in line for line in lines(tmp_path / "out"))
