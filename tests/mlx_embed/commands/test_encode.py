"""`mlx-embed encode` against `encode` of the same texts; killed at its worst moments, and gone on with."""

import fcntl
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.encode_files import dense
from mlx_embed.records.reading import Record
from tests.conftest import DATA, ROOT

MODEL = str(DATA / "tiny-bert")
WORDS = ["the", "wing", "flow", "of", "heat", "boundary", "layer", "speed", "index", "query", "note", "code"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, size=n)) for n in RNG.integers(1, 30, size=50)]
# Of parts of 8 texts, the first three; and two texts that the model's 64 tokens do not hold.
TEXTS[20] = "the wing " * 50
TEXTS[40] = "the note " * 40
TEXTS[3] = ""
TEXTS[5] = 'a\u2028b, "c"\té'


def run(*arguments: str | Path, code: int = 0) -> None:
    assert cli.main(["encode", *map(str, arguments), "--model", MODEL]) == code


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PART", 8)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return EmbeddingModel.from_pretrained(MODEL, device="cpu").encode(TEXTS)


def lines(path: Path) -> Path:
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8", newline="")
    return path


def jsonl(path: Path, **more: Any) -> Path:
    rows = [{"_id": f"d{i}", "text": text} | more for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_lines_to_npy(tmp_path: Path, vectors: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert found.dtype == np.float32
    assert np.abs(found - vectors).max() <= 1e-5
    assert files(tmp_path) == {"texts.txt", "out.npy"}
    said = capsys.readouterr()
    assert said.out == ""
    model = EmbeddingModel.from_pretrained(MODEL, device="cpu")
    cut, totals = said.err.splitlines()[0], said.err.splitlines()[-1]
    assert cut.startswith("2 of 50 texts are longer than the model's 64 tokens")
    assert f"the first is {tmp_path / 'texts.txt'}:21, with {model.token_counts(TEXTS[20])[0]} tokens" in cut
    assert "--long-text mean_of_chunks" in cut
    assert totals.startswith(f"50 texts, {model.token_counts(TEXTS).sum():,} tokens, by {MODEL}: float32 [50, 32] to ")


def test_it_is_what_numpy_writes(tmp_path: Path) -> None:
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.npy")
    np.save(tmp_path / "same.npy", np.load(tmp_path / "out.npy"))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "same.npy").read_bytes()


def test_jsonl_to_npy_and_ids(tmp_path: Path, vectors: np.ndarray) -> None:
    run(jsonl(tmp_path / "texts.jsonl"), "-o", tmp_path / "out.npy")
    assert np.abs(np.load(tmp_path / "out.npy") - vectors).max() <= 1e-5
    ids = [json.loads(line) for line in (tmp_path / "out.ids.jsonl").read_text().splitlines()]
    assert ids == [f"d{i}" for i in range(50)]
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.npy")
    assert not (tmp_path / "out.ids.jsonl").exists(), "those of the file that was there before"


def test_jsonl_to_jsonl(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    run(source, "-o", tmp_path / "out.npy")
    run(source, "-o", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"d{i}" for i in range(50)]
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), np.load(tmp_path / "out.npy"))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_parquet_there_and_back(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install ".[parquet]"')
    from pyarrow import parquet

    table = pa.table({"id": pa.array(range(50)), "body": TEXTS, "other": [0.5] * 50})
    parquet.write_table(table, tmp_path / "texts.parquet", row_group_size=7)
    options = ("--text-column", "body", "--output-dtype", kind)
    run(tmp_path / "texts.parquet", "-o", tmp_path / "out.npy", *options)
    run(tmp_path / "texts.parquet", "-o", tmp_path / "out.parquet", *options)
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found["id"].to_pylist() == list(range(50))
    expected = np.load(tmp_path / "out.npy")
    stacked = np.array(found["vector"].to_pylist(), dtype=expected.dtype)
    assert np.array_equal(stacked, expected)
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "bare.parquet")
    assert parquet.read_table(tmp_path / "bare.parquet").column_names == ["vector"]


def test_csv_and_fields_that_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.csv").write_text('key,title,text\n7,the wing,"of\nheat, ""flow"""\nx,,code\n')
    run(tmp_path / "texts.csv", "--field", "title", "--field", "text", "--id-field", "key")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["7", "x"]
    model = EmbeddingModel.from_pretrained(MODEL, device="cpu")
    expected = model.encode(['the wing of\nheat, "flow"', "code"])
    assert np.abs(np.array([row["vector"] for row in rows]) - expected).max() <= 1e-6


@pytest.mark.parametrize(("options", "format"), [((), "lines"), (("--field", "text"), "jsonl")])
def test_standard_input(options: tuple[str, ...], format: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": t}) + "\n" if format == "jsonl" else f"{t}\n" for t in ["the wing", "heat"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    run("-", "-o", tmp_path / "out.npy", *options)
    expected = EmbeddingModel.from_pretrained(MODEL, device="cpu").encode(["the wing", "heat"])
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() <= 1e-6


def test_options_of_encode(tmp_path: Path) -> None:
    source = lines(tmp_path / "texts.txt")
    options = (
        "--prompt-name",
        "query",
        "--truncate-dim",
        "7",
        "--long-text",
        "mean_of_chunks",
        "--output-dtype",
        "float16",
    )
    run(source, "-o", tmp_path / "out.npy", *options)
    model = EmbeddingModel.from_pretrained(MODEL, device="cpu")
    expected = model.encode(
        TEXTS, prompt_name="query", truncate_dim=7, long_text="mean_of_chunks", output_dtype="float16"
    )
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float16
    assert np.abs(found - expected.astype(np.float32)).max() <= 1e-3


def test_codes(tmp_path: Path, vectors: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = lines(tmp_path / "texts.txt"), tmp_path / "out.npy"
    run(source, "-o", out, "--output-dtype", "ubinary")
    assert np.load(out).tolist() == np.packbits(vectors > 0, axis=1).tolist()
    run(source, "-o", out, "--output-dtype", "int8")
    ranges = np.load(tmp_path / "out.ranges.npy")
    assert np.abs(ranges - [vectors[:8].min(axis=0), vectors[:8].max(axis=0)]).max() <= 1e-6, "of the first part"
    calibrated = np.load(out)
    run(source, "-o", out, "--output-dtype", "int8", "--ranges", tmp_path / "out.ranges.npy")
    assert np.array_equal(np.load(out), calibrated)
    model = EmbeddingModel.from_pretrained(MODEL, device="cpu")
    codes = model.encode(TEXTS, output_dtype="int8", ranges=ranges)
    assert np.abs(codes.astype(int) - calibrated).max() <= 1
    run(source, "--output-dtype", "int8", code=2)
    assert "needs --ranges FILE, or -o OUT" in capsys.readouterr().err


def test_no_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").touch()
    run(tmp_path / "texts.txt", "-o", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 32)
    run(tmp_path / "texts.txt", "-o", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


# What is done in a run that is killed: at the start of the third part, after its vectors are written but before the
# journal says so, and between the files of a finished run.
KILLED = {
    "before a part": "Partial.append = dying(Partial.append, 3, before=True)",
    "before the journal": "writing.replacing = dying(writing.replacing, 3, before=True)",
    "after a part": "Partial.append = dying(Partial.append, 2, before=False)",
    "before it is put in place": "os.replace = dying(os.replace, 8, before=True)",
}
SCRIPT = """
import os, signal, sys
from mlx_embed import cli
from mlx_embed.encode_files import dense
from mlx_embed.records.reading import Record
from mlx_embed.records import writing
from mlx_embed.records.writing import Partial
def dying(function, call, before):
    calls = [0]
    def wrapped(*arguments):
        calls[0] += 1
        if before and calls[0] == call: os.kill(os.getpid(), signal.SIGKILL)
        found = function(*arguments)
        if calls[0] == call: os.kill(os.getpid(), signal.SIGKILL)
        return found
    return wrapped
dense.PART = 8
PLACE
sys.exit(cli.main(sys.argv[1:]))
"""


def killed(how: str, *arguments: str | Path) -> None:
    script = SCRIPT.replace("PLACE", KILLED[how])
    command = [sys.executable, "-c", script, "encode", *map(str, arguments), "--model", MODEL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("how", KILLED)
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_after_a_kill_the_file_is_that_of_a_run_that_was_not_killed(
    how: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    options = ("--output-dtype", kind)
    run(source, "-o", tmp_path / "whole.npy", *options)
    whole = capsys.readouterr().err
    (tmp_path / "out.npy").write_text("what was there before")
    killed(how, source, "-o", tmp_path / "out.npy", *options)
    assert (tmp_path / "out.npy").read_text() == "what was there before"
    run(source, "-o", tmp_path / "out.npy", "--resume", *options)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "out.ids.jsonl").read_bytes() == (tmp_path / "whole.ids.jsonl").read_bytes()
    assert not [name for name in files(tmp_path) if name.startswith(".")]
    said = capsys.readouterr().err
    done = {"before it is put in place": 50}.get(how, 16)
    assert f"{done} texts are done already." in said
    assert f"; {50 - done} of them in " in said
    assert [line for line in said.splitlines() if "longer" in line] == whole.splitlines()[:1], "over both runs"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_files_after_a_kill(suffix: str, tmp_path: Path) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install ".[parquet]"')
    source = jsonl(tmp_path / "texts.jsonl")
    run(source, "-o", tmp_path / f"whole.{suffix}")
    killed("before the journal", source, "-o", tmp_path / f"out.{suffix}")
    assert not (tmp_path / f"out.{suffix}").exists()
    run(source, "-o", tmp_path / f"out.{suffix}", "--resume")
    assert (tmp_path / f"out.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


@pytest.mark.parametrize("name", [2**63, -(2**63) - 1, "a\ud800"])
def test_an_id_that_parquet_cannot_hold_is_said_before_any_work(
    name: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install ".[parquet]"')
    source = tmp_path / "texts.jsonl"
    source.write_text(json.dumps({"id": name, "text": "the wing"}))
    run(source, "-o", tmp_path / "out.parquet", code=2)
    assert f"texts.jsonl:1 has the id {name!r}, which a column of Parquet cannot hold" in capsys.readouterr().err
    assert cli.main(["job", str(source), str(tmp_path / "out"), "--model", MODEL, "--device", "cpu"]) == 2
    assert "which a column of Parquet cannot hold" in capsys.readouterr().err
    run(source, "-o", tmp_path / "out.npy")
    assert json.loads((tmp_path / "out.ids.jsonl").read_text()) == name


def test_without_resume_it_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    killed("after a part", source, "-o", tmp_path / "out.npy")
    run(source, "-o", tmp_path / "out.npy")
    assert "; 50 of them in " in capsys.readouterr().err
    assert len(np.load(tmp_path / "out.npy")) == 50


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts.jsonl, and what a run of it has left that was killed after two parts."""
    folder = tmp_path_factory.mktemp("begun")
    killed("after a part", jsonl(folder / "texts.jsonl"), "-o", folder / "out.npy")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt-name", "query"), "was begun with another prompt_name (None, now 'query')"),
        (("--truncate-dim", "8"), "was begun with another shape or dtype"),
        (("--output-dtype", "float16"), "was begun with another shape or dtype"),
        (("--long-text", "mean_of_chunks"), "was begun with another long_text"),
        (("--model", str(DATA / "tiny-mpnet")), "was begun with another model"),
        (("--id-field", "text"), "has other texts or ids among its first 16"),
    ],
)
def test_another_run_does_not_go_on(
    options: tuple[str, ...], message: str, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(begun, tmp_path, dirs_exist_ok=True) / "texts.jsonl"
    command = ["encode", str(source), "-o", str(tmp_path / "out.npy"), "--resume", "--model", MODEL, *options]
    assert cli.main(command) == 2
    assert message in (said := capsys.readouterr().err)
    assert "start over" in said
    run(source, "-o", tmp_path / "out.npy", "--resume")
    assert "16 texts are done already." in capsys.readouterr().err, "what was done is still there"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("1_Pooling/config.json", "pooling_mode", "cls"),
        ("config_sentence_transformers.json", "prompts", {"query": "wing: "}),
        ("config.json", "layer_norm_eps", 0.1),
        ("tokenizer_config.json", "do_lower_case", False),
    ],
)
def test_a_model_whose_settings_were_changed_does_not_go_on(
    file: str, key: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    command = ["encode", str(jsonl(tmp_path / "texts.jsonl")), "-o", str(tmp_path / "out.npy"), "--model", str(model)]
    whole = (tmp_path / "texts.jsonl").read_text()
    (tmp_path / "texts.jsonl").write_text(whole.replace('{"_id": "d30"', '{"id": "d30"'))
    assert cli.main(command) == 2
    (tmp_path / "texts.jsonl").write_text(whole)
    before = (model / file).read_text()
    (model / file).write_text(json.dumps(json.loads(before) | {key: value}))
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 2
    assert "was begun with another state of the model's files" in capsys.readouterr().err


def test_an_adapter_whose_base_model_lies_elsewhere(tmp_path: Path, vectors: np.ndarray) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "tiny-bert" / file, adapter)
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": MODEL}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    path = "base_model.model.encoder.layer.0.attention.self.query"
    tensors = {f"{path}.lora_A.weight": mx.zeros((1, 32)), f"{path}.lora_B.weight": mx.zeros((32, 1))}
    mx.save_safetensors(str(adapter / "adapter_model.safetensors"), tensors)
    command = ["encode", str(lines(tmp_path / "texts.txt")), "-o", str(tmp_path / "out.npy"), "--model", str(adapter)]
    assert cli.main(command) == 0
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), vectors, atol=1e-5)


def test_one_text_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("wing\n")
    run(tmp_path / "texts.txt", "-o", tmp_path / "out.npy")
    assert "\n1 text, 3 tokens, by " in f"\n{capsys.readouterr().err}"


def test_where_texts_end_is_part_of_what_is_done() -> None:
    digests = [hashlib.sha256(), hashlib.sha256()]
    for digest, texts in zip(digests, (["aNoneb", "c"], ["a", "bNonec"]), strict=True):
        dense.add_digest(digest, [Record(text, None, "") for text in texts])
    assert digests[0].digest() != digests[1].digest()


def test_other_texts_do_not_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    killed("after a part", source, "-o", tmp_path / "out.npy")
    whole = source.read_text()
    source.write_text(whole.replace("d15", "d-15"))
    run(source, "-o", tmp_path / "out.npy", "--resume", code=2)
    assert "has other texts or ids among its first 16" in capsys.readouterr().err
    source.write_text("\n".join(whole.splitlines()[:5]))
    run(source, "-o", tmp_path / "out.npy", "--resume", code=2)
    assert "has 5 texts, of which 16 were done" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [("", b"short"), (".ids", b""), (".json", b"{")])
def test_what_is_damaged_does_not_go_on(
    damage: tuple[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    killed("after a part", source, "-o", tmp_path / "out.npy")
    (tmp_path / f".out.npy.partial{damage[0]}").write_bytes(damage[1])
    run(source, "-o", tmp_path / "out.npy", "--resume", code=2)
    assert "damaged; start over without --resume" in capsys.readouterr().err


def test_an_error_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = jsonl(tmp_path / "texts.jsonl")
    whole = source.read_text()
    source.write_text(whole.replace('{"_id": "d30"', '{"id": "d30"'))
    run(source, "-o", tmp_path / "out.npy", code=2)
    said = capsys.readouterr().err
    assert "24 texts are done and kept; the same command with --resume goes on." in said
    assert f"{source}:31 has None as its id '_id'" in said
    source.write_text(whole)
    run(source, "-o", tmp_path / "out.npy", "--resume")
    assert "24 texts are done already." in capsys.readouterr().err


def test_an_error_at_once_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": 5}')
    run(tmp_path / "texts.jsonl", "-o", tmp_path / "out.npy", code=2)
    assert "texts.jsonl:1 has an int as 'text', where text is needed." in capsys.readouterr().err
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.npy", "--prompt-name", "no", code=2)
    assert "prompt_name 'no' is not among the model's prompts" in capsys.readouterr().err
    assert files(tmp_path) == {"texts.jsonl", "texts.txt"}


def test_two_runs_of_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".out.npy.partial.ids").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.npy", code=2)
    assert "Another run is writing" in capsys.readouterr().err
    assert (tmp_path / ".out.npy.partial.ids").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.txt",), "There is no file no.txt"),
        (("texts.txt", "-o", "out.bin"), "out.bin ends in none of .npy, .parquet, .jsonl"),
        (("texts.txt", "-o", "no/out.npy"), "There is no folder"),
        (("texts.txt", "-o", "folder.npy"), "is a folder; name a file"),
        (("folder.npy",), "is a folder, where a file of texts is needed"),
        (("texts.jsonl", "-o", "texts.jsonl"), "is the file of texts; write the vectors to another"),
        (("texts.txt", "--resume"), "--resume goes on with a file: name it with -o"),
        (("texts.txt", "--field", "text"), "Where fields are named it is read as JSONL"),
        (("texts.txt", "--format", "lines", "--field", "text"), "A file of lines has no fields"),
        (("-", "--format", "parquet"), "Parquet cannot be read from standard input"),
        (("texts.txt", "--task", "query"), "task 'query': this model has no tasks"),
        (("texts.txt", "--truncate-dim", "99"), "truncate_dim 99 is not within 1..32"),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "no.npy"), "--ranges no.npy: "),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "empty.npy"), "--ranges empty.npy: "),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "zip.npy"), "--ranges zip.npy: the magic string"),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "header.npy"), "--ranges header.npy: "),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "texts.txt"), "--ranges texts.txt: the magic string"),
        (("texts.txt", "--output-dtype", "int8", "--ranges", "words.npy"), "--ranges words.npy: ranges has dtype <U1"),
    ],
)
def test_bad_arguments(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "texts.txt")
    jsonl(tmp_path / "texts.jsonl")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "empty.npy").touch()
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'descr'")
    np.save(tmp_path / "words.npy", [["a"], ["b"]])
    before = files(tmp_path)
    run(*arguments, code=2)
    assert message in capsys.readouterr().err
    assert files(tmp_path) == before


def test_parquet_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "mlx_embed.records.parquet", raising=False)
    monkeypatch.delattr("mlx_embed.records.parquet", raising=False)
    run(lines(tmp_path / "texts.txt"), "-o", tmp_path / "out.parquet", code=2)
    assert 'Parquet needs pyarrow: pip install ".[parquet]" in a clone' in capsys.readouterr().err
    assert files(tmp_path) == {"texts.txt"}


def test_it_streams() -> None:
    """The vectors of a part are there before the next one's texts are: memory does not grow with the file."""
    script = SCRIPT.replace("PLACE", "")
    command = [sys.executable, "-u", "-c", script, "encode", "-", "--model", MODEL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write("the wing\n" * 8)
            process.stdin.flush()
            for _ in range(8):
                assert len(json.loads(process.stdout.readline())["vector"]) == 32
        process.stdin.write("heat")
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 1
        assert process.wait() == 0


def test_parts_are_bounded_by_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PART_CHARACTERS", 10)
    records = [dense.Record("x" * n, None, "") for n in (4, 4, 4, 30, 1, 1, 1, 1, 1, 1, 1, 1, 1)]
    assert [len(part) for part in dense.parts(iter(records))] == [3, 1, 8, 1]
